"""A store: the folder of plain files that holds sweeps, commits and the dataset; how it is made, found and listed."""

import contextlib
import os
import pwd
import re
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workers import files
from workers.errors import ConfigError, Garbled, StoreError, UnknownName, nearest

FORMAT = 1
FOLDERS = ("batches", "code", "commits", "dataset", "ledger", "sweeps", "tasks")
# owner of all files whose real owner is not known on this machine
UNMAPPED = 65534
# fewer hints than this share of a sweep's list are not worth writing the list anew
HINTS_WORTH_FOLDING = 0.05

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class Store:
    """An existing store at `root`; made by `open` or `init`."""

    root: Path

    @classmethod
    def open(cls, root: str | os.PathLike[str] | None = None) -> "Store":
        """The store at `root`, else the one that the environment or the nearest `eigensweep.toml` names.

        Raises StoreError where there is none, or where a newer eigensweep made it.
        """
        store = cls(find_root(root))
        store._check_format()
        return store

    @classmethod
    def init(cls, root: str | os.PathLike[str] | None = None) -> "Store":
        """Make a store, or open the one that stands there; raises StoreError where the file system cannot hold one."""
        path = find_root(root)
        if not (path / "store.json").exists():
            files.make_dirs(path)
            probe(path)
            if not os.listdir(path):  # a folder that holds something else keeps its mode
                _share_with_group(path)
            for folder in FOLDERS:
                files.make_dirs(path / folder)
                _share_with_group(path / folder)
            files.publish(path / "store.json", files.encode({"format": FORMAT, "id": secrets.token_hex(8)}))
        return cls.open(path)

    def _check_format(self) -> None:
        try:
            body = files.read(self.root / "store.json")
        except FileNotFoundError:
            raise StoreError(f"no store at {self.root}; make one with `eigensweep init --root {self.root}`") from None
        except PermissionError:
            raise StoreError(
                f"you ({_user(os.geteuid())}) may not read {self.root}: a store is for its owner and that owner's group; "
                f"ask to be let in (`ls -ld {self.root}` shows whose it is), or make one of your own with `eigensweep init --root DIR`"
            ) from None
        if body["format"] > FORMAT:
            raise StoreError(
                f"the store at {self.root} has format {body['format']}, this eigensweep knows formats up to {FORMAT}; "
                "use the eigensweep that made it, or a newer one: pip install --upgrade eigensweep"
            )

    @property
    def owner(self) -> str:
        """Name of the one user who may write."""
        return _user(self._owner_id)

    @property
    def is_mine(self) -> bool:
        """Whether this user may write: nobody else does, whatever the permissions allow, not even root."""
        # where the file system cannot tell whose a file is (ids that are not mapped), its permissions decide
        return self._owner_id in (os.geteuid(), UNMAPPED) and os.access(self.root / "ledger", os.W_OK)

    @property
    def _owner_id(self) -> int:
        return os.stat(self.root / "store.json").st_uid

    def require_mine(self, what: str) -> "Store":
        """This store; raises StoreError, before anything is written, where it is another user's."""
        if self.is_mine:
            return self
        me = _user(os.geteuid())
        if self._owner_id == os.geteuid():
            raise StoreError(f"cannot {what} in {self.root}: it is read-only for you ({me}), its owner; see `ls -ld {self.root}/ledger`")
        raise StoreError(
            f"cannot {what} in {self.root}: it is the store of {self.owner}, and only {self.owner} writes there; you ({me}) may read it "
            "with status, logs, load, fit, cost, `report --out DIR`. A store of your own: `eigensweep init --root DIR`"
        )

    def code_path(self, snapshot: str) -> Path:
        """The frozen source of that name, a root for Python's path."""
        return self.root / "code" / snapshot

    # -- sweeps ---------------------------------------------------------------------------------------------------

    def sweep_dir(self, name: str) -> Path:
        """Where everything of one sweep stands; raises ConfigError for a name that no sweep can have."""
        return self.root / "sweeps" / check_name(name)

    def sweep_names(self) -> list[str]:
        """Names of the sweeps that have a manifest."""
        return [name for name in files.names(self.root / "sweeps") if self.revisions(name)]

    def revisions(self, name: str) -> list[int]:
        """Numbers of a sweep's manifests, ascending; none where there is no such sweep."""
        return numbered(self.sweep_dir(name), "manifest-")

    def manifest(self, name: str, revision: int | None = None) -> Any:
        """The body of a sweep's newest manifest, or of that of `revision`; raises UnknownName where there is none."""
        revisions = self.revisions(name)
        if not revisions:
            known = self.sweep_names()
            raise UnknownName(
                f"no sweep {name!r} in {self.root}{nearest(name, known)} There are {', '.join(known) or 'none yet'}; "
                f"`eigensweep submit sweep=... name={name}` makes it"
            )
        if revision is not None and revision not in revisions:
            raise UnknownName(f"sweep {name!r} has no revision {revision}; it has {', '.join(map(str, revisions))}")
        return files.read(self._manifest_path(name, revisions[-1] if revision is None else revision))

    def write_manifest(self, name: str, revision: int, body: Any) -> bool:
        """Link a revision into place; False where another driver's stands there: read it and decide again."""
        files.make_dirs(self.sweep_dir(name) / "done")
        return files.publish(self._manifest_path(name, revision), files.encode(body))

    def _manifest_path(self, name: str, revision: int) -> Path:
        return self.sweep_dir(name) / f"manifest-{revision:06d}.json"

    # -- what is committed ----------------------------------------------------------------------------------------

    def hints(self, name: str) -> set[str]:
        """Commit names that the hints in the sweep's `done/` tell: those since its list was last written."""
        try:
            return {hint for hint in os.listdir(self.sweep_dir(name) / "done") if hint[0] != "."}
        except FileNotFoundError:
            return set()

    def done(self, name: str) -> set[str]:
        """Names of the commits known to be there for a sweep's tasks; tick adds what a crash lost."""
        # hints first: a hint goes only after the list that covers it is there
        hints = self.hints(name)
        return hints.union(self._committed(name)[1])

    def fold_hints(self, name: str, known: Iterable[str]) -> None:
        """Move the hints of `known` commits into the sweep's list, once there are enough of them."""
        hints = self.hints(name)
        covered = hints.intersection(known)
        number, listed = self._committed(name)
        if not covered or len(covered) < HINTS_WORTH_FOLDING * len(listed):
            return
        folder = self.sweep_dir(name)
        body = sorted(covered.union(listed))
        if not files.publish(folder / f"committed-{number + 1:06d}.json", files.encode(body)):
            return  # another compaction is at it
        done = f"{folder}/done/"
        for hint in sorted(covered):
            with contextlib.suppress(FileNotFoundError):
                files.ops.unlink(Path(done + hint))
        for old in numbered(folder, "committed-"):
            if old <= number:
                with contextlib.suppress(FileNotFoundError):
                    files.ops.unlink(folder / f"committed-{old:06d}.json")

    def _committed(self, name: str) -> tuple[int, list[str]]:
        """Number and content of the newest valid list; the number is that of the newest, valid or not."""
        folder = self.sweep_dir(name)
        for _ in range(3):
            numbers = numbered(folder, "committed-")
            for number in reversed(numbers):
                with contextlib.suppress(FileNotFoundError, Garbled):
                    return numbers[-1], files.read(folder / f"committed-{number:06d}.json")
            if not numbers:
                return 0, []
        return numbers[-1], []

    def commit_names(self) -> list[str]:
        """Names of all commits, from the folders themselves: costs by the size of the store."""
        found = []
        for bucket in files.names(self.root / "commits"):
            found += [name[:-5] for name in os.listdir(self.root / "commits" / bucket) if name[0] != "." and name.endswith(".json")]
        return found


def _share_with_group(folder: Path) -> None:
    """Files made below belong to the folder's group, which may read them; others may not."""
    with contextlib.suppress(PermissionError):  # another user's folder, which we may write to
        os.chmod(folder, files.ROOT_MODE)


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


def check_name(name: str) -> str:
    """The name of a sweep, if it can be one: it is part of paths and of job names."""
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"a sweep cannot be named {name!r}: up to 100 letters, digits, '.', '_' and '-', not beginning with '.'; "
            "choose another with name=..."
        )
    return name


def numbered(folder: Path, prefix: str) -> list[int]:
    """The numbers N of the files `<prefix>N.json` in a folder, ascending."""
    texts = (name[len(prefix) : -5] for name in files.names(folder) if name.startswith(prefix) and name.endswith(".json"))
    return sorted(int(text) for text in texts if text.isdecimal())


def find_root(root: str | os.PathLike[str] | None = None) -> Path:
    """Where the store stands: as given, else EIGENSWEEP_ROOT, else by the nearest `eigensweep.toml` upwards."""
    if root is not None:
        return _absolute(root)
    if os.environ.get("EIGENSWEEP_ROOT"):
        return _absolute(os.environ["EIGENSWEEP_ROOT"])
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "eigensweep.toml").is_file():
            return _root_in_file(folder / "eigensweep.toml")
    raise StoreError(
        "no store was named. There are three ways: `--root DIR` (or root=DIR), the environment variable EIGENSWEEP_ROOT, "
        f'or a file eigensweep.toml with the line root = "DIR" in {here} or above it. A new one: `eigensweep init --root DIR`'
    )


def _root_in_file(path: Path) -> Path:
    import tomllib

    try:
        root = tomllib.loads(path.read_text()).get("root")
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f'{path} is not valid TOML ({error}); it needs one line: root = "DIR"') from None
    if not isinstance(root, str) or not root:
        raise ConfigError(f'{path} names no store (root is {root!r}); it needs one line: root = "DIR"')
    return _absolute(path.parent / Path(root).expanduser())


def _absolute(root: str | os.PathLike[str]) -> Path:
    return Path(os.path.abspath(Path(root).expanduser()))


# -- what a file system must be able to do ----------------------------------------------------------------------------


def probe(folder: Path) -> None:
    """Try in `folder` what the store stands on; raises StoreError with the file system's type and what it lacks."""
    trial = folder / f".probe-{os.getpid():x}-{secrets.token_hex(4)}"
    try:
        files.ops.mkdir(trial)
    except OSError as error:
        raise StoreError(f"cannot write in {folder} ({error.strerror}); give another folder with --root") from error
    try:
        missing = _missing(trial)
    finally:
        _remove_trial(trial)
    if missing:
        raise StoreError(
            f"{folder} is on {filesystem(folder)}, which lacks {', '.join(missing)}; a store needs a POSIX file system "
            "(ext4, xfs, NFS, Lustre, GPFS, BeeGFS with hard links): give another folder with --root"
        )


def _missing(trial: Path) -> list[str]:
    checks: dict[str, Callable[[Path], bool]] = {
        "exclusive create": _creates_exclusively,
        "hard links": _links,
        "links that refuse to overwrite": _link_refuses,
        "the same inode under both names of a link": lambda trial: files.same_file(trial / "one", trial / "two"),
        "atomic replace": _replaces,
        "fsync of a file": lambda trial: _does(files.ops.sync, trial / "one"),
        "fsync of a folder": lambda trial: _does(files.ops.sync_dir, trial),
    }
    return [what for what, check in checks.items() if not check(trial)]


def _does(change: Any, *arguments: Path | bytes) -> bool:
    try:
        change(*arguments)
    except OSError:
        return False
    return True


def _creates_exclusively(trial: Path) -> bool:
    if not _does(files.ops.create, trial / "one", b"one"):
        return False
    return not _does(files.ops.create, trial / "one", b"other") and (trial / "one").read_bytes() == b"one"


def _links(trial: Path) -> bool:
    return _does(files.ops.link, trial / "one", trial / "two") and (trial / "two").read_bytes() == b"one"


def _link_refuses(trial: Path) -> bool:
    if not _does(files.ops.create, trial / "three", b"three"):
        return False
    _does(files.ops.link, trial / "three", trial / "one")
    return (trial / "one").read_bytes() == b"one"


def _replaces(trial: Path) -> bool:
    if not _does(files.ops.create, trial / "four", b"four"):
        return False
    return _does(files.ops.replace, trial / "four", trial / "three") and (trial / "three").read_bytes() == b"four"


def _remove_trial(trial: Path) -> None:
    for entry in os.listdir(trial):
        files.ops.unlink(trial / entry)
    files.ops.rmdir(trial)


def filesystem(folder: Path) -> str:
    """The type of the file system that holds `folder`, and where it is mounted."""
    path = str(folder.resolve())
    found = ("unknown", "?")
    with contextlib.suppress(OSError):
        for line in Path("/proc/mounts").read_text().splitlines():
            _, mount, kind = line.split(" ")[:3]
            mount = mount.replace("\\040", " ")
            inside = path == mount or path.startswith(mount.rstrip("/") + "/")
            if inside and (found[1] == "?" or len(mount) >= len(found[1])):
                found = (kind, mount)
    return f"{found[0]} (mounted at {found[1]})"
