"""One side of a trial: a store of its own, its sweeps, and the driver process that ticks them."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator import ledger as ledgers
from orchestrator.chaos.reach import python_path
from orchestrator.ledger import Ledger
from orchestrator.store import Store
from workers.errors import EigensweepError


@dataclass(slots=True, kw_only=True)
class Side:
    """The calm or the chaotic run. `sweeps`: name -> the words that submit it; `hooks` go to the front of the jobs' Python path."""

    root: Path
    sweeps: dict[str, list[str]]
    every_seconds: float
    config_dirs: list[Path] = field(default_factory=list)
    hooks: list[Path] = field(default_factory=list)
    ledger: Ledger = field(default_factory=Ledger)
    num_starts: int = 0
    _driver: "subprocess.Popen[bytes] | None" = None

    def submit(self) -> None:
        """Make the store and send each sweep once; the driver does the rest."""
        Store.init(self.root)
        for name, words in self.sweeps.items():
            configs = [word for path in self.config_dirs for word in ("--config-dir", str(path))]
            command = ["submit", *words, f"name={name}", *configs, "--detach", "--quiet"]
            done = subprocess.run(
                self._command(*command), env=self._environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True
            )
            if done.returncode:
                raise EigensweepError(f"`eigensweep {' '.join(command)} --root {self.root}` failed:\n{done.stderr.strip()}")

    def keep_driver(self) -> None:
        """Start a driver unless one is at work."""
        if self._driver is None or self._driver.poll() is not None:
            self.num_starts += 1
            with self.log.open("ab") as log:
                self._driver = subprocess.Popen(
                    self._command("tick", "--every", f"{self.every_seconds:g}", "--quiet"),
                    env=self._environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )

    def kill_driver(self) -> bool:
        """SIGKILL; False: none was at work."""
        if self._driver is None or self._driver.poll() is not None:
            return False
        self._driver.kill()
        self._driver.wait()
        return True

    @property
    def log(self) -> Path:
        """What its drivers print, beside the store."""
        return self.root.with_name(f"{self.root.name}-driver.log")

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to do, or nothing more is done because the sweep was paused."""
        ledgers.read(self.root, self.ledger)
        return all(name in self.ledger.settled or name in self.ledger.paused for name in self.sweeps) and not self.ledger.batches

    def num_done(self) -> int:
        """Committed tasks of all sweeps."""
        store = Store(self.root)
        return sum(sum(not name.endswith(".diverged") for name in store.done(sweep)) for sweep in self.sweeps)

    def cancel(self) -> None:
        """End its jobs."""
        from orchestrator import submit

        self.kill_driver()
        for name in self.sweeps:
            if name in ledgers.read(self.root).sweeps:
                submit.cancel(name, Store.open(self.root))

    def wait_for_last_words(self, seconds: float = 10.0) -> None:
        """A driver that has nothing left to do ends by itself."""
        deadline = time.monotonic() + seconds
        while self._driver is not None and self._driver.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        self.kill_driver()

    def _command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "orchestrator", *words, "--root", str(self.root)]

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": python_path(*self.hooks)}
