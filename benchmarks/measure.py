"""What the benchmarks share: processes timed from outside, interleaved repetitions, medians, tables, bars, and what the machine is."""

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent
PEERS = HERE / "peers"
# the console script beside the running Python: what a user types
EIGENSWEEP = str(Path(sys.executable).with_name("eigensweep"))


class CommandFailed(RuntimeError):
    """A timed command that did not end well: its time means nothing."""


# -- the command line ---------------------------------------------------------------------------------------------------


def parser(description: str, repetitions: int) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    made.add_argument("--repetitions", type=int, default=repetitions, metavar="N", help="interleaved repetitions; medians are shown")
    made.add_argument("--folder", type=Path, default=REPOSITORY / "build" / "bench", help="where stores are made; must not be a RAM disk")
    made.add_argument("--no-check", action="store_true", help="only print: a missed bar is no error")
    return made


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """A new empty folder below `folder`, removed at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix="run-", dir=folder)).resolve()
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


# -- timing -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ran:
    """A whole process, timed from before its start to after its end; `cpu_seconds` tells what a busy machine added to `seconds`."""

    seconds: float
    cpu_seconds: float
    output: str

    def __str__(self) -> str:
        return f"{short(self.seconds)} s ({short(self.cpu_seconds)} s of processor)"


_UNWANTED = "PYTHONDONTWRITEBYTECODE"  # installed packages have their bytecode; the peers' and ours alike may keep it


def run(command: Sequence[str | Path], cwd: Path | None = None, **environment: str) -> Ran:
    """Run a command to its end; CommandFailed with its output where that is not good."""
    words = [str(word) for word in command]
    given = {name: value for name, value in os.environ.items() if name != _UNWANTED} | environment
    began, began_cpu = time.perf_counter(), _children_cpu()
    ended = subprocess.run(words, cwd=cwd, env=given, capture_output=True, text=True)
    seconds, cpu = time.perf_counter() - began, _children_cpu() - began_cpu
    if ended.returncode:
        raise CommandFailed(f"exit code {ended.returncode} from: {' '.join(words)}\n{ended.stdout[-1500:]}\n{ended.stderr[-3000:]}")
    return Ran(seconds, cpu, ended.stdout)


def tell(process: "subprocess.Popen[str]", word: str) -> None:
    """Give a worker a line of input."""
    assert process.stdin is not None
    process.stdin.write(word + "\n")
    process.stdin.flush()


def answer(process: "subprocess.Popen[str]") -> str:
    """The worker's next line; RuntimeError where it has ended."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"a worker ended with {process.wait()}: {' '.join(map(str, process.args))}")  # type: ignore[arg-type]
    return line


def _children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def own_seconds(output: str) -> float:
    """The `seconds` of the JSON line that a script ends its output with."""
    return float(json.loads(output.strip().splitlines()[-1])["seconds"])


def interleave(cases: Mapping[str, Callable[[], T]], repetitions: int) -> dict[str, list[T]]:
    """Results of each case; every repetition runs all cases, each time beginning with another one, so that a slow minute meets all."""
    found: dict[str, list[T]] = {name: [] for name in cases}
    names = list(cases)
    for repetition in range(repetitions):
        first = repetition % len(names)
        for name in names[first:] + names[:first]:
            found[name].append(cases[name]())
            value = found[name][-1]
            say(f"  {repetition + 1}/{repetitions}  {name}: {short(value) if isinstance(value, float) else value}")
    return found


def say(text: str) -> None:
    """Progress, on standard error."""
    print(text, file=sys.stderr, flush=True)


# -- showing ------------------------------------------------------------------------------------------------------------


def spread(values: Sequence[float], unit: str = "s") -> str:
    """Median and range: `0.123 s (0.120-0.131)`."""
    low, high = short(min(values)), short(max(values))
    return f"{short(statistics.median(values))} {unit}" + (f" ({low}-{high})" if len(values) > 1 else "")


def short(value: float) -> str:
    """Three digits, without an exponent."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3f}" if abs(value) < 1 else f"{value:.3g}"


def median_of(runs: Sequence[Ran]) -> float:
    """Median wall seconds."""
    return statistics.median(ran.seconds for ran in runs)


def times(runs: Sequence[Ran]) -> list[str]:
    """Two cells: wall and processor seconds."""
    return [spread([ran.seconds for ran in runs]), spread([ran.cpu_seconds for ran in runs])]


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a Markdown table, which RESULTS.md takes as it is."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = [header, ["-" * width for width in widths], *rows]
    for line in lines:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |")
    print(flush=True)


@dataclass(slots=True)
class Bars:
    """Figures against what they have to reach."""

    rows: list[list[str]] = field(default_factory=list)
    missed: int = 0

    def below(self, what: str, value: float, bar: float, unit: str) -> None:
        """Note a figure that has to be under its bar."""
        self._note(what, f"{short(value)} {unit}", f"< {bar:g} {unit}", value < bar)

    def at_least(self, what: str, value: float, bar: float, unit: str) -> None:
        """Note a figure that has to reach its bar."""
        self._note(what, f"{short(value)} {unit}", f">= {bar:g} {unit}", value >= bar)

    def at_most(self, what: str, value: float, bar: float, unit: str) -> None:
        """Note a figure that must not exceed its bar."""
        self._note(what, f"{short(value)} {unit}", f"<= {bar:g} {unit}", value <= bar)

    def _note(self, what: str, value: str, bar: str, reached: bool) -> None:
        self.rows.append([what, value, bar, "yes" if reached else "MISSED"])
        self.missed += not reached

    def show(self, *, check: bool) -> int:
        """Print them; the exit code: 1 where one is missed and `check`."""
        table(["figure", "measured", "bar", "reached"], self.rows)
        return 1 if self.missed and check else 0


# -- the machine --------------------------------------------------------------------------------------------------------


def heading(title: str, folder: Path, packages: Sequence[str] = ()) -> None:
    """Print what is measured, where, and with which versions."""
    versions = ", ".join(f"{name} {_version(name)}" for name in ("eigensweep", *packages))
    print(f"# {title}\n{machine(folder)}\n{versions}\n", flush=True)


def machine(folder: Path) -> str:
    """Processor, cores, memory, load, file system and Python in a line."""
    memory_gib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    cores = len(os.sched_getaffinity(0))
    return (
        f"{_cpu_model()}, {cores} cores, {memory_gib:.0f} GiB, load {os.getloadavg()[0]:.1f}, {_file_system(folder)}, "
        f"Linux {platform.release().split('-')[0]}, Python {platform.python_version()}"
    )


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _file_system(folder: Path) -> str:
    from orchestrator.store import filesystem

    folder.mkdir(parents=True, exist_ok=True)
    return filesystem(folder).partition(" ")[0]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
