"""The tiles of one kernel on disk: which there are, where they lie, and what is known of each."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from workers import files
from workers.errors import Garbled
from workers.sharded.panels import Pair, Panels

if TYPE_CHECKING:
    import numpy as np

INDEX = "tiles.json"


def tile_name(pair: Pair) -> str:
    """File of the tile (I, J), I <= J: the rows of panel I and the columns of panel J."""
    return f"tile-{pair[0]:05d}-{pair[1]:05d}.npy"


@dataclass(frozen=True, slots=True, kw_only=True)
class TileFacts:
    """What certifies a tile: the SHA-256 of its file, and sums in float64 over its elements."""

    row: int
    column: int
    sha256: str
    squares: float
    trace: float  # of a tile on the diagonal, else 0
    seconds: float  # of a core, that it took
    peak_bytes: int  # of the process that made it, until then

    @property
    def pair(self) -> Pair:
        """(I, J)."""
        return self.row, self.column


@dataclass(frozen=True, slots=True)
class TileSet:
    """A symmetric kernel in tiles: those on and above the diagonal, each a `.npy` file; one on the diagonal is whole and symmetric."""

    panels: Panels
    dtype: str
    folder: Path
    facts: Mapping[Pair, TileFacts]
    moved: Mapping[Pair, Path] = field(default_factory=dict)  # tiles that stand elsewhere: computed again, since they were damaged

    @property
    def num_rows(self) -> int:
        """R."""
        return self.panels.num_rows

    @property
    def panel_rows(self) -> int:
        """Rows of a panel, but maybe of the last."""
        return self.panels.panel_rows

    @property
    def trace(self) -> float:
        """Sum of the diagonal, in float64."""
        return sum(self.facts[i, i].trace for i in range(len(self.panels)))

    @property
    def frobenius(self) -> float:
        """Norm of the whole kernel."""
        return float(sum((1 if i == j else 2) * self.facts[i, j].squares for i, j in self.panels.pairs()) ** 0.5)

    @property
    def num_bytes(self) -> int:
        """Of all tiles on disk, without their headers."""
        item = {"float32": 4, "float64": 8}[self.dtype]
        return sum(len(self.panels.rows(i)) * len(self.panels.rows(j)) * item for i, j in self.panels.pairs())

    def path(self, row: int, column: int) -> Path:
        """The file of a tile."""
        return self.moved.get((row, column), self.folder / tile_name((row, column)))

    def tile(self, row: int, column: int) -> "np.ndarray":
        """The tile (rows of I, columns of J), I <= J, mapped from its file and read-only; Garbled for a file of another shape or type."""
        import numpy as np

        path = self.path(row, column)
        try:
            found: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
        except ValueError as error:
            raise Garbled(f"{path} is no tile: {error}") from None
        expected = (len(self.panels.rows(row)), len(self.panels.rows(column)))
        if found.shape != expected or found.dtype != self.dtype:
            raise Garbled(f"{path} holds {found.dtype} {found.shape}, expected {self.dtype} {expected}")
        return found

    def whole(self) -> "np.ndarray":
        """The kernel (R, R), both halves, in memory."""
        import numpy as np

        found = np.empty((self.num_rows, self.num_rows), self.dtype)
        for i, j in self.panels.pairs():
            rows, columns = (slice(panel.start, panel.stop) for panel in (self.panels.rows(i), self.panels.rows(j)))
            tile = self.tile(i, j)
            found[rows, columns] = tile
            found[columns, rows] = tile.T
        return found

    def elements(self, rows: "np.ndarray", columns: "np.ndarray") -> "np.ndarray":
        """The elements (I, J) at some rows (I,) and columns (J,), read from the files of their tiles alone."""
        import numpy as np

        found = np.empty((len(rows), len(columns)), self.dtype)
        for i in np.unique(rows // self.panel_rows):
            for j in np.unique(columns // self.panel_rows):
                own, others = np.flatnonzero(rows // self.panel_rows == i), np.flatnonzero(columns // self.panel_rows == j)
                tile = self.tile(i, j) if i <= j else self.tile(j, i).T
                found[np.ix_(own, others)] = tile[np.ix_(rows[own] % self.panel_rows, columns[others] % self.panel_rows)]
        return found

    def is_intact(self, pair: Pair) -> bool:
        """Whether the file of a tile is what was published: reads all of it."""
        try:
            return files.sha256(self.path(*pair)) == self.facts[pair].sha256
        except FileNotFoundError:
            return False

    def save(self, path: Path) -> None:
        """Write the index, a JSON file, which `load` reads."""
        body = {"num_rows": self.num_rows, "panel_rows": self.panel_rows, "dtype": self.dtype}
        path.write_bytes(files.encode(body | {"tiles": [asdict(self.facts[pair]) for pair in self.panels.pairs()]}))

    @classmethod
    def load(cls, path: Path, moved: Mapping[Pair, Path] | None = None) -> "TileSet":
        """The tiles that lie beside an index, but for those `moved`; Garbled for one that names not all of them."""
        body = files.read(path)
        panels = Panels(body["num_rows"], body["panel_rows"])
        return cls.of(panels, body["dtype"], path.parent, [TileFacts(**facts) for facts in body["tiles"]], moved)

    @classmethod
    def of(
        cls, panels: Panels, dtype: str, folder: Path, facts: Sequence[TileFacts], moved: Mapping[Pair, Path] | None = None
    ) -> "TileSet":
        """Of all tiles on and above the diagonal."""
        found = {one.pair: one for one in facts}
        missing = [pair for pair in panels.pairs() if pair not in found]
        if missing:
            raise Garbled(f"{len(missing)} of {len(missing) + len(found)} tiles are missing in {folder}, {missing[0]} the first")
        return cls(panels, dtype, folder, found, moved or {})


def sums_of(pair: Pair, tile: "np.ndarray") -> dict[str, float]:
    """Squares and trace of a tile (rows, columns), as its facts have them."""
    import numpy as np

    squares, trace = 0.0, 0.0
    for row in tile:  # by rows: a copy of the whole in float64 would double the memory
        squares += float(np.square(row, dtype=np.float64).sum())
    if pair[0] == pair[1]:
        trace = float(np.trace(tile, dtype=np.float64))
    return {"squares": squares, "trace": trace}
