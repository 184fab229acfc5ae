"""A host of the cluster: a set of namespaces with an init process, a network address and a cgroup of its own."""

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from place import COMMANDS, ClusterError, Place, address

CGROUPS_V1 = ("memory", "freezer", "cpuset", "cpuacct", "devices")  # what SLURM 22.05 uses
CGROUP_ROOT = Path("/sys/fs/cgroup")
CLUSTER = Path(__file__).resolve().parent / "cluster"


def call(*argv: str | Path, log: Path = Path("/dev/null")) -> None:
    """Run a tool that is expected to work."""
    words = [str(word) for word in argv]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    log.write_text(done.stdout)
    if done.returncode:
        raise ClusterError(f"{' '.join(words)}: {done.stdout.strip()[-2000:] or f'exit code {done.returncode}'}")


def wait_until(true: Callable[[], bool], seconds: float) -> bool:
    """Whether it became true in this time."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.03)
    return True


def started_at(pid: int) -> str:
    """Clock tick of a living process's start, "" for none: a pid that came round again has another."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if words[0] in "ZX" else words[19]


@dataclass(frozen=True)
class Host:
    """`ctl`, where slurmctld, slurmdbd and the database run, or a node."""

    place: Place
    name: str

    @property
    def is_node(self) -> bool:
        return self.name != "ctl"

    @property
    def netns(self) -> str:
        return f"es-{self.place.name}-{self.name}"

    @property
    def folder(self) -> Path:
        return self.place.state / "node" / self.name

    @property
    def _record(self) -> Path:
        return self.place.state / "hosts" / f"{self.name}.json"

    def pid(self) -> int | None:
        """Of its init, as the machine counts; None while the host is off."""
        try:
            record = json.loads(self._record.read_text())
        except (FileNotFoundError, ValueError):
            return None
        return int(record["pid"]) if started_at(record["pid"]) == record["started_at"] != "" else None

    def running_pid(self) -> int:
        if (pid := self.pid()) is None:
            raise ClusterError(f"{self.name} is off; {CLUSTER} --name {self.place.name} restore-node {self.name}")
        return pid

    def processes(self) -> Iterator[tuple[int, str]]:
        """Process id and command of all that runs on the host."""
        if (init := self.pid()) is None:
            return
        namespace = os.readlink(f"/proc/{init}/ns/pid")
        for entry in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{entry}/ns/pid") == namespace and started_at(int(entry)):
                    yield int(entry), Path(f"/proc/{entry}/comm").read_text().strip()

    def has(self, daemon: str) -> bool:
        return any(command == daemon for _, command in self.processes())

    def listens(self, port: int) -> bool:
        """Read from the host's table of sockets: a connection would show in the daemon's log."""
        try:
            table = Path(f"/proc/{self.pid()}/net/tcp").read_text()
        except OSError:
            return False
        return re.search(rf":{port:04X} 00000000:0000 0A ", table) is not None

    # life

    def start(self) -> None:
        """Its namespaces, with an init and munged in them."""
        if self.pid() is not None:
            return
        (self.folder / "spool").mkdir(parents=True, exist_ok=True)
        (self.folder / "tmp").mkdir(exist_ok=True)
        (self.folder / "tmp").chmod(0o1777)
        self._make_network()
        self._make_cgroups()
        self._record.unlink(missing_ok=True)
        # not `ip netns exec`, which mounts a new /sys and so hides the cgroups
        argv = ["nsenter", f"--net=/run/netns/{self.netns}", "unshare", "--mount", "--uts", "--ipc", "--pid", "--cgroup", "--fork"]
        self._popen([*argv, str(CLUSTER), "--name", self.place.name, "__init", self.name], f"init-{self.name}.log")
        if not wait_until(lambda: self.pid() is not None, 20):
            raise ClusterError(f"{self.name} did not start; {self.place.log}/init-{self.name}.log says why")
        self.spawn(
            ["munged", "--force", "--socket=/run/munge/munge.socket.2", f"--key-file={self.place.state}/etc/munge.key"]
            + [f"--pid-file={self.place.run}/munged.pid", f"--log-file={self.place.log}/munged-{self.name}.log"]
            + [f"--seed-file={self.place.run}/munge.seed"],
            "munged.out",
        )

    def kill(self) -> None:
        """Like a power cut: without its init, the kernel kills all processes of the host at once."""
        if (pid := self.pid()) is not None:
            os.kill(pid, signal.SIGKILL)
            if not wait_until(lambda: self.pid() is None, 10):
                raise ClusterError(f"process {pid}, the init of {self.name}, does not end")
        self._record.unlink(missing_ok=True)

    def remove(self) -> None:
        """Kill it and give back its network and cgroups."""
        self.kill()
        self._remove_cgroups()
        if Path(f"/run/netns/{self.netns}").exists():
            call("ip", "netns", "delete", self.netns)

    def link(self, state: str) -> None:
        """`up` or `down`: its cable."""
        call("ip", "-n", self.netns, "link", "set", "eth0", state)

    def has_link(self) -> bool:
        shown = subprocess.run(["ip", "-n", self.netns, "-brief", "link", "show", "eth0"], stdout=subprocess.PIPE, text=True)
        return "UP" in shown.stdout.split()

    def signal(self, daemon: str, number: int) -> list[int]:
        """Process ids of those that got it."""
        pids = [pid for pid, command in self.processes() if command == daemon]
        if not pids:
            raise ClusterError(f"no {daemon} runs on {self.name}")
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return pids

    def end(self, daemon: str, number: int) -> None:
        """Signal it and wait for its end."""
        pids = self.signal(daemon, number)
        if not wait_until(lambda: not any(started_at(pid) for pid in pids), 20):
            raise ClusterError(f"{daemon} on {self.name} does not end")

    # processes

    def spawn(self, argv: Sequence[str], log: str) -> None:
        """Start a daemon that the host's init adopts."""
        words = ["sh", "-c", 'log=$1; shift; setsid "$@" >> "$log" 2>&1 < /dev/null &', "sh", str(self.place.log / log), *argv]
        if self._popen([*self._enter(), *words], log).wait():
            raise ClusterError(f"{argv[0]} did not start on {self.name}; {self.place.log / log} says why")

    def run(self, argv: Sequence[str]) -> None:
        """Become a command on this host; its standard streams are the caller's."""
        words = self._in_cgroups([*self._enter(), *argv])
        os.execvp(words[0], words)

    def _enter(self) -> list[str]:
        return ["nsenter", f"--target={self.running_pid()}", "--all", "--"]

    def _popen(self, argv: list[str], log: str) -> subprocess.Popen[bytes]:
        with (self.place.log / log).open("ab") as file:
            return subprocess.Popen(
                self._in_cgroups(argv), stdin=subprocess.DEVNULL, stdout=file, stderr=file, cwd="/", start_new_session=True
            )

    # cgroups: below the one that `up` ran in, so that the machine's own are not touched

    def _cgroups(self) -> dict[str, Path]:
        """Controller to folder; empty where the cluster does without."""
        try:
            parents = json.loads((self.place.state / "cgroups.json").read_text())
        except FileNotFoundError:
            return {}
        return {controller: Path(parent) / self.netns for controller, parent in parents.items()}

    def _make_cgroups(self) -> None:
        self._remove_cgroups()  # what a killed host left
        for controller, folder in self._cgroups().items():
            folder.mkdir(exist_ok=True)
            if controller == "cpuset":
                for name in ("cpuset.cpus", "cpuset.mems"):
                    (folder / name).write_text((folder.parent / name).read_text())

    def _in_cgroups(self, argv: Sequence[str]) -> list[str]:
        """The command, as one that enters the host's cgroups first."""
        enter = 'until [ "$1" = -- ]; do echo $$ > "$1/cgroup.procs" || exit; shift; done; shift; exec "$@"'
        return ["sh", "-c", enter, "sh", *map(str, self._cgroups().values()), "--", *argv]

    def _remove_cgroups(self) -> None:
        for folder in self._cgroups().values():
            # the kernel empties them a moment after the kill
            wait_until(partial(_remove_tree, folder), 3)

    # network

    def _make_network(self) -> None:
        """A bridge in the controller's namespace joins all hosts; none of them has a way out."""
        if not Path(f"/run/netns/{self.netns}").exists():
            call("ip", "netns", "add", self.netns)
            call("ip", "-n", self.netns, "link", "set", "lo", "up")
            if self.is_node:
                bridge_ns = Host(self.place, "ctl").netns
                call("ip", "-n", bridge_ns, "link", "add", f"to-{self.name}", "type", "veth", "peer", "name", "eth0", "netns", self.netns)
                call("ip", "-n", bridge_ns, "link", "set", f"to-{self.name}", "master", "br0", "up")
                call("ip", "-n", self.netns, "addr", "add", f"{address(self.name)}/24", "dev", "eth0")
            else:
                call("ip", "-n", self.netns, "link", "add", "br0", "type", "bridge")
                call("ip", "-n", self.netns, "addr", "add", f"{address('ctl')}/24", "dev", "br0")
                call("ip", "-n", self.netns, "link", "set", "br0", "up")
        if self.is_node:
            self.link("up")

    # what `start` runs as process 1 of the new namespaces

    def init(self) -> None:
        """Mount what is the host's own, say that it is there, and reap for ever."""
        pid = int(os.readlink("/proc/self"))  # /proc is still the machine's
        record = json.dumps({"pid": pid, "started_at": started_at(pid)})
        Path("/proc/sys/kernel/hostname").write_text(self.name)
        call("mount", "-t", "proc", "proc", "/proc")
        self._mount_files()
        self._mount_cgroups()
        if self.is_node:
            self._mount_private()
        call("mount", "--bind", self.place.run, "/run/munge")
        aside = self._record.with_suffix(".new")
        aside.write_text(record)
        aside.rename(self._record)
        self._reap()

    def _mount_files(self) -> None:
        call("mount", "--bind", self.place.hosts_file, "/etc/hosts")
        call("mount", "--bind", self.place.slurm, "/etc/slurm")
        call("mount", "--bind", self.place.state / "empty", COMMANDS)

    def _mount_cgroups(self) -> None:
        """In a cgroup namespace, the host's subtree is the root."""
        if not (cgroups := self._cgroups()):
            return
        call("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", CGROUP_ROOT)
        for controller in cgroups:
            (CGROUP_ROOT / controller).mkdir()
            call("mount", "-t", "cgroup", "-o", controller, "cgroup", CGROUP_ROOT / controller)

    def _mount_private(self) -> None:
        """A node has its own /tmp, /dev/shm and run folder."""
        settings = self.place.settings()
        assert settings is not None
        call("mount", "-t", "tmpfs", "-o", "mode=755,size=16m", "tmpfs", self.place.run)
        call("mount", "-t", "tmpfs", "-o", "mode=1777,size=4g", "tmpfs", "/dev/shm")
        for path in settings.shared_paths:
            inside = self.folder / path.lstrip("/")
            inside.mkdir(parents=True, exist_ok=True)
            call("mount", "--bind", path, inside)
        call("mount", "--rbind", self.folder / "tmp", "/tmp")

    def _reap(self) -> None:
        signal.signal(signal.SIGCHLD, lambda *_: None)
        while True:
            try:
                os.wait()
            except ChildProcessError:
                signal.sigtimedwait({signal.SIGCHLD}, 1)


def own_cgroups() -> dict[str, str] | None:
    """Controller to the folder of this process; None where one of them cannot be written."""
    found = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in set(controllers.split(",")) & set(CGROUPS_V1):
            found[controller] = str(CGROUP_ROOT / controller / path.strip("/"))
    usable = len(found) == len(CGROUPS_V1) and all(os.access(f"{folder}/cgroup.procs", os.W_OK) for folder in found.values())
    return found if usable else None


def _remove_tree(folder: Path) -> bool:
    for path, _, _ in os.walk(folder, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(path)
    return not folder.exists()
