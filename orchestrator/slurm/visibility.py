"""Whether the nodes of a cluster see a folder, as far as this host can tell."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

# of these, every host has its own
_OWN_FOLDERS = ("/tmp", "/dev", "/run", "/proc", "/sys")
_OWN_FILE_SYSTEMS = frozenset(("tmpfs", "ramfs", "devtmpfs"))
_MOUNTS = Path("/proc/self/mountinfo")


def unseen(path: Path, shared: Sequence[str] = ()) -> str:
    """Why the nodes would not see a folder; empty: this host knows of no reason. `shared`: the folders that they do see."""
    path = path.resolve()
    if shared:
        seen = any(path.is_relative_to(Path(folder).resolve()) for folder in shared)
        return "" if seen else f"{path} is in none of the folders that the nodes see ({', '.join(shared)})"
    for folder in _OWN_FOLDERS:
        if path.is_relative_to(folder):
            return f"{path} is in {folder}, of which each node has its own"
    place, kind = _mount(path)
    return f"{path} is on {place}, a {kind} of this host alone" if kind in _OWN_FILE_SYSTEMS and place != "/" else ""


def _mount(path: Path) -> tuple[str, str]:
    """Where the file system of a path is mounted, and its kind."""
    found = ("", "")
    with contextlib.suppress(OSError):
        for line in _MOUNTS.read_text().splitlines():
            before, _, after = line.partition(" - ")
            place = before.split()[4].replace("\\040", " ")
            # the last of a place hides those before it
            if path.is_relative_to(place) and len(place) >= len(found[0]):
                found = (place, after.split()[0])
    return found
