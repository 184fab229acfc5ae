"""In whatever order drivers, jobs and readers act, crash and stall: no result is lost, doubled or half visible."""

import functools
import os
import shutil
import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from orchestrator import collect, results, submit
from orchestrator import tick as ticking
from orchestrator.code import Frozen
from orchestrator.compose import compose
from orchestrator.store import Store
from orchestrator.sweep import Sweep, expand
from orchestrator.watch import Watch
from tests.protocol.scripted import JOBS, ZOMBIES, Job
from workers import taskdir

GRIDS = ("0,1", "1,2", "0,1,2,3")
NAMES = ("a", "b")
RESUME = {"kind": "resume", "keys": [], "all": True, "snapshot": "snapshot", "code": "code"}
FROZEN = Frozen(snapshot="snapshot", code="code", path=Path("/nowhere"))


@functools.cache
def sweep_of(name: str, grid: str) -> Sweep:
    """Composed once: Hydra is not what is tested here."""
    return expand(compose([f"name={name}", "workload=noop", f"index={grid}", "launcher=tests.protocol.scripted"]))


class StoreMachine(RuleBasedStateMachine):
    """Drivers, jobs and readers acting on one store in any order."""

    def __init__(self) -> None:
        super().__init__()
        JOBS.clear()
        ZOMBIES.clear()
        # in memory where there is such a folder: the order of operations is tested here, not the disk
        self.folder = Path(tempfile.mkdtemp(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
        self.store = Store.init(self.folder / "store")
        self.commits: dict[Path, bytes] = {}
        self.retracted: set[str] = set()

    # -- drivers --------------------------------------------------------------------------------------------------

    def watch(self) -> Watch:
        return Watch.of(self.store)

    @rule(name=st.sampled_from(NAMES), grid=st.sampled_from(GRIDS))
    def submit(self, name: str, grid: str) -> None:
        watch = self.watch()
        sweep = sweep_of(name, grid)
        if name in watch.ledger.sweeps:
            sweep = watch.sweep(name).union(sweep)
        submit._activate(watch, sweep, FROZEN, [], [])
        ticking.tick(watch, [name])

    @rule()
    def tick(self) -> None:
        ticking.tick(self.watch())

    @rule()
    def two_drivers_decide_on_the_same_reading(self) -> None:
        one, other = self.watch(), self.watch()
        ticking.tick(one)
        ticking.tick(other)

    @rule()
    def a_driver_dies_between_winning_the_entry_and_starting_the_job(self) -> None:
        launch, ticking._launch = ticking._launch, lambda *arguments: None
        try:
            ticking.tick(self.watch())
        finally:
            ticking._launch = launch

    @precondition(lambda self: self.watch().ledger.sweeps)
    @rule()
    def compact(self) -> None:
        watch = self.watch()
        collect.compact(watch.store, watch.ledger)

    @precondition(lambda self: self.watch().ledger.sweeps)
    @rule(index=st.integers(0, 3), name=st.sampled_from(NAMES))
    def retract(self, index: int, name: str) -> None:
        watch = self.watch()
        if name in watch.ledger.sweeps:
            before = set(watch.ledger.retracted)
            submit.retract(name, f"index={index}", "a test", self.store)
            self.retracted |= self.watch().ledger.retracted - before
            for held in sorted(self.watch().ledger.paused):
                submit._append(self.watch(), RESUME | {"sweep": held})

    @rule(name=st.sampled_from(NAMES))
    def cancel_then_resume(self, name: str) -> None:
        watch = self.watch()
        if name in watch.ledger.sweeps:
            submit.cancel(name, self.store)
            submit._append(self.watch(), RESUME | {"sweep": name})

    # -- jobs -----------------------------------------------------------------------------------------------------

    def alive(self) -> list[Job]:
        return [job for job in [*JOBS.values(), *ZOMBIES] if job.alive]

    @rule(data=st.data(), lives_on=st.booleans(), was_shown_lost=st.booleans())
    def the_scheduler_requeues_a_job(self, data: st.DataObject, lives_on: bool, was_shown_lost: bool) -> None:
        listed = [job for job in JOBS.values() if job.listed]
        if listed:
            job = data.draw(st.sampled_from(listed))
            job.alive = job.alive and lives_on and job.begun
            if was_shown_lost:
                job.lost = True
                ticking.tick(self.watch())
            job.requeue()

    @rule(data=st.data())
    def a_node_is_lost_with_a_job_that_goes_on(self, data: st.DataObject) -> None:
        listed = [job for job in JOBS.values() if job.listed]
        if listed:
            data.draw(st.sampled_from(listed)).lost = True

    @rule(data=st.data())
    def a_job_takes_a_step(self, data: st.DataObject) -> None:
        alive = self.alive()
        if not alive:
            return
        job = data.draw(st.sampled_from(alive))
        if not job.begun:
            job.begin()
        elif job.running is not None:
            job.record(job.commit_running())
        elif not job.start_next():
            job.end()

    @rule(data=st.data())
    def a_job_commits_and_dies_before_it_says_so(self, data: st.DataObject) -> None:
        running = [job for job in self.alive() if job.running is not None]
        if running:
            job = data.draw(st.sampled_from(running))
            job.commit_running()
            job.alive = job.listed = False

    @rule(data=st.data())
    def a_job_dies(self, data: st.DataObject) -> None:
        alive = self.alive()
        if alive:
            job = data.draw(st.sampled_from(alive))
            job.alive = job.listed = False

    @rule(data=st.data())
    def the_scheduler_forgets_a_job_that_goes_on(self, data: st.DataObject) -> None:
        listed = [job for job in JOBS.values() if job.alive and job.listed]
        if listed:
            data.draw(st.sampled_from(listed)).listed = False

    # -- what must hold -------------------------------------------------------------------------------------------

    @invariant()
    def a_commit_never_changes(self) -> None:
        for path in sorted((self.store.root / "commits").rglob("*.json")):
            assert self.commits.setdefault(path, path.read_bytes()) == path.read_bytes()

    @invariant()
    def every_reader_sees_each_result_that_counts_once(self) -> None:
        watch = self.watch()
        for name in watch.ledger.sweeps:
            names = {key: watch.ledger.name_of(key) for key in watch.sweep(name).keys}
            hinted = {key for key, commit in names.items() if commit in self.store.done(name)}
            committed = {key for key, commit in names.items() if taskdir.is_committed(self.store.root, commit)}
            seen = Counter(results.load(name, self.store.root, mixed_code=True).scalars().collect()["key"].to_list())
            # a task that another sweep computed is seen once it is compacted, and at the latest when a tick has made its hint
            assert hinted <= set(seen) <= committed
            assert set(seen.values()) <= {3}

    def teardown(self) -> None:
        """Left alone, with jobs that do their work, every sweep ends with all its tasks completed."""
        try:
            self.finish()
        finally:
            shutil.rmtree(self.folder)

    def finish(self) -> None:
        for _ in range(200):
            ticking.tick(self.watch())
            alive = [job for job in JOBS.values() if job.alive and job.listed]
            if not alive and self.watch().ledger.settled >= set(self.watch().ledger.sweeps):
                break
            for job in alive:
                if not job.begun:
                    job.begin()
                while job.alive and (job.running is not None or job.start_next()):
                    job.record(job.commit_running())
                if job.alive:
                    job.end()
        watch = self.watch()
        for name in watch.ledger.sweeps:
            states = watch.states(name)
            assert set(states.states) <= {"completed", "failed"}
            for index, state in enumerate(states.states):
                if state == "failed":
                    outcomes = states.outcomes[watch.sweep(name).keys[index]]
                    assert max(Counter(one["class"] for one in outcomes).values()) > 3, "failed without having used its budget"
            for index, key in enumerate(watch.sweep(name).keys):
                if states.states[index] == "completed":
                    assert taskdir.is_committed(self.store.root, watch.ledger.name_of(key))


StoreMachine.TestCase.settings = settings(
    max_examples=int(os.environ.get("EIGENSWEEP_EXAMPLES", "40")),
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
    report_multiple_bugs=False,
)
TestStore = StoreMachine.TestCase
