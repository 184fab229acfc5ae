"""How the rows of a large kernel are cut into panels, and who computes which tile."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from workers.errors import ConfigError

Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Panels:
    """Rows 0 to `num_rows` in panels of `panel_rows`, the last one maybe smaller. Tile (I, J) has the rows of I and the columns of J."""

    num_rows: int
    panel_rows: int

    def __post_init__(self) -> None:
        for name in ("num_rows", "panel_rows"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")

    def __len__(self) -> int:
        return -(-self.num_rows // self.panel_rows)

    def rows(self, panel: int) -> range:
        """The rows of a panel."""
        return range(panel * self.panel_rows, min((panel + 1) * self.panel_rows, self.num_rows))

    def pairs(self) -> Iterator[Pair]:
        """Every tile on and above the diagonal, row by row."""
        return ((i, j) for i in range(len(self)) for j in range(i, len(self)))

    def elements(self, pair: Pair) -> int:
        """Elements of a tile; of one on the diagonal only those that are computed, on and above it."""
        rows, columns = (len(self.rows(panel)) for panel in pair)
        return rows * (rows + 1) // 2 if pair[0] == pair[1] else rows * columns

    def shares(self, num_owners: int, pairs: Iterable[Pair] | None = None) -> list[list[Pair]]:
        """The tiles (some, `pairs`) of each owner, as equal in elements as whole rows of tiles allow, then evened out tile by tile.

        An owner keeps what it needs of a row panel while it goes along that row, so rows are given as a whole, the longest first; what one
        has too much of goes from its rows to those that have less.
        """
        owners: list[list[Pair]] = [[] for _ in range(num_owners)]
        loads = [0] * num_owners
        rows: dict[int, list[Pair]] = {}
        for pair in self.pairs() if pairs is None else pairs:
            rows.setdefault(pair[0], []).append(pair)
        for row in sorted(rows.values(), key=lambda row: -sum(map(self.elements, row))):
            least = loads.index(min(loads))
            owners[least] += row
            loads[least] += sum(map(self.elements, row))
        while True:
            most, least = loads.index(max(loads)), loads.index(min(loads))
            moved = max(owners[most], key=lambda pair: (-self._gain(pair, loads[most], loads[least]), pair), default=None)
            if moved is None or self._gain(moved, loads[most], loads[least]) >= loads[most]:
                return [sorted(pairs) for pairs in owners]
            owners[most].remove(moved)
            owners[least].append(moved)
            loads[most] -= self.elements(moved)
            loads[least] += self.elements(moved)

    def _gain(self, pair: Pair, most: int, least: int) -> int:
        """The larger of two loads after a tile has moved from the one to the other."""
        return max(most - self.elements(pair), least + self.elements(pair))
