"""SLURM's commands faked as scripts on PATH, which say what a test has them say; `recorded` holds what SLURM 22.05.8 said."""

import os
import shlex
import stat
from dataclasses import dataclass
from pathlib import Path

import pytest

RECORDED = Path(__file__).parent / "recorded"
COMMANDS = ("sbatch", "squeue", "sacct", "scontrol", "sinfo", "sacctmgr", "scancel")

# the answer is that of the first word of the command line for which there is one
_SCRIPT = """#!/bin/sh
printf '%s\\n' "$*" >> {folder}/{command}.asked
answer={folder}/{command}
for word in "$@"; do [ -e "$answer-$word" ] && answer="$answer-$word" && break; done
[ -e "$answer" ] || {{ echo "{command}: error: nobody told me what to say" >&2; exit 1; }}
. "$answer"
"""


@dataclass
class FakeSlurm:
    """SLURM's commands, each with its answers."""

    folder: Path

    def install(self, *commands: str) -> None:
        for command in commands:
            path = self.folder / "bin" / command
            path.write_text(_SCRIPT.format(folder=shlex.quote(str(self.folder)), command=command))
            path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def remove(self, command: str) -> None:
        (self.folder / "bin" / command).unlink()

    def says(self, command: str, out: str = "", *, to: str = "", err: str = "", code: int = 0, seconds: float = 0) -> None:
        """From now on; `to`: where this word stands on the command line."""
        text = self.folder / f"{command}{to and f'-{to}'}.out"
        text.write_text(out)
        lines = [f"sleep {seconds}" if seconds else ":", f"cat {shlex.quote(str(text))}"]
        lines += [f"printf '%s\\n' {shlex.quote(err)} >&2"] if err else []
        (self.folder / f"{command}{to and f'-{to}'}").write_text("\n".join([*lines, f"exit {code}", ""]))

    def asked(self, command: str) -> list[str]:
        """The command lines so far, without the command."""
        path = self.folder / f"{command}.asked"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    """Commands that fail until they are told what to say."""
    fake = FakeSlurm(tmp_path / "slurm")
    (fake.folder / "bin").mkdir(parents=True)
    fake.install(*COMMANDS)
    monkeypatch.setenv("PATH", f"{fake.folder / 'bin'}:/usr/bin:/bin")
    for name in [name for name in os.environ if name.startswith(("SBATCH_", "SLURM_", "SQUEUE_"))]:
        monkeypatch.delenv(name)
    return fake


@pytest.fixture
def recorded_slurm(slurm: FakeSlurm) -> FakeSlurm:
    """Commands that answer as those of a real cluster did."""
    said = {path.stem: path.read_text() for path in RECORDED.iterdir()}
    slurm.says("squeue", said["squeue"])
    slurm.says("squeue", said["squeue-nobody"], to="--user=65534")
    slurm.says("squeue", said["queue"], to="--states=PENDING")
    slurm.says("sacct", said["sacct"])
    slurm.says("scontrol", said["config"], to="config")
    slurm.says("scontrol", said["partitions"], to="partition")
    slurm.says("scontrol", said["nodes"], to="node")
    slurm.says("sacctmgr", said["qos"], to="qos")
    slurm.says("sacctmgr", said["user"], to="user")
    return slurm
