"""The texts that go to sbatch, word for word, and what its answers mean."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.launchers.launcher import SubmissionRefused, SubmissionUnknown
from orchestrator.launchers.slurm import Slurm
from orchestrator.slurm import sbatch
from orchestrator.slurm.packing import Node
from workers import files
from workers.errors import ConfigError

GOLDEN = Path(__file__).parent / "golden"
BASE = "w1-0123456789ab"
CODE = Path("/scratch/me/store/code/0f1e2d3c")
NASTY = 'a\'; touch x; $(touch y) `touch z` # "q" %j'
REQUEST = {
    "nodes": 1,
    "cpus": 8,
    "gpus": 0,
    "gpu_type": "",
    "memory_gib": 2.25,
    "minutes": 12,
    "slots": 8,
    "cpus_per_slot": 1,
    "tasks_per_gpu": 1,
    "exclude": [],
    "packed": True,
    "at_once": 64,
}
FULL = dict(
    partition="gpu,gpu-long",
    account="physics",
    qos="normal",
    constraint="icelake&ib",
    gpu_type="a100",
    nodelist="n[1-9]",
    exclude="n3",
    reservation="school",
    setup=("module purge", "module load cuda/12.4", 'source "$HOME/venvs/entk/bin/activate"'),
    python="/opt/venv/bin/python",
    sbatch={"mail-type": "FAIL", "mail_user": "me@uni.example", "exclusive": True, "nice": 10, "gres": "lscratch:20", "licenses": None},
    grace_seconds=90.5,
)
CASES = {
    "one_job": (Slurm(python="/opt/venv/bin/python"), "/scratch/me/store", 1, {}),
    "array": (Slurm(python="/opt/venv/bin/python", partition="cpu"), "/scratch/me/store", 1000, {"at_once": 32}),
    "every_setting": (Slurm(**FULL), "/scratch/me/store", 7, {"gpus": 2, "gpu_type": "a100", "nodes": 1, "exclude": ["n7", "n8"]}),  # type: ignore[arg-type]
    "gang": (Slurm(python="/opt/venv/bin/python", partition="gpu"), "/scratch/me/store", 1, {"nodes": 4, "gpus": 4, "packed": False}),
    "container": (Slurm(container=("apptainer", "exec", "--nv", "/images/entk 1.sif")), "/scratch/me/store", 2, {}),
    "nasty": (
        Slurm(
            partition=NASTY,
            account=NASTY,
            python=f"/opt/{NASTY}/python",
            container=("run", NASTY),
            sbatch={"comment": NASTY, "mail-user": NASTY},
        ),
        f"/scratch/{NASTY}",
        3,
        {"exclude": [NASTY]},
    ),
}


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("SLURM_", "SBATCH_"))]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setattr(sys, "executable", "/opt/login/bin/python")


def text_of(name: str) -> str:
    settings, root, num_jobs, more = CASES[name]
    return sbatch.script(settings, Path(root), BASE, REQUEST | more, num_jobs, CODE)


def tick_text_of(name: str) -> str:
    settings, root, _, _ = CASES[name]
    return sbatch.tick_script(settings, Path(root), BASE, "4711", CODE, Node())


# -- texts --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_the_script_is_what_it_was(name: str):
    assert text_of(name) == (GOLDEN / f"{name}.sh").read_text()


@pytest.mark.parametrize("name", ["one_job", "every_setting", "container", "nasty"])
def test_the_script_of_the_job_that_ticks_is_what_it_was(name: str):
    assert tick_text_of(name) == (GOLDEN / f"{name}_tick.sh").read_text()


@pytest.mark.parametrize("text", [text_of, tick_text_of])
def test_nothing_of_a_setting_is_run_by_the_shell(text, tmp_path: Path):
    """The script itself is run, with its commands replaced by ones that print their words."""
    script = text("nasty").replace("exec ", "printf '%s\\n' ")
    done = subprocess.run(
        ["bash", "-c", f"cd() {{ :; }}\n{script}"], cwd=tmp_path, capture_output=True, text=True, env={"PATH": os.environ["PATH"]}
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert os.listdir(tmp_path) == []
    assert f"/scratch/{NASTY}" in done.stdout.splitlines()


@pytest.mark.parametrize("text", [text_of, tick_text_of])
def test_each_option_stands_on_a_line_of_its_own(text):
    lines = text("nasty").splitlines()
    body = lines[lines.index("# Parameters") + 1 :]
    assert all(line.startswith("#SBATCH --") for line in body[: body.index("")])


def test_the_job_that_ticks_asks_for_no_more_than_there_is():
    text = sbatch.tick_script(Slurm(), Path("/s"), BASE, "4711", CODE, Node(memory_gib=0.5, minutes=1))
    assert "#SBATCH --mem=512M" in text
    assert "#SBATCH --time=1\n" in text


def test_an_element_of_an_array_has_a_batch_of_its_own():
    assert text_of("array").rstrip().endswith(f'{BASE}/"$SLURM_ARRAY_TASK_ID"')
    assert text_of("one_job").rstrip().endswith(f" {BASE}")


def test_a_job_has_its_own_frozen_code_before_the_callers_path(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONPATH", "/scratch/me/store/code/of-another:/home/me/src::/home/me/src")
    assert f"export PYTHONPATH={CODE}:/home/me/src\n" in text_of("one_job")


# -- what is refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"partition": "a\nrm -rf ~"}, r"partition must have no control characters and no backslash, got '\\n'"),
        ({"exclude": "a\\b"}, "exclude must have no control characters and no backslash"),
        ({"sbatch": {"comment": "a\nb"}}, "sbatch.comment must have no control characters"),
        ({"sbatch": {"job-name": "x"}}, "sbatch.job-name is set by the launcher itself, and cannot be changed"),
        (
            {"sbatch": {"cpus_per_task": 4}},
            "sbatch.cpus_per_task is set by the launcher itself, from what the tasks ask for: resources.cpus",
        ),
        ({"sbatch": {"mem": "4G"}}, "from what the tasks ask for: resources.memory_gib"),
        ({"sbatch": {"gres": "gpu:4"}}, "from what the tasks ask for: resources.gpus"),
        ({"sbatch": {"time": 60}}, "resources.walltime_minutes=... and launcher.overhead_minutes"),
        ({"sbatch": {"partition": "gpu"}}, "give it as the launcher's own setting, launcher.partition=gpu"),
        ({"sbatch": {"p": "gpu"}}, "sbatch.p must be the long name of an option"),
        ({"sbatch": {"--mail-type": "END"}}, "sbatch.--mail-type must be the long name of an option of sbatch without its dashes"),
        ({"sbatch": {"comment=x\n#SBATCH --y": 1}}, "must be the long name"),
        ({"sbatch": {"comment": ["a"]}}, "sbatch.comment must be a text, a number, true or false"),
        ({"sbatch": "comment=x"}, "sbatch must be keys and values"),
        ({"setup": ["#SBATCH --time=3"]}, r"an option of sbatch; give it as sbatch: \{time: VALUE\}"),
        ({"setup": ["true\n  #SBATCH --array=0-3"]}, r"sbatch: \{array: VALUE\}"),
        ({"setup": ["a\0b"]}, "setup must be lines of shell"),
        ({"gpu_type": "a100:4"}, "gpu_type must be names"),
        ({"grace_seconds": 0}, "grace_seconds must be at least 1"),
    ],
)
def test_what_a_script_cannot_hold_is_refused(given: dict[str, object], message: str):
    with pytest.raises(ConfigError, match=message):
        Slurm.from_plain(given)


def test_a_store_whose_path_a_script_cannot_hold_is_refused():
    with pytest.raises(ConfigError, match="output must have no control characters and no backslash"):
        sbatch.script(Slurm(), Path("/scratch/a\nb"), BASE, REQUEST, 1, CODE)


def test_settings_with_further_keys_read_back():
    launcher = CASES["every_setting"][0]
    assert Slurm.from_plain(launcher.to_plain()) == launcher


# -- answers ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def answering(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Makes a sbatch that says so, and keeps its words and its environment."""

    def make(script: str) -> Path:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        (folder / "sbatch").write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/words\nenv > {tmp_path}/environment\n{script}\n')
        (folder / "sbatch").chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        return tmp_path

    return make


def said(*lines: str, code: int = 1) -> str:
    return "".join(f"echo '{line}' >&2\n" for line in lines) + f"exit {code}"


def test_the_text_is_kept_and_the_number_of_the_job_comes_back(answering):
    folder = answering("echo Submitted batch job 4711")
    assert sbatch.submit(folder, "submission.sh", "#!/bin/bash\n") == "4711"
    assert (folder / "submission.sh").read_text() == "#!/bin/bash\n"
    assert (folder / "words").read_text().split() == [str(folder / "submission.sh")]


FAILED = "sbatch: error: Batch job submission failed: "
POLICY = FAILED + "Job violates accounting/QOS policy (job submit limit, user`s size and/or time limits)"


@pytest.mark.parametrize(
    "lines",
    [
        (POLICY,),
        ("sbatch: error: AssocMaxSubmitJobLimit", POLICY),
        ("sbatch: error: QOSMaxSubmitJobPerUserLimit", POLICY),
        ("sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying.", FAILED + "Resource temporarily unavailable"),
        (FAILED + "Required partition not available (inactive or drain)",),
        ("sbatch: error: fetch_config: DNS SRV lookup failed", "sbatch: fatal: Could not establish a configuration source"),
        (FAILED + "Protocol authentication error",),
    ],
)
def test_a_limit_of_the_moment_is_a_reason_to_wait(answering, lines: tuple[str, ...]):
    with pytest.raises(SubmissionRefused) as error:
        sbatch.submit(answering(said(*lines)), "submission.sh", "")
    assert error.value.temporary


@pytest.mark.parametrize(
    "lines",
    [
        ("sbatch: error: invalid partition specified: nosuch", FAILED + "Invalid partition name specified"),
        (FAILED + "Invalid account or account/partition combination specified",),
        (FAILED + "Invalid qos specification",),
        (FAILED + "Invalid feature specification",),
        (FAILED + "Invalid job array specification",),
        ("sbatch: error: Memory specification can not be satisfied", FAILED + "Requested node configuration is not available"),
        ("sbatch: error: QOSMaxWallDurationPerJobLimit", POLICY),
        ("sbatch: error: QOSMaxCpuPerUserLimit", POLICY),
        (FAILED + "Requested reservation is invalid",),
        ("sbatch: unrecognized option --foo",),
    ],
)
def test_what_will_never_be_taken_is_refused_for_good(answering, lines: tuple[str, ...]):
    with pytest.raises(SubmissionRefused, match=lines[-1].removeprefix("sbatch: ").removeprefix("error: ").split("(")[0]) as error:
        sbatch.submit(answering(said(*lines)), "submission.sh", "")
    assert not error.value.temporary


@pytest.mark.parametrize(
    "script",
    [
        said(FAILED + "Socket timed out on send/recv operation"),
        said(FAILED + "Unable to contact slurm controller (connect failure)"),
        said(FAILED + "Zero Bytes were transmitted or received"),
        said(FAILED + "Transport endpoint is not connected"),
        "kill -9 $$",
        "echo Submitted batch job",
        "exec sleep 60",
    ],
)
def test_a_lost_answer_leaves_open_whether_there_is_a_job(answering, script: str):
    with pytest.raises(SubmissionUnknown, match="looked for by its name"):
        sbatch.submit(answering(script), "submission.sh", "", seconds=0.5)


def test_a_machine_without_sbatch_is_not_the_end_of_a_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SubmissionRefused, match="no sbatch on PATH") as error:
        sbatch.submit(tmp_path, "submission.sh", "")
    assert error.value.temporary


def test_the_cluster_is_asked_whether_it_would_take_a_job(answering):
    folder = answering('cat > "$0.text"\necho "allocation failure: Requested reservation is invalid" >&2; exit 1')
    assert sbatch.refusal("#!/bin/bash\n") == "sbatch: allocation failure: Requested reservation is invalid"
    assert (folder / "words").read_text().split() == ["--test-only"]
    assert (folder / "bin/sbatch.text").read_text() == "#!/bin/bash\n"


@pytest.mark.parametrize("script", [said("sbatch: Job 7 to start at 2030-01-01", code=0), said(POLICY), said("sbatch: Socket timed out")])
def test_only_a_clear_word_of_the_cluster_counts(answering, script: str):
    answering(script)
    assert sbatch.refusal("#!/bin/bash\n") == ""


def test_what_the_environment_says_does_not_outweigh_the_script(answering, monkeypatch: pytest.MonkeyPatch):
    folder = answering("echo Submitted batch job 1")
    inherited = {
        "SBATCH_JOB_NAME": "x",
        "SBATCH_PARTITION": "x",
        "SBATCH_ACCOUNT": "mine",
        "SBATCH_MEM_PER_CPU": "1",
        "SBATCH_ARRAY_INX": "0-3",
    }
    for name, value in {**inherited, "SLURM_JOB_ID": "1", "SLURM_MEM_PER_NODE": "7", "SLURM_CONF": "/c", "HOME_OF": "me"}.items():
        monkeypatch.setenv(name, value)
    sbatch.submit(folder, "submission.sh", "#SBATCH --partition=cpu\n#SBATCH --job-name=a\n")
    found = dict(line.split("=", 1) for line in (folder / "environment").read_text().splitlines() if "=" in line)
    assert {name: found.get(name) for name in (*inherited, "SLURM_MEM_PER_NODE", "SLURM_CONF", "HOME_OF")} == {
        **dict.fromkeys(inherited),
        "SBATCH_ACCOUNT": "mine",
        "SLURM_MEM_PER_NODE": None,
        "SLURM_CONF": "/c",
        "HOME_OF": "me",
    }


def test_a_tick_that_cannot_be_submitted_is_only_noted(answering):
    folder = answering(said(FAILED + "Access/permission denied"))
    (folder / "batches" / BASE).mkdir(parents=True)
    sbatch.submit_tick(folder, BASE, "#!/bin/bash\n")
    assert files.read(folder / "batches" / BASE / "tick.json") == {"error": "sbatch: Batch job submission failed: Access/permission denied"}
