"""The development cluster as tests use it: jobs in and out, hosts and daemons broken and mended."""

import os
import pwd
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
CLUSTER = REPOSITORY / "slurm/dev/cluster"


def wait_until(true: Callable[[], object], seconds: float, what: str) -> None:
    """Wait for a condition, and fail with what was waited for."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"after {seconds:g} s still not: {what}"
        time.sleep(0.1)


@dataclass(kw_only=True)
class Cluster:
    """The cluster of this name; its methods are the verbs of slurm/dev/cluster."""

    name: str
    num_nodes: int = 4
    options: Sequence[str] = ()  # of `up`
    broken: bool = field(default=False, init=False)

    @property
    def state_folder(self) -> Path:
        return Path(f"/var/tmp/eigensweep-cluster-{self.name}")

    @property
    def shared(self) -> Path:
        """What the nodes see too: they have a /tmp of their own."""
        return self.state_folder / "shared"

    @property
    def bin(self) -> Path:
        """First on PATH, it makes sbatch and the rest those of this cluster."""
        return self.state_folder / "bin"

    @property
    def environment(self) -> dict[str, str]:
        """That of this process, with the cluster's commands."""
        return os.environ | {"PATH": f"{self.bin}:{os.environ['PATH']}"}

    # life

    def up(self, *, fresh: bool = False) -> None:
        below_tmp = [path for path in (REPOSITORY, Path(sys.prefix)) if path.is_relative_to("/tmp")]
        shared = [f"--share={path}" for path in below_tmp]
        self._verb("up", str(self.num_nodes), *self.options, *shared, *(["--fresh"] if fresh else []))
        self.broken = False

    def down(self) -> None:
        self._verb("down", "--purge")

    def reset(self) -> None:
        """No jobs, all hosts and daemons there and idle."""
        if self.broken:
            for daemon in ("slurmdbd", "slurmctld"):
                self.restore_daemon(daemon)
            self.up()
        self.cancel_all()
        self.wait_idle()

    def cancel_all(self) -> None:
        if jobs := self.exec("squeue", "--noheader", "--format=%A").split():
            self.exec("scancel", *set(jobs), check=False)  # one of them may have ended by now

    def wait_idle(self, seconds: float = 60) -> None:
        """Until the queue is empty and each node is idle; a drained one is resumed."""

        def idle() -> bool:
            states = dict(line.split() for line in self.exec("sinfo", "-hNp", "debug", "-o", "%N %T").splitlines())
            for node, state in states.items():
                if state.startswith(("drain", "down", "inval")):
                    self.exec("scontrol", "update", f"nodename={node}", "state=resume", check=False)
            return set(states.values()) == {"idle"} and not self.exec("squeue", "--noheader")

        wait_until(idle, seconds, f"{self.name} is idle")

    # commands

    def exec(
        self,
        *argv: str | Path,
        check: bool = True,
        input: str | None = None,
        cwd: Path | None = None,
        user: str = "",
        environment: Mapping[str, str] | None = None,
        seconds: float = 60,
    ) -> str:
        """What a command on the login host prints; `user` is one without privileges."""
        become = ["setpriv", f"--reuid={user}", f"--regid={pwd.getpwnam(user).pw_gid}", "--clear-groups"] if user else []
        return self._run([self.state_folder / "login", *become, *argv], check, input, cwd or self.shared, environment, seconds)

    def on(self, node: str, *argv: str | Path, check: bool = True) -> str:
        """What a command on a node prints."""
        return self._run([CLUSTER, "--name", self.name, "on", node, *argv], check, None, self.shared, None, 60)

    def sbatch(self, script: str, *options: str) -> str:
        """The id of the new job, whose script is these lines of shell."""
        return self.exec("sbatch", "--parsable", *options, input=f"#!/bin/sh\n{script}\n").strip()

    def state(self, job_id: str) -> str:
        """As squeue has it, "" once it has forgotten the job; the states of several elements are joined by commas."""
        printed = self.exec("squeue", "--states=all", "--noheader", "--array", f"--jobs={job_id}", "--format=%T", check=False)
        return "" if "error" in printed else ",".join(printed.split())

    def accounted(self, job_id: str, *, all_runs: bool = False) -> list[str]:
        """States of a job by sacct, oldest run first; with all_runs those before a requeue too."""
        options = ["--duplicates"] if all_runs else []
        printed = self.exec("sacct", "-nPX", *options, "--jobs", job_id, "--format=State")
        return [line.split()[0] for line in printed.splitlines()]

    def wait_for(self, job_id: str, *states: str, seconds: float = 60) -> None:
        wait_until(lambda: set(self.state(job_id).split(",")) <= set(states), seconds, f"job {job_id} is {' or '.join(states)}")

    # breaking and mending

    def kill_node(self, node: str) -> None:
        self._break("kill-node", node)

    def cut_node(self, node: str) -> None:
        self._break("cut-node", node)

    def kill_slurmd(self, node: str) -> None:
        self._break("kill-slurmd", node)

    def restore_node(self, node: str) -> None:
        self._verb("restore-node", node)

    def kill_daemon(self, daemon: str) -> None:
        self._break("kill-daemon", daemon)

    def stop_daemon(self, daemon: str) -> None:
        self._break("stop-daemon", daemon)

    def restore_daemon(self, daemon: str) -> None:
        self._verb("restore-daemon", daemon)

    def _break(self, verb: str, what: str) -> None:
        self.broken = True
        self._verb(verb, what)

    def _verb(self, *words: str) -> None:
        self._run([CLUSTER, "--name", self.name, *words], True, None, REPOSITORY, None, 120)

    def _run(
        self, argv: Sequence[str | Path], check: bool, input: str | None, cwd: Path, environment: Mapping[str, str] | None, seconds: float
    ) -> str:
        done = subprocess.run(
            argv,
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            cwd=cwd,
            env=environment,
            text=True,
            timeout=seconds,
        )
        if check and done.returncode:
            raise AssertionError(f"{' '.join(map(str, argv))}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout if check else done.stdout + done.stderr
