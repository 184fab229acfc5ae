"""`eigensweep chaos`: the same sweep calmly and under faults, each in a store of its own, and what comes of it."""

import shutil
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from orchestrator.chaos import balloon, faults
from orchestrator.chaos.compare import EXCLUDED, Compared, compare, wrong_commits
from orchestrator.chaos.driver import Side
from orchestrator.chaos.faults import Chaos, Fault, lost_seconds
from orchestrator.chaos.reach import Power
from orchestrator.chaos.scene import Scene
from orchestrator.chaos.trial import Trial
from orchestrator.store import Store

_LOOK_SECONDS = 0.2


@dataclass(slots=True, kw_only=True)
class Moment:
    """How far a run is."""

    phase: str
    done: int
    total: int
    running: int
    faults: list[Fault]


@dataclass(slots=True, kw_only=True)
class Report:
    """What came of it. Seconds of a run are from the first start of a task to the last end; `lost` is by kind of fault, in task-seconds."""

    folder: str
    chaos: str
    launcher: str
    seed: int
    tasks: int
    calm_seconds: float
    chaos_seconds: float
    faults: list[Fault]
    lost: dict[str, float]
    useful_seconds: float
    ends: dict[str, int]
    tables: list[Compared]
    excluded: tuple[str, ...]
    wrong_commits: list[str]
    drivers: int

    @property
    def is_good(self) -> bool:
        """Whether every task is committed once, and all tables are equal."""
        return not self.wrong_commits and not any(table.difference for table in self.tables)

    @property
    def waste(self) -> float:
        """Lost task-seconds for each useful one."""
        return sum(self.lost.values()) / self.useful_seconds if self.useful_seconds else 0.0


def run(trial: Trial, progress: Callable[[Moment], None] = lambda moment: None) -> Report:
    """Both runs, one after the other, and their comparison."""
    power = Power.of_development_cluster() if any(fault.kind == faults.POWER for fault in trial.faults) else None
    every = 1.0 if trial.launcher == "local" else 5.0
    if not trial.is_calm_given:
        calm = Side(root=trial.calm, sweeps=trial.sweeps, every_seconds=every, config_dirs=trial.config_dirs)
        _drive(calm, trial, None, progress)
    hook = _plant(trial)
    side = Side(root=trial.chaos, sweeps=trial.sweeps, every_seconds=every, config_dirs=trial.config_dirs, hooks=[hook])
    chaos = Chaos(
        side=side,
        scene=Scene(trial.chaos),
        faults=trial.faults,
        seed=trial.seed,
        driver_seconds=trial.driver_kill_seconds,
        power=power,
    )
    _drive(side, trial, chaos, progress)
    chaos.count()
    return _report(trial, chaos)


def _drive(side: Side, trial: Trial, chaos: Chaos | None, progress: Callable[[Moment], None]) -> None:
    """Submit, and keep a driver at it until nothing is left; on Ctrl-C the jobs are ended and the nodes switched on."""
    scene = chaos.scene if chaos is not None else Scene(side.root)
    try:
        side.submit()
        while not side.is_over:
            side.keep_driver()
            done = side.num_done()
            if chaos is not None:
                chaos.step(done / trial.num_tasks)
            running = len(scene.refresh().running())
            told = [*chaos.faults, chaos.driver] if chaos is not None else []
            progress(Moment(phase="chaos" if chaos else "calm", done=done, total=trial.num_tasks, running=running, faults=told))
            time.sleep(_LOOK_SECONDS)
        side.wait_for_last_words()
    except KeyboardInterrupt:
        side.cancel()
        raise KeyboardInterrupt(f"stopped; the trial's jobs were told to end, its stores stay in {trial.folder}") from None
    except BaseException:
        side.cancel()
        raise
    finally:
        side.kill_driver()
        if chaos is not None:
            chaos.restore()


def _report(trial: Trial, chaos: Chaos) -> Report:
    attempts = list(chaos.scene.attempts.values())
    return Report(
        folder=str(trial.folder),
        chaos=str(trial.chaos),
        launcher=trial.launcher,
        seed=trial.seed,
        tasks=trial.num_tasks,
        calm_seconds=_span(Scene(trial.calm).refresh(), trial),
        chaos_seconds=_span(chaos.scene, trial),
        faults=[*trial.faults, chaos.driver],
        lost=lost_seconds(attempts),
        useful_seconds=sum(one.seconds or 0.0 for one in attempts if not one.is_lost),
        ends=dict(sorted(Counter(one.outcome or "no word" for one in attempts).items())),
        tables=[table for name in trial.sweeps for table in compare(name, trial.calm, trial.chaos)],
        excluded=EXCLUDED,
        wrong_commits=wrong_commits(Store.open(trial.chaos), list(trial.sweeps), chaos.scene),
        drivers=chaos.side.num_starts,
    )


def _span(scene: Scene, trial: Trial) -> float:
    """From the first start to the last end of an attempt, by the clocks of the nodes."""
    keys = {key for ones in trial.keys.values() for key in ones}
    mine = [one for one in scene.attempts.values() if one.key in keys]
    return max(one.begun + (one.seconds or 0.0) for one in mine) - min(one.begun for one in mine) if mine else 0.0


def _plant(trial: Trial) -> Path:
    """The balloon for the jobs' Python path; it ends where even a task with retries would have ended."""
    hook = trial.folder / "hook"
    hook.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(balloon.__file__, hook / "sitecustomize.py")
    (hook / balloon.MOST_MIB).write_text(str(round(4096 * trial.most_memory_gib + 1024)))
    return hook
