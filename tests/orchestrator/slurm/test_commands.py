"""SLURM is asked without a shell, within a time, and what is no answer is no answer."""

import time
from pathlib import Path

import pytest

from orchestrator.launchers.launcher import SchedulerSilent
from orchestrator.slurm import commands
from orchestrator.slurm.commands import NoScheduler, call
from workers.errors import ConfigError


def test_the_answer_is_what_the_command_prints(slurm) -> None:
    slurm.says("squeue", "a|b\n", err="squeue: warning: something")
    assert call(["squeue", "-h"]) == "a|b\n"
    assert slurm.asked("squeue") == ["-h"]


def test_without_slurm_the_message_says_what_is_missing_and_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoScheduler, match=r"there is no squeue on PATH on .*; run this where SLURM's commands are") as error:
        call(["squeue"])
    assert isinstance(error.value, ConfigError) and isinstance(error.value, SchedulerSilent) and error.value.exit_code == 2


def test_a_failure_is_silence_with_its_text(slurm) -> None:
    slurm.says("squeue", err="slurm_load_jobs error: Unable to contact slurm controller (connect failure)", code=1)
    with pytest.raises(SchedulerSilent, match=r"Unable to contact slurm controller \(connect failure\)"):
        call(["squeue"])


def test_an_empty_answer_beside_an_error_is_silence(slurm) -> None:
    # squeue ends so, with 0, for a user it does not know
    slurm.says("squeue", err="squeue: error: Invalid user: 12345")
    with pytest.raises(SchedulerSilent, match="Invalid user: 12345"):
        call(["squeue"])


def test_an_empty_answer_alone_is_an_answer(slurm) -> None:
    slurm.says("squeue")
    assert call(["squeue"]) == ""


def test_a_command_that_hangs_is_ended_with_its_children(slurm) -> None:
    slurm.says("squeue", seconds=60)
    begin = time.monotonic()
    with pytest.raises(SchedulerSilent, match=r"squeue gave no answer in 0\.2 s"):
        call(["squeue"], 0.2)
    assert time.monotonic() - begin < 5


def test_a_command_that_cannot_run_is_silence(slurm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(slurm.folder / "bin"))
    (slurm.folder / "bin/squeue").write_bytes(b"\x7fELF no program")
    with pytest.raises(SchedulerSilent, match="squeue cannot be started"):
        call(["squeue"])


def test_words_reach_the_command_as_they_are(slurm, tmp_path: Path) -> None:
    slurm.says("squeue")
    call(["squeue", f"--name=a'; touch {tmp_path}/x; $(touch {tmp_path}/x)"])
    assert not (tmp_path / "x").exists()
    assert slurm.asked("squeue") == [f"--name=a'; touch {tmp_path}/x; $(touch {tmp_path}/x)"]


def test_what_a_user_has_set_for_their_own_eyes_hides_nothing(slurm, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SQUEUE_PARTITION": "gpu", "SACCT_FORMAT": "jobid", "LC_ALL": "de_DE.UTF-8", "SLURM_BITSTR_LEN": "8"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SLURM_CONF", "/etc/own.conf")
    (slurm.folder / "squeue").write_text("env\n")
    told = dict(line.split("=", 1) for line in call(["squeue"]).splitlines() if "=" in line)
    assert not [name for name in told if name.startswith(("SQUEUE_", "SACCT_"))]
    assert (told["LC_ALL"], told["SLURM_BITSTR_LEN"], told["SLURM_TIME_FORMAT"]) == ("C", "0", "standard")
    assert told["SLURM_CONF"] == "/etc/own.conf"


def test_text_that_is_no_utf8_is_read(slurm) -> None:
    slurm.says("squeue")
    (slurm.folder / "squeue.out").write_bytes(b"j\xfcrgen|1\n")
    assert call(["squeue"]) == "j�rgen|1\n"


def test_calls_are_counted(slurm) -> None:
    slurm.says("squeue")
    before = commands.calls.copy()
    call(["squeue"])
    call(["squeue"])
    assert commands.calls - before == {"squeue": 2}
