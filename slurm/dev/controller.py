"""A whole cluster: brought up, looked at, broken and taken down."""

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import config
import requirements
from hosts import Host, call, own_cgroups, started_at, wait_until
from place import COMMANDS, ClusterError, Place, Settings, address

PORTS = {"mariadbd": 3306, "slurmdbd": 6819, "slurmctld": 6817}
RESTARTABLE = ("slurmctld", "slurmdbd")
PARENT = Path("/var/tmp")


class Controller:
    """The cluster of one name."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.ctl = Host(place, "ctl")

    # up and down

    def up(self, wanted: Settings) -> str:
        """Make it, or restart what was lost of it."""
        if reason := requirements.obstacle():
            raise ClusterError(reason)
        for folder in (COMMANDS, self.place.state, self.place.database):
            if folder.exists() and folder.stat().st_uid != os.geteuid():
                raise ClusterError(f"{folder} belongs to {folder.owner()}, and root would run what is in it; delete it")
        with self._lock():
            settings = self._settings(wanted)
            self._start_controller()
            with ThreadPoolExecutor() as threads:
                list(threads.map(self._restore, settings.nodes))
            self._wait_for(settings)
        return settings.cgroups

    def down(self, *, purge: bool) -> None:
        if not self.place.state.exists():
            return
        with self._lock():
            for host in self._remains():
                if host.is_node:
                    host.kill()
            if self.ctl.pid() is not None and not purge:
                for daemon in ("slurmctld", "slurmdbd", "mariadbd"):
                    if self.ctl.has(daemon):
                        self.ctl.end(daemon, signal.SIGTERM)
            for host in self._remains():
                host.remove()
            if purge:
                for folder in (self.place.commands, self.place.database, self.place.state):
                    shutil.rmtree(folder, ignore_errors=True)
                self._lock_file.unlink()

    def _settings(self, wanted: Settings) -> Settings:
        """Those of the running cluster, or those that were asked for, written out."""
        if self.ctl.pid() is not None and (running := self.place.settings()) is not None:
            if running.num_nodes != wanted.num_nodes:
                raise ClusterError(f"{self.place.name} is up with {running.num_nodes} nodes; add --fresh, or `down` first")
            return running
        for host in self._remains():
            host.remove()
        parents = own_cgroups() if wanted.cgroups != "off" else None
        settings = replace(wanted, cgroups="v1" if parents else "off")
        config.write(self.place, settings)
        (self.place.state / "cgroups.json").write_text(json.dumps(parents or {}))
        self.place.write_settings(settings)
        return settings

    def _remains(self) -> list[Host]:
        """Hosts that run, or whose network was left, the controller last."""
        pattern = rf"es-{re.escape(self.place.name)}-(n\d+|ctl)"
        networks = Path("/run/netns").glob("es-*") if Path("/run/netns").exists() else ()
        names = {found[1] for path in networks if (found := re.fullmatch(pattern, path.name))}
        names |= {path.stem for path in (self.place.state / "hosts").glob("*.json")}
        return [Host(self.place, name) for name in sorted(names, key=lambda name: (name == "ctl", name))]

    def _start_controller(self) -> None:
        self.ctl.start()
        self._start_database()
        self._start_daemon("slurmdbd", ["slurmdbd", "-D"])
        accounts_made = self.place.database / "accounts-made"
        if not accounts_made.exists():
            # before slurmctld registers itself, or sacct stays empty
            self._make_accounts()
            accounts_made.touch()
        self._start_daemon("slurmctld", ["slurmctld", "-D"])

    def _start_database(self) -> None:
        run, settings = self.place.run, self.place.state / "etc"
        # tmpdir: names of temporary tables hold the process id, which is the same number in other clusters
        common = ["--no-defaults", "--user=root", f"--datadir={self.place.database}", f"--tmpdir={self.place.state}/tmp"]
        common += ["--innodb-log-file-size=16M"]
        if not (self.place.database / "mysql").exists():
            install = ["mariadb-install-db", *common, "--skip-test-db", "--auth-root-authentication-method=normal"]
            call(*install, log=self.place.log / "mariadb-install.log")
        argv = ["mariadbd", *common, f"--socket={run}/mysqld.sock", f"--pid-file={run}/mariadbd.pid", f"--init-file={settings}/init.sql"]
        argv += ["--bind-address=127.0.0.1", "--port=3306", "--skip-name-resolve", "--skip-log-bin", "--performance-schema=OFF"]
        argv += ["--innodb-buffer-pool-size=64M", "--innodb-flush-log-at-trx-commit=0", "--innodb-doublewrite=0"]
        argv += ["--innodb-lock-wait-timeout=900"]  # slurmdbd asks for it
        self._start_daemon("mariadbd", argv)

    def _start_daemon(self, name: str, argv: list[str]) -> None:
        if self.ctl.has(name):
            return
        self.ctl.spawn(argv, f"{name}.out")
        if not wait_until(lambda: self.ctl.listens(PORTS[name]), 60):
            raise ClusterError(f"{name} did not start; {self.place.log}/{name}.out and {name}.log say why")

    def _make_accounts(self) -> None:
        for command in [f"add cluster {self.place.name}", *config.ACCOUNTS.strip().splitlines()]:
            call(self.place.login, "sacctmgr", "--immediate", *command.split())

    def _wait_for(self, settings: Settings) -> None:
        states: list[str] = []

        def all_up() -> bool:
            states[:] = self._login("sinfo", "--noheader", "--Node", "--partition=debug", "--format=%N=%T").split()
            # a node that was drained answers too; * stands for one that does not
            return len(states) == settings.num_nodes and not any(re.search(r"=(down|unknown)|\*$", state) for state in states)

        if not wait_until(all_up, 60):
            raise ClusterError(f"nodes after 60 s: {' '.join(states)}; logs are in {self.place.log}")

    def _login(self, *argv: str) -> str:
        """What a command on the login host prints."""
        return subprocess.run([self.place.login, *argv], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=30).stdout

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """One `up` or `down` at a time."""
        descriptor = self._open_lock()
        while os.fstat(descriptor).st_nlink == 0:  # a `down --purge` deleted it while we waited
            os.close(descriptor)
            descriptor = self._open_lock()
        try:
            yield
        finally:
            os.close(descriptor)

    @property
    def _lock_file(self) -> Path:
        return COMMANDS / f".{self.place.name}.lock"

    def _open_lock(self) -> int:
        COMMANDS.mkdir(exist_ok=True)
        descriptor = os.open(self._lock_file, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return descriptor

    # breaking and mending

    def node(self, name: str) -> Host:
        settings = self.place.settings()
        nodes = settings.nodes if settings else []
        if name not in nodes:
            raise ClusterError(f"no node {name!r}; there are {', '.join(nodes) or 'none: the cluster is down'}")
        return Host(self.place, name)

    def kill_node(self, name: str) -> None:
        self.node(name).link("down")
        self.node(name).kill()

    def cut_node(self, name: str) -> None:
        self.node(name).link("down")

    def kill_slurmd(self, name: str) -> None:
        self.node(name).end("slurmd", signal.SIGKILL)

    def restore_node(self, name: str) -> None:
        self._restore(self.node(name).name)

    def _restore(self, name: str) -> None:
        host = Host(self.place, name)
        boot = host.pid() is None
        if boot:
            host.start()
        cut = not host.has_link()
        host.link("up")
        if host.has("slurmd"):
            if cut:
                # it registers at once; slurmctld would ask a lost node only after most of a minute
                host.signal("slurmd", signal.SIGHUP)
        else:
            # -b: say that the machine was started anew, so its jobs are gone
            host.spawn(["slurmd", "-D", "-N", name, *(["-b"] if boot else [])], f"slurmd-{name}.out")

    def kill_daemon(self, name: str) -> None:
        self.ctl.end(self._known(name), signal.SIGKILL)

    def stop_daemon(self, name: str) -> None:
        self.ctl.end(self._known(name), signal.SIGTERM)

    def restore_daemon(self, name: str) -> None:
        self._start_daemon(self._known(name), [name, "-D"])

    def _known(self, daemon: str) -> str:
        if daemon not in RESTARTABLE:
            raise ClusterError(f"no daemon {daemon!r} to stop or start; there are {', '.join(RESTARTABLE)}")
        self.ctl.running_pid()
        return daemon

    # looking

    def status(self) -> str:
        settings = self.place.settings()
        if settings is None:
            raise ClusterError(f"no cluster {self.place.name!r}; slurm/dev/cluster --name {self.place.name} up 4")
        lines = [self._status_of(Host(self.place, name)) for name in ["ctl", *settings.nodes]]
        nodes = self._login("sinfo", "-N", "-p", "debug", "-o", "%6N %12T %4c %7m %12G %14f %20E")
        return "\n".join([f"cgroups: {settings.cgroups}, files: {self.place.state}", *lines, nodes + self._login("squeue")])

    def _status_of(self, host: Host) -> str:
        if (pid := host.pid()) is None:
            return f"{host.name:<5} off"
        processes = list(host.processes())
        return f"{host.name:<5} up   {address(host.name):<12} init {pid:<8} {len(processes):>3} processes {_memory_mib(processes):>5} MiB"


def _memory_mib(processes: list[tuple[int, str]]) -> int:
    """Pages that processes share are counted once between them."""
    kib = 0
    for pid, _ in processes:
        try:
            found = re.search(r"^Pss: +(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
        except OSError:
            continue
        kib += int(found[1]) if found else 0
    return kib // 1024


def leftovers() -> list[Place]:
    """Clusters whose owner, a test run, has died."""
    places = [Place(path.name.removeprefix("eigensweep-cluster-")) for path in PARENT.glob("eigensweep-cluster-*")]
    return [place for place in places if (settings := place.settings()) and settings.owner and not started_at(settings.owner)]
