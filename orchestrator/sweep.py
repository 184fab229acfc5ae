"""A sweep as columns: its tasks with keys, settings, inputs and resources, as the manifest keeps them."""

import bisect
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from orchestrator.cost import grown as grown_budget
from orchestrator.grid import Axis, named
from workers import plugins
from workers.errors import ConfigError, EigensweepError
from workers.taskdir import Task
from workers.workload import EARLIER, Resources

if TYPE_CHECKING:
    from orchestrator.composed import Composed


# in place of a column: the values stand row by row
_FREE = -1


@dataclass(slots=True, kw_only=True)
class Block:
    """Tasks of one workload that differ in a few settings only; they stand together in the sweep's order.

    `path`: from the target to this input ("" for the target itself). `varying`: settings below `path`; `values` and
    `indices` hold their values, one list each. `inputs`: positions of the input tasks, one list an input field.
    `resources`: distinct ones, `resource_index` chooses. A list of length one stands for all tasks. `free`: quantities that are no
    settings, None where a task has several. `is_point`: false where these are only what points of the grid go on from.
    """

    workload: str
    version: int
    path: str
    accepts_diverged: bool
    settings: dict[str, Any]
    content: dict[str, str]
    varying: list[str]
    values: list[list[Any]]
    indices: list[list[int]]
    inputs: dict[str, list[int | None]]
    resources: list[dict[str, Any]]
    resource_index: list[int]
    seconds: list[float | None]
    size: int
    free: dict[str, list[Any]] = field(default_factory=dict)
    is_point: bool = True

    @property
    def is_target(self) -> bool:
        """Whether these are the grid's own tasks."""
        return not self.path and self.is_point

    def varying_values(self, row: int) -> dict[str, Any]:
        """Values of the settings that differ within the block."""
        return {path: self.values[i][self.indices[i][row]] for i, path in enumerate(self.varying)}

    def settings_of(self, row: int) -> dict[str, Any]:
        """All settings of one task, nested."""
        settings: dict[str, Any] = _copied(self.settings)
        for path, value in self.varying_values(row).items():
            node, (*parents, last) = settings, path.split(".")
            for parent in parents:
                node = node[parent]
            node[last] = list(value) if isinstance(value, tuple) else value
        return settings

    def value(self, path: str, row: int) -> Any:
        """The value of one setting; a plug-in's is its name."""
        if path in self.varying:
            i = self.varying.index(path)
            return self.values[i][self.indices[i][row]]
        value = self.fixed(path)
        return value["name"] if isinstance(value, dict) and "name" in value else value

    def fixed(self, path: str) -> Any:
        """The setting at `path` as it is for the first task; None where a plug-in has none of that name."""
        node: Any = self.settings
        for part in path.split("."):
            node = node.get(part) if isinstance(node, dict) else None
        return node

    def taken(self, rows: list[int], position: Mapping[int, int] | list[int]) -> "Block":
        """The block of some of its rows, its inputs renumbered."""

        def column(values: list[Any]) -> list[Any]:
            return values if len(values) == 1 else [values[row] for row in rows]

        return Block(
            **{
                name: getattr(self, name)
                for name in ("workload", "version", "path", "accepts_diverged", "settings", "content", "varying", "values", "is_point")
            },
            indices=[[column[row] for row in rows] for column in self.indices],
            inputs={name: [_moved(inputs[row], position) for row in rows] for name, inputs in self.inputs.items()},
            resources=self.resources,
            resource_index=column(self.resource_index),
            seconds=column(self.seconds),
            size=len(rows),
            free={name: [values[row] for row in rows] for name, values in self.free.items()},
        )


@dataclass(slots=True, kw_only=True)
class Sweep:
    """The tasks of a grid and all their inputs, inputs first.

    `extra_targets` are targets that are also another's input, `extra_points` inputs that another also goes on from.
    """

    name: str
    target: str
    axes: list[Axis]
    keys: list[str]
    blocks: list[Block]
    launcher: dict[str, Any]
    command: list[str] = field(default_factory=list)
    extra_targets: list[int] = field(default_factory=list)
    extra_points: list[int] = field(default_factory=list)
    yaml: str | None = None
    budget: dict[str, Any] = field(default_factory=dict)
    site: dict[str, Any] = field(default_factory=dict)
    chosen: list[dict[str, Any]] = field(default_factory=list)
    _starts: list[int] = field(default_factory=list)
    _plans: dict[int, list[tuple[str, int | None, Any]]] = field(default_factory=dict)
    _shapes: dict[tuple[int, int], Resources] = field(default_factory=dict)

    def __post_init__(self) -> None:
        start = 0
        for block in self.blocks:
            self._starts.append(start)
            start += block.size

    def __len__(self) -> int:
        return len(self.keys)

    def _at(self, index: int) -> tuple[Block, int]:
        number = bisect.bisect_right(self._starts, index) - 1
        return self.blocks[number], index - self._starts[number]

    def task(self, index: int, generations: Mapping[str, int] | None = None) -> Task:
        """The task as it crosses to the nodes; `generations`: retractions so far, by key. Inputs are named by their keys."""
        block, row = self._at(index)
        key = self.keys[index]
        return Task(
            key=key,
            workload=block.workload,
            version=block.version,
            settings=block.settings_of(row),
            inputs={name: self.keys[found] for name, positions in block.inputs.items() if (found := positions[row]) is not None},
            content=dict(block.content),
            resources=dict(_one(block.resources, _one(block.resource_index, row))),
            sweeps=[self.name],
            generation=(generations or {}).get(key, 0),
        )

    def axis_values(self, index: int) -> dict[str, Any]:
        """Short name -> value of the axes that reach a task: the grid's own, and for an input those below it."""
        number = bisect.bisect_right(self._starts, index) - 1
        block, row = self.blocks[number], index - self._starts[number]
        found = {}
        for name, column, fixed in self._plan(number):
            if column == _FREE:
                if fixed[row] is not None:
                    found[name] = fixed[row]
            else:
                found[name] = fixed if column is None else block.values[column][block.indices[column][row]]
        return found

    def _plan(self, number: int) -> list[tuple[str, int | None, Any]]:
        """For each axis that reaches a block: its name, and the column, or the value that all its tasks share, or those of its rows."""
        if number not in self._plans:
            block = self.blocks[number]
            plan: list[tuple[str, int | None, Any]] = []
            for axis in self.axes:
                if axis.is_free:
                    plan += [(axis.name, _FREE, block.free[axis.path])] if axis.path in block.free else []
                    continue
                path = _below(axis.path, block.path)
                if path in block.varying:
                    plan.append((axis.name, block.varying.index(path), None))
                elif path and (value := block.value(path, 0)) is not None:
                    plan.append((axis.name, None, _hashable(value)))
            self._plans[number] = plan
        return self._plans[number]

    def column(self, name: str) -> list[Any]:
        """The values of an axis for all tasks; None where it does not reach one."""
        return [self.axis_values(index).get(name) for index in range(len(self))]

    def inputs(self, index: int) -> list[int]:
        """Positions of the tasks whose commits a task reads."""
        block, row = self._at(index)
        return [found for positions in block.inputs.values() if (found := positions[row]) is not None]

    def workload(self, index: int) -> str:
        """Name of a task's workload."""
        return self._at(index)[0].workload

    def accepts_diverged(self, index: int, input: int | None = None) -> bool:
        """Whether a task runs although its inputs, or the one at the position `input`, diverged; what it goes on from may."""
        block, row = self._at(index)
        return block.accepts_diverged or (EARLIER in block.inputs and input is not None and block.inputs[EARLIER][row] == input)

    def halves_batches(self, index: int) -> bool:
        """Whether a task's micro-batch may be halved with the same result."""
        try:
            return bool(plugins.load("workloads", self.workload(index)).halves_batches)
        except (EigensweepError, ImportError):  # a workload of the user's own that is not to be had here
            return False

    def is_target(self, index: int) -> bool:
        """Whether a task is one of the grid's own, not only an input."""
        return self._at(index)[0].is_target or index in self.extra_targets

    def is_point(self, index: int) -> bool:
        """Whether a task is one of the grid's own or an input of one, and not only what such a one goes on from."""
        return self._at(index)[0].is_point or index in self.extra_targets or index in self.extra_points

    def resources(self, index: int) -> Resources:
        """What a task needs."""
        number = bisect.bisect_right(self._starts, index) - 1
        block = self.blocks[number]
        which = _one(block.resource_index, index - self._starts[number])
        if (number, which) not in self._shapes:
            self._shapes[number, which] = Resources.from_plain(_one(block.resources, which))
        return self._shapes[number, which]

    def estimated_seconds(self, index: int) -> float | None:
        """The workload's guess of a task's time."""
        block, row = self._at(index)
        seconds: float | None = _one(block.seconds, row)
        return seconds

    def modules(self) -> list[str]:
        """Modules of the user's own that the tasks and the launcher name, sorted."""
        found: set[str] = set()
        for block in self.blocks:
            found |= {value for value in _names({"name": block.workload} | block.settings) if "." in value}
        return sorted(found | {name for name in _names(self.launcher) if "." in name})

    def to_body(self) -> dict[str, Any]:
        """Plain JSON, for the manifest."""
        names = ("name", "target", "keys", "launcher", "command", "extra_targets", "extra_points", "yaml", "budget", "site", "chosen")
        body = {name: getattr(self, name) for name in names}
        body["axes"] = [asdict(axis) for axis in self.axes]
        body["blocks"] = [{name: getattr(block, name) for name in Block.__slots__} for block in self.blocks]
        return body

    @staticmethod
    def from_body(body: Mapping[str, Any]) -> "Sweep":
        """The sweep of a manifest's body."""
        axes = [Axis(**{**axis, "values": tuple(_hashable(value) for value in axis["values"])}) for axis in body["axes"]]
        blocks = [Block(**{name: block[name] for name in Block.__slots__ if name in block}) for block in body["blocks"]]
        for block in blocks:
            block.values = [[_hashable(value) for value in column] for column in block.values]
        names = ("name", "target", "keys", "launcher", "command", "extra_targets", "yaml", "budget", "site")
        later = {name: body.get(name, []) for name in ("chosen", "extra_points")}
        return Sweep(axes=axes, blocks=blocks, **later, **{name: body[name] for name in names})

    def union(self, other: "Sweep") -> "Sweep":
        """This sweep with the tasks of `other` that it lacks; ConfigError where they have different targets."""
        if other.target != self.target:
            raise ConfigError(
                f"sweep {self.name!r} is of {self.target}, not of {other.target}; give the new points a name of their own with name=..."
            )
        position = {key: index for index, key in enumerate(self.keys)}
        keys, blocks, moved, extra = list(self.keys), list(self.blocks), list[int](), list(self.extra_targets)
        for block, start in zip(other.blocks, other._starts):
            rows = []
            for row in range(block.size):
                key = other.keys[start + row]
                if key not in position:
                    position[key] = len(keys)
                    keys.append(key)
                    rows.append(row)
                moved.append(position[key])
            if rows:
                blocks.append(block.taken(rows, moved))
        grown = Sweep(
            name=self.name,
            target=self.target,
            axes=_merged(self.axes, other.axes),
            keys=keys,
            blocks=blocks,
            launcher=self.launcher,
            command=self.command,
            yaml=self.yaml,
            budget=grown_budget(self.budget, other.budget),
            site=self.site,
            chosen=[*self.chosen, *(one for one in other.chosen if one not in self.chosen)],
        )
        targets = {moved[index] for index in range(len(other)) if other.is_target(index)} | set(extra)
        grown.extra_targets = sorted(index for index in targets if not grown._at(index)[0].is_target)
        points = {moved[index] for index in range(len(other)) if other.is_point(index)} | set(self.extra_points)
        grown.extra_points = sorted(index for index in points if not grown.is_point(index))
        return grown


def expand(composed: "Composed") -> Sweep:
    """All tasks of a composition: the grid's and their inputs, deduplicated, inputs first."""
    from orchestrator.expand import expanded

    return expanded(composed)


def _moved(index: int | None, position: Mapping[int, int] | list[int]) -> int | None:
    return None if index is None else position[index]


def _one(values: list[Any], row: int) -> Any:
    return values[0] if len(values) == 1 else values[row]


def _copied(value: Any) -> Any:
    """A copy of nested plain values; `copy.deepcopy` takes a tenth of a plan."""
    if isinstance(value, dict):
        return {name: _copied(one) for name, one in value.items()}
    return [_copied(one) for one in value] if isinstance(value, list) else value


def _below(path: str, node: str) -> str:
    """`model.width` of `gram.train.model.width` seen from `gram.train`; empty where it does not stand below."""
    if not node:
        return path
    return path[len(node) + 1 :] if path.startswith(f"{node}.") else ""


def _names(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        if isinstance(value.get("name"), str):
            yield value["name"]
        for one in value.values():
            yield from _names(one)


def _hashable(value: Any) -> Any:
    return tuple(_hashable(one) for one in value) if isinstance(value, list) else value


def _merged(ours: list[Axis], theirs: list[Axis]) -> list[Axis]:
    """Axes of both, each with the values of both, in the order of first mention."""
    found = {axis.path: axis for axis in ours}
    for axis in theirs:
        earlier = found.get(axis.path)
        values = tuple(dict.fromkeys((*earlier.values, *axis.values))) if earlier else axis.values
        found[axis.path] = replace(axis, values=values)
    return named(found.values())
