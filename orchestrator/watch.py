"""The current picture of a store: its ledger, open batches and sweeps, refreshed by reading only what is new."""

from dataclasses import dataclass, field
from typing import Any

from orchestrator import ledger as ledgers
from orchestrator.batches import Batch
from orchestrator.ledger import Ledger
from orchestrator.states import SweepStates, sweep_states
from orchestrator.store import Store
from orchestrator.sweep import Sweep
from workers import plugins
from workers.errors import UnknownName, nearest


@dataclass(slots=True)
class Watch:
    """Made once by a driver and refreshed; everything in it can be read again from the store.

    `saw_job_that_ticks`: since it was made, a job was at work that ends with a tick of its own.
    """

    store: Store
    ledger: Ledger = field(default_factory=Ledger)
    batches: dict[str, Batch] = field(default_factory=dict)
    saw_job_that_ticks: bool = False
    _sweeps: dict[tuple[str, int], Sweep] = field(default_factory=dict)

    @classmethod
    def of(cls, store: Store) -> "Watch":
        """The picture as it is now."""
        return cls(store, ledgers.read(store.root)).refresh()

    def refresh(self) -> "Watch":
        """Read new ledger entries and new events of the open batches."""
        ledgers.read(self.store.root, self.ledger)
        for token in list(self.batches):
            if token not in self.ledger.batches:
                del self.batches[token]
        for token, entry in self.ledger.batches.items():
            self.batches.setdefault(token, Batch(self.store.root, token)).refresh()
            self.saw_job_that_ticks |= self.launcher(entry["launcher"]).ticks
        return self

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

    def launcher(self, settings: dict[str, Any]) -> Any:
        """The launcher that a sweep or a batch was given."""
        return plugins.load("launchers", settings["name"], "orchestrator").from_plain(settings)

    def states(self, name: str) -> SweepStates:
        """States of all tasks of a sweep as of the last refresh (the hints are read now)."""
        sweep = self.sweep(name)
        memory_gib = self.launcher(sweep.launcher).most_memory_gib()
        return sweep_states(sweep, self.ledger, self.store.done(name), self.batches, memory_gib)
