"""The errors a user can meet; each says what, what was given, what is allowed and what to do next."""

import difflib
from collections.abc import Iterable


class EigensweepError(Exception):
    """Any error that the command line prints without a traceback; `exit_code` is what the command returns."""

    exit_code = 1


class ConfigError(EigensweepError, ValueError):
    """A setting, a grid or an option that cannot be; nothing has been written."""

    exit_code = 2


class UnknownName(ConfigError):
    """A name that does not exist, with the nearest that does."""


class StoreError(EigensweepError):
    """A store that is absent, of another format, or on a file system that cannot hold it."""


class Garbled(StoreError):
    """A file that is truncated or does not match its checksum: named, never trusted."""


class DiskFull(StoreError):
    """The file system has no room or no quota left."""


class Diverged(EigensweepError):
    """A numeric failure (NaN, no convergence): a result with status=diverged, never retried."""


class Interrupted(EigensweepError):
    """Raised by a workload that has checkpointed after the warning signal; the task is requeued."""


class ProcessLost(EigensweepError, RuntimeError):
    """A process that a task had started died without a word, or its node did: the task is tried again as it is."""


class RigLost(EigensweepError, RuntimeError):
    """A rig that went away, was silent for too long or said what cannot be; what it had said before is kept."""


def nearest(name: str, names: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the closest of `names`, else a full stop."""
    found = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f"; did you mean {found[0]!r}?" if found else "."
