"""The current picture of a store: its ledger, open batches and sweeps, refreshed by reading only what is new; and what schedulers say."""

import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from orchestrator import ledger as ledgers
from orchestrator.batches import Batch
from orchestrator.cures import Means
from orchestrator.doubts import Doubts
from orchestrator.launchers.launcher import JobState, Launcher, SchedulerSilent
from orchestrator.ledger import Ledger
from orchestrator.states import SweepStates, sweep_states
from orchestrator.store import Store
from orchestrator.sweep import Sweep
from workers import files, plugins
from workers.errors import UnknownName, nearest
from workers.taskdir import batch_dir


@dataclass(slots=True)
class Watch:
    """Made once by a driver and refreshed; everything in it can be read again from the store.

    `jobs`: token -> what its scheduler last said of it. `silent`: tokens whose scheduler gave no answer -> why. `waiting`: sweep -> why
    nothing more of it is sent for now. `saw_job_that_ticks`: since it was made, a job was at work that ends with a tick of its own.
    """

    store: Store
    ledger: Ledger = field(default_factory=Ledger)
    batches: dict[str, Batch] = field(default_factory=dict)
    jobs: dict[str, JobState] = field(default_factory=dict)
    silent: dict[str, str] = field(default_factory=dict)
    waiting: dict[str, str] = field(default_factory=dict)
    saw_job_that_ticks: bool = False
    _sweeps: dict[tuple[str, int], Sweep] = field(default_factory=dict)
    _launchers: dict[int, tuple[dict[str, Any], Launcher]] = field(default_factory=dict)
    _looked: dict[str, float] = field(default_factory=dict)
    _doubts: Doubts | None = None

    @classmethod
    def of(cls, store: Store) -> "Watch":
        """The picture as it is now."""
        return cls(store, ledgers.read(store.root)).refresh()

    @property
    def doubts(self) -> Doubts:
        """What this host has seen and does not yet believe."""
        if self._doubts is None:
            self._doubts = Doubts.of(self.store.root)
        return self._doubts

    def refresh(self) -> "Watch":
        """Read new ledger entries and new events of the open batches."""
        ledgers.read(self.store.root, self.ledger)
        for token in [token for token in self.batches if token not in self.ledger.batches]:
            self.forget(token)
        begun: dict[str, set[str]] = {}
        for token, entry in self.ledger.batches.items():
            batch = self.batch(token)
            base, _, element = token.partition("/")
            if element and base not in begun:
                begun[base] = set(files.names(batch_dir(self.store.root, base)))
            if not element or element in begun[base]:
                batch.refresh()
            self.saw_job_that_ticks |= self.launcher(entry["launcher"]).ticks
        return self

    def batch(self, token: str) -> Batch:
        """An open batch as of the last refresh."""
        if token not in self.batches:
            self.batches[token] = Batch(self.store.root, token)
        return self.batches[token]

    def forget(self, token: str) -> None:
        """A batch that is closed."""
        for known in (self.batches, self.jobs, self.silent):
            known.pop(token, None)
        if self._doubts is not None:
            self._doubts.forget(token)

    def look(self, *, at_once: bool = True) -> None:
        """Ask each scheduler once about all open batches that have not said their last word; not `at_once`: where its turn has come.

        What became of the earlier runs of a job that was requeued, it alone knows, so that is asked for before such a batch is closed.
        Receipts are read before (by `refresh`): a job that links its own after that is not taken for a dead one.
        """
        groups: dict[str, list[str]] = defaultdict(list)
        for token, entry in self.ledger.batches.items():
            if not self.batch(token).is_over or self.batch(token).run > 0:
                groups[entry["launcher"]["name"]].append(token)
        for name, tokens in groups.items():
            launcher = self.launcher(self.ledger.batches[tokens[0]]["launcher"])
            now = time.monotonic()
            if at_once or now - self._looked.get(name, float("-inf")) >= launcher.poll_seconds:
                self._ask(launcher, tokens)
                self._looked[name] = time.monotonic()

    def _ask(self, launcher: Launcher, tokens: list[str]) -> None:
        try:
            found = launcher.states(self.store.root, tokens)
        except SchedulerSilent as error:
            self.silent.update(dict.fromkeys(tokens, str(error)))
            return
        for token in tokens:
            self.silent.pop(token, None)
            self.jobs.pop(token, None)
        self.jobs.update(found)

    def sweep(self, name: str) -> Sweep:
        """The sweep at its active revision; UnknownName with the nearest where there is none."""
        if name not in self.ledger.sweeps:
            known = sorted(self.ledger.sweeps)
            raise UnknownName(
                f"no sweep {name!r} in {self.store.root}{nearest(name, known)} "
                f"There are: {', '.join(known) or 'none yet'}. Begin one with `eigensweep submit sweep=... name={name}`"
            )
        revision = self.ledger.sweeps[name]["revision"]
        if (name, revision) not in self._sweeps:
            self._sweeps[name, revision] = Sweep.from_body(self.store.manifest(name, revision))
        return self._sweeps[name, revision]

    def launcher(self, settings: dict[str, Any]) -> Launcher:
        """The launcher that a sweep or a batch was given."""
        # by the object, which all jobs of a submission share: there may be ten thousand of them
        if id(settings) not in self._launchers:
            cls = plugins.load("launchers", settings["name"], "orchestrator")
            self._launchers[id(settings)] = (settings, cls.from_plain(settings))
        return self._launchers[id(settings)][1]

    def states(self, name: str) -> SweepStates:
        """States of all tasks of a sweep as of the last refresh (the hints are read now)."""
        sweep = self.sweep(name)
        return sweep_states(sweep, self.ledger, self.store.done(name), self.batches, Means.of(self.launcher(sweep.launcher)))
