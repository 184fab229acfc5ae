"""The one place that uses submitit: it renders the text of an sbatch script, and hands the script to sbatch."""

import math
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.launchers.launcher import SubmissionRefused, SubmissionUnknown
from orchestrator.slurm.packing import Node
from workers import files, taskdir
from workers.errors import ConfigError

if TYPE_CHECKING:
    from orchestrator.launchers.slurm import Slurm

# sbatch itself tries again for two minutes where slurmctld is too busy to take a job
SBATCH_SECONDS, TRIAL_SECONDS = 180.0, 20.0
TICK_MINUTES, TICK_GIB = 10, 1.0

# what our scripts say themselves, so that nobody else may; `gres` is joined where it names no GPU
OWN = """array begin-array chdir clusters cpus-per-gpu cpus-per-task dependency error gpus gpus-per-node gpus-per-socket gpus-per-task help
input job-name kill-on-invalid-dep mem mem-per-cpu mem-per-gpu no-requeue nodes ntasks ntasks-per-node open-mode output parsable requeue
signal test-only time usage version wait wrap""".split()
SETTINGS = ("partition", "account", "qos", "constraint", "nodelist", "exclude", "reservation")
# of the user's further keys, those that a job which only ticks needs too
_TICK_KEYS = ("comment", "export", "export-file", "get-user-env", "nice", "wckey")

_KEY = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)+|[a-z][a-z0-9]+")
_UNFIT = re.compile(r"[\x00-\x1f\x7f\\]")

_LOOKED_FOR = "its job is looked for by its name"
# answers of sbatch that leave open whether the job was taken
_UNKNOWN = (
    *("socket timed out", "unable to contact slurm controller", "zero bytes were transmitted", "connection", "transport endpoint"),
    *("message receive", "unexpected message", "communication"),
)
# limits and troubles of the moment; nothing was queued
_TEMPORARY = (
    *("job submit limit", "resource temporarily unavailable", "temporarily unable to accept job", "maxjobcount", "standby mode"),
    *("required partition not available", "failed to fetch config", "establish a configuration source", "authentication", "munge"),
)
# a limit of a QOS or an association that is named: but for the number of jobs, such a job will never be taken
_LIMIT = re.compile(r"\b(?:QOS|Assoc)(?!\w*Submit)\w+")
# of the variables that sbatch reads, those that a user sets for all jobs; what a script says itself comes first
_KEPT = ("ACCOUNT", "PARTITION", "QOS", "RESERVATION", "CONSTRAINT", "EXPORT", "GET_USER_ENV", "HINT", "IGNORE_PBS", "WCKEY")


# -- texts --------------------------------------------------------------------------------------------------------------


def script(settings: "Slurm", root: Path, base: str, request: Mapping[str, Any], num_jobs: int, code_path: Path) -> str:
    """The text of a submission; with several jobs a job array, whose elements are the batches `base/0`, `base/1` and so on."""
    is_array = num_jobs > 1
    folder = taskdir.batch_dir(root.absolute(), base)
    parameters = {name: getattr(settings, name) for name in ("partition", "account", "qos", "constraint", "nodelist")}
    parameters |= {
        "job_name": base,
        "time": request["minutes"],
        "nodes": request["nodes"],
        "ntasks_per_node": 1,
        "cpus_per_task": request["cpus"],
        "mem": _mem(request["memory_gib"]),
        "gres": _gres(settings, request),
        "exclude": ",".join(dict.fromkeys([*([settings.exclude] if settings.exclude else []), *request["exclude"]])),
        "array_parallelism": request["at_once"],
        "map_count": num_jobs if is_array else None,
        "setup": list(settings.setup),
    }
    further = {
        "output": _pattern(folder / "log") + ("-%a" if is_array else ""),
        "signal": f"B:USR1@{math.ceil(settings.grace_seconds)}",
        "requeue": True,
        "reservation": settings.reservation,
        **_further(settings),
    }
    token = f"""{shlex.quote(f"{base}/")}"$SLURM_ARRAY_TASK_ID\"""" if is_array else shlex.quote(base)
    python = settings.python or ("python3" if settings.container else sys.executable)
    words = [*settings.container, python, "-P", "-m", "workers", str(root.absolute())]
    return _rendered(parameters, further, [*_before(root, code_path), f"exec {shlex.join(words)} {token}"])


def tick_script(settings: "Slurm", root: Path, base: str, job_id: str, code_path: Path, node: Node) -> str:
    """The text of the small job that ticks once all jobs of a submission have ended, however they did; `node`: what it may have at most."""
    parameters = {
        "job_name": f"{base}-tick",
        "partition": settings.tick_partition or settings.partition,
        "account": settings.account,
        "qos": settings.qos,
        "time": min(TICK_MINUTES, node.minutes or TICK_MINUTES),
        "nodes": 1,
        "ntasks_per_node": 1,
        "cpus_per_task": 1,
        "mem": _mem(min(TICK_GIB, node.memory_gib or TICK_GIB)),
        "dependency": f"afterany:{job_id}",
        "setup": list(settings.setup),
    }
    further = {
        "output": _pattern(taskdir.batch_dir(root.absolute(), base) / "tick-log"),
        "requeue": True,
        "reservation": settings.reservation,
        **{key: value for key, value in _further(settings).items() if key in _TICK_KEYS},
    }
    # not in the container, which seldom holds sbatch and squeue
    python = sys.executable if settings.container else settings.python or sys.executable
    words = [python, "-P", "-m", "orchestrator", "tick", "--root", str(root.absolute()), "--settle"]
    return _rendered(parameters, further, [*_before(root, code_path), f"exec {shlex.join(words)}"])


def _further(settings: "Slurm") -> dict[str, Any]:
    """The user's further keys in sbatch's spelling; those that are null or false are left out."""
    given = {key.replace("_", "-"): value for key, value in (settings.sbatch or {}).items()}
    return {key: value for key, value in given.items() if value is not None and value is not False and key != "gres"}


def _gres(settings: "Slurm", request: Mapping[str, Any]) -> str:
    own = [":".join(filter(None, ["gpu", request["gpu_type"], str(request["gpus"])]))] if request["gpus"] else []
    other = (settings.sbatch or {}).get("gres")
    return ",".join([*own, *([str(other)] if other else [])])


def _mem(gib: float) -> str:
    return f"{math.ceil(1024 * gib - 1e-6)}M"


def _pattern(path: Path) -> str:
    """A path in which SLURM replaces nothing."""
    return str(path).replace("%", "%%")


def _before(root: Path, code_path: Path) -> list[str]:
    path = os.pathsep.join([str(code_path), *_inherited_path(root)])
    return [f"export PYTHONPATH={shlex.quote(path)}", f"cd {shlex.quote(str(root.absolute()))} || exit 1"]


def _inherited_path(root: Path) -> list[str]:
    """The caller's own PYTHONPATH; a job that ticks has frozen code in front, which is not that of every sweep."""
    given = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    return [part for part in dict.fromkeys(given) if not Path(part).is_relative_to(root.absolute() / "code")]


def _rendered(parameters: Mapping[str, Any], further: Mapping[str, Any], commands: Sequence[str]) -> str:
    from submitit.slurm.slurm import _make_sbatch_string

    given = {name: value for name, value in parameters.items() if value not in (None, "", [])}
    more = {name: value for name, value in further.items() if value not in (None, "")}
    for name, value in {**given, **more}.items():
        refuse_unfit(name, value)
    text: str = _make_sbatch_string(
        command="\n".join(commands),
        folder=".",
        use_srun=False,
        stderr_to_stdout=True,
        additional_parameters={"kill-on-invalid-dep": "yes", **more},
        **{"wckey": None, **given},
    )
    return text


# -- what may stand there -----------------------------------------------------------------------------------------------


def refuse_unfit(name: str, value: Any) -> None:
    """Raise ConfigError for a text that a line of an sbatch script cannot hold.

    A newline would begin a line of shell, and SLURM reads a backslash as an escape even within quotes.
    """
    if isinstance(value, str) and (found := _UNFIT.search(value)):
        raise ConfigError(f"{name} must have no control characters and no backslash, got {found[0]!r} in {value!r}; leave it out")


def check_further(given: Mapping[str, Any]) -> None:
    """Raise ConfigError where a further sbatch key is none, is one of ours, or has a value that a line cannot hold."""
    for name, value in given.items():
        key = name.replace("_", "-")
        if not _KEY.fullmatch(key):
            raise ConfigError(f"sbatch.{name} must be the long name of an option of sbatch without its dashes, such as mail-type")
        if key in SETTINGS:
            raise ConfigError(f"sbatch.{name}: give it as the launcher's own setting, launcher.{key}={value}")
        if key in OWN or (key == "gres" and "gpu" in str(value)):
            raise ConfigError(f"sbatch.{name} is set by the launcher itself, {_INSTEAD.get(key, 'and cannot be changed')}")
        if not isinstance(value, bool | int | float | str | None):
            raise ConfigError(f"sbatch.{name} must be a text, a number, true or false, got {value!r}")
        refuse_unfit(f"sbatch.{name}", value)


_RESOURCES = "from what the tasks ask for: resources.{}=..."
_INSTEAD = {
    **dict.fromkeys(("cpus-per-gpu", "cpus-per-task", "ntasks", "ntasks-per-node"), _RESOURCES.format("cpus")),
    **dict.fromkeys(("mem", "mem-per-cpu", "mem-per-gpu"), _RESOURCES.format("memory_gib")),
    **dict.fromkeys(("gpus", "gpus-per-node", "gpus-per-socket", "gpus-per-task"), _RESOURCES.format("gpus")),
    "gres": f"{_RESOURCES.format('gpus')} and launcher.gpu_type=...; here may stand other generic resources",
    "time": f"{_RESOURCES.format('walltime_minutes')} and launcher.overhead_minutes=...",
    "nodes": _RESOURCES.format("nodes"),
    "signal": "by launcher.grace_seconds=...",
    "array": "by launcher.max_jobs=... and launcher.chunk=...",
}


def check_setup(lines: Sequence[str]) -> None:
    """Raise ConfigError for a line that sbatch would take for an option."""
    for line in lines:
        if "\0" in line:
            raise ConfigError(f"setup must be lines of shell, got {line!r}, which no file of text holds")
        for part in line.splitlines():
            if part.lstrip().startswith("#SBATCH"):
                key = part.lstrip().removeprefix("#SBATCH").strip().lstrip("-").partition("=")[0].partition(" ")[0]
                raise ConfigError(f"setup holds {part!r}, an option of sbatch; give it as sbatch: {{{key or 'KEY'}: VALUE}}")


# -- submitting ---------------------------------------------------------------------------------------------------------


def submit(folder: Path, name: str, text: str, *, seconds: float = SBATCH_SECONDS) -> str:
    """Write the text to `folder/name` and submit it; the job's id.

    Raises SubmissionRefused where sbatch surely queued nothing, SubmissionUnknown where its answer was lost.
    """
    from submitit.core.utils import FailedSubmissionError
    from submitit.slurm.slurm import SlurmExecutor

    files.publish(folder / name, text.encode())
    answer = _run([str(folder / name)], text, seconds)
    try:
        return str(SlurmExecutor._get_job_id_from_submission_command(answer))
    except FailedSubmissionError:
        raise SubmissionUnknown(f"sbatch answered {answer.strip()!r}, without a job's number; {_LOOKED_FOR}") from None


def refusal(text: str) -> str:
    """Why the cluster would never take such a job, by its own word, with nothing queued; empty: no such word."""
    try:
        _run(["--test-only"], text, TRIAL_SECONDS)
    except SubmissionRefused as error:
        return "" if error.temporary else str(error)
    except SubmissionUnknown:
        pass
    return ""


def _run(words: Sequence[str], text: str, seconds: float) -> str:
    """What sbatch says; it reads the script from its standard input where no file is named."""
    try:
        done = subprocess.run(
            ["sbatch", *words],
            input=text,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            env=_environment(text),
            umask=files.UMASK,  # with it SLURM opens the job's log
        )
    except FileNotFoundError:
        raise SubmissionRefused(f"there is no sbatch on PATH on {os.uname().nodename}; submit where there is", temporary=True) from None
    except OSError as error:
        raise SubmissionRefused(f"sbatch cannot be started on {os.uname().nodename}: {error}", temporary=True) from None
    except subprocess.TimeoutExpired:
        raise SubmissionUnknown(f"sbatch gave no answer in {seconds:g} s; {_LOOKED_FOR}") from None
    if done.returncode != 0:
        raise _failure(done.returncode, done.stderr or done.stdout)
    return done.stdout


def submit_tick(root: Path, base: str, text: str) -> None:
    """Submit the job that ticks; a failure is kept beside the batch, since others may tick as well."""
    folder = taskdir.batch_dir(root, base)
    try:
        found = {"job_id": submit(folder, "tick.sh", text, seconds=SBATCH_SECONDS / 3)}
    except (SubmissionRefused, SubmissionUnknown) as error:
        found = {"error": str(error)}
    files.publish(folder / "tick.json", files.encode(found))


def _failure(code: int, text: str) -> Exception:
    """What a failed sbatch means for the job that it was to queue."""
    told = " ".join(line.removeprefix("sbatch: ").removeprefix("error: ") for line in text.strip().splitlines()) or f"exit code {code}"
    low = told.lower()
    if code < 0:
        return SubmissionUnknown(f"sbatch was ended by signal {-code}; {_LOOKED_FOR}")
    if any(one in low for one in _UNKNOWN):
        return SubmissionUnknown(f"sbatch: {told}; {_LOOKED_FOR}")
    return SubmissionRefused(f"sbatch: {told}", temporary=not _LIMIT.search(told) and any(one in low for one in _TEMPORARY))


def _environment(text: str) -> dict[str, str]:
    """Ours, without what would speak against the script: SBATCH_* outweighs its lines, and a job's own SLURM_* would pass to the next."""
    said = {match[1].replace("-", "_").upper() for match in re.finditer(r"^#SBATCH --([a-z-]+)", text, re.MULTILINE)}
    kept = {f"SBATCH_{name}" for name in _KEPT if name not in said} | {"SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT"}
    left_out = ("SBATCH_", "SLURM_") if "SLURM_JOB_ID" in os.environ else ("SBATCH_",)
    return {name: value for name, value in os.environ.items() if name in kept or not name.startswith(left_out)}
