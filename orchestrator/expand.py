"""From a composition to the tasks of a sweep: each distinct task of the graph once, inputs first."""

import dataclasses
import itertools
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator import expression, identity
from orchestrator.composed import Combo, Composed
from orchestrator.content import data_content
from orchestrator.grid import Axis, Point
from orchestrator.paths import Tree, with_value
from orchestrator.sweep import Block, Sweep, _below
from workers.errors import ConfigError, UnknownName
from workers.settings import Settings, _fields
from workers.workload import EARLIER, Data, Resources, Workload

_Pick = Callable[[Point], Point]


@dataclass(slots=True)
class _Tasks:
    """What is known of the sweep while it is built."""

    axes: list[Axis]
    resources: Mapping[str, Any]
    keys: list[str] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    extra_targets: set[int] = field(default_factory=set)
    extra_points: set[int] = field(default_factory=set)
    gone_on_from: set[int] = field(default_factory=set)
    position: dict[str, int] = field(default_factory=dict)
    contents: dict[Data, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Node:
    """One place in the graph below a combination's target, expanded: per distinct point its task and its workload."""

    index_of: dict[Point, int]
    instance_of: dict[Point, Workload]


def expanded(composed: Composed) -> Sweep:
    """The sweep of a composition."""
    tasks = _Tasks(composed.axes, composed.resources)
    used: set[str] = set()
    for combo in composed.combos:
        _expand(tasks, combo, combo.base, "", combo.points, used)
    for name, value in composed.resources.items():
        if isinstance(value, Mapping) and name not in used:
            raise UnknownName(
                f"resources.{name}: no task of this sweep is of the workload {name!r}; its workloads are {', '.join(sorted(used))}"
            )
    return Sweep(
        name=composed.name,
        target=composed.target.plugin_name(),
        axes=composed.axes,
        keys=tasks.keys,
        blocks=tasks.blocks,
        launcher=composed.launcher.to_plain(),
        command=composed.command,
        extra_targets=sorted(tasks.extra_targets),
        extra_points=sorted(tasks.extra_points & tasks.gone_on_from),
        yaml=composed.sweep,
        budget=composed.budget,
        site=composed.site,
        chosen=composed.chosen,
    )


def _expand(tasks: _Tasks, combo: Combo, base: Workload, path: str, points: Sequence[Point], used: set[str]) -> _Node:
    """Expand the workload at `path` and, before it, its inputs."""
    used.add(base.plugin_name())
    own = _own_axes(tasks.axes, path)
    paths = [_below(tasks.axes[i].path, path) for i in own]
    distinct = list(dict.fromkeys(map(_picker(own), points)))
    children = {}
    for name, value in base.inputs().items():
        below = f"{path}.{name}" if path else name
        node = _expand(tasks, combo, value, below, points, used)
        children[name] = (node, _picker([own.index(i) for i in _own_axes(tasks.axes, below)]))
    values = [list(tasks.axes[i].values) for i in own]
    return _Expansion(tasks, base, path, paths, values, distinct, children, _free_values(tasks.axes, _picker(own), points)).run()


def _own_axes(axes: Sequence[Axis], path: str) -> list[int]:
    """The axes that are settings of the workload at `path`, or of what stands below it."""
    return [i for i, axis in enumerate(axes) if not axis.is_group and not axis.is_free and _below(axis.path, path)]


def _free_values(axes: Sequence[Axis], pick: _Pick, points: Sequence[Point]) -> dict[str, dict[Point, Any]]:
    """Quantities that are no settings: their values at the points of one workload, where all points of the grid agree."""
    found: dict[str, dict[Point, Any]] = {}
    for i, axis in enumerate(axes):
        if axis.is_free:
            values: dict[Point, set[int]] = {}
            for point in points:
                values.setdefault(pick(point), set()).add(point[i])
            found[axis.path] = {own: axis.values[next(iter(ones))] if len(ones) == 1 else None for own, ones in values.items()}
    return found


@dataclass(slots=True)
class _Expansion:
    """All tasks of one workload at one place: a base, and the points at which a few settings differ.

    `is_point`: they are the grid's own and their inputs, not only what such a one goes on from.
    """

    tasks: _Tasks
    base: Workload
    path: str
    paths: list[str]
    values: list[list[Any]]
    points: list[Point]
    children: dict[str, tuple[_Node, _Pick]]
    free: dict[str, dict[Point, Any]]
    is_point: bool = True
    earlier: list[int | None] = field(default_factory=list)
    tree: Tree | None = None
    getters: dict[str, Callable[[Any], Any]] = field(default_factory=dict)

    def run(self) -> _Node:
        content = {path: self._content(data) for path, data in _data(self.base, "")}
        instances = self._instances()
        self.earlier = [self._earlier(instance, point) for instance, point in zip(instances, self.points)]
        keys = self._keys(content)
        return self._added(keys, instances, content)

    def _earlier(self, instance: Workload, point: Point) -> int | None:
        """Position of the task that this one goes on from, which is added before it; None where it begins anew."""
        earlier = instance.earlier()
        if earlier is None:
            return None
        content = {path: self._content(data) for path, data in _data(earlier, "")}
        key = identity.task_key(earlier, content, {})
        if key not in self.tasks.position:
            free: dict[str, dict[Point, Any]] = {name: {(): table[point]} for name, table in self.free.items()}
            one = _Expansion(self.tasks, earlier, self.path, [], [], [()], {}, free, is_point=False)
            one.earlier = [one._earlier(earlier, ())]
            one._added([key], [earlier], content)
        return self.tasks.position[key]

    def _content(self, data: Data) -> str:
        if data not in self.tasks.contents:
            self.tasks.contents[data] = data_content(data)
        return self.tasks.contents[data]

    # -- instances and keys: only what varies is made anew for each point ---------------------------------------------

    def _varying(self) -> dict[str, tuple[_Pick, dict[Point, Any]]]:
        """For each own field with axes at or below it: the axes of a point, and the field's value for each."""
        found = {}
        for name in dict.fromkeys(path.partition(".")[0] for path in self.paths):
            if name in self.children:
                continue
            axes = [i for i, path in enumerate(self.paths) if path.partition(".")[0] == name]
            pick = _picker(axes)
            found[name] = (pick, {part: self._field(name, axes, part) for part in dict.fromkeys(map(pick, self.points))})
        return found

    def _field(self, name: str, axes: list[int], part: Point) -> Any:
        value = getattr(self.base, name)
        for axis, index in zip(axes, part):
            below = tuple(self.paths[axis].split(".")[1:])
            new = self.values[axis][index]
            try:
                value = with_value(value, below, new) if below else new
            except ConfigError as error:
                raise ConfigError(f"{name}.{error} (at {self.paths[axis]}={new})") from None
        return value

    def _instances(self) -> list[Workload]:
        """The workload at each point; its fields were checked one by one, `check` sees them together."""
        cls, varying = type(self.base), self._varying()
        checks = cls.check is not Settings.check
        found = []
        for point in self.points:
            changes = {name: table[pick(point)] for name, (pick, table) in varying.items()}
            for name, (node, child_pick) in self.children.items():
                changes[name] = node.instance_of[child_pick(point)]
            instance = _changed(self.base, changes)
            if checks:
                self._check(instance, point)
            found.append(instance)
        return found

    def _check(self, instance: Workload, point: Point) -> None:
        try:
            instance.check()
        except ConfigError as error:
            at = " ".join(f"{path}={values[i]}" for path, values, i in zip(self.paths, self.values, point))
            raise ConfigError(f"{self.path + '.' if self.path else ''}{error} (at {at or 'these settings'})") from None

    def _keys(self, content: Mapping[str, str]) -> list[str]:
        cls: type = type(self.base)
        head, fields = identity.header(cls), identity.sorted_fields(cls)
        parts = ["" if one.name in self.children else identity.fragment(one, getattr(self.base, one.name), content) for one in fields]
        texts = self._texts(fields, content)
        inputs = [(i, f"{one.name}=task:", *self.children[one.name]) for i, one in enumerate(fields) if one.name in self.children]
        keys, all_keys = [], self.tasks.keys
        for point in self.points:
            for i, pick, table in texts:
                parts[i] = table[pick(point)]
            for i, prefix, node, pick in inputs:
                parts[i] = prefix + all_keys[node.index_of[pick(point)]]
            keys.append(identity.digest(identity.join(head, parts)))
        return keys

    def _texts(self, fields: Sequence[dataclasses.Field[Any]], content: Mapping[str, str]) -> list[tuple[int, _Pick, dict[Point, str]]]:
        """Fragments of the canonical text for the fields that vary; a data set with varying settings has content of its own."""
        found = []
        varying = self._varying()
        for i, one in enumerate(fields):
            if one.name in varying:
                pick, table = varying[one.name]
                texts = {part: identity.fragment(one, value, self._content_of(one.name, value, content)) for part, value in table.items()}
                found.append((i, pick, texts))
        return found

    def _content_of(self, name: str, value: Any, content: Mapping[str, str]) -> Mapping[str, str]:
        if isinstance(value, Settings):
            return {path: self._content(data) for path, data in _data_at(value, name)}
        return content

    # -- blocks -------------------------------------------------------------------------------------------------------

    def _added(self, keys: list[str], instances: list[Workload], content: dict[str, str]) -> _Node:
        """Append what is new to the sweep, as one block for each distinct content."""
        position, index_of, rows = self.tasks.position, {}, []
        for row, (key, point) in enumerate(zip(keys, self.points)):
            index = position.get(key)
            if index is None:
                index = position[key] = len(self.tasks.keys)
                self.tasks.keys.append(key)
                rows.append(row)
                if not self.is_point:
                    self.tasks.gone_on_from.add(index)
            elif self.is_point:
                (self.tasks.extra_points if self.path else self.tasks.extra_targets).add(index)
            index_of[point] = index
        if rows:
            self.tasks.blocks += self._blocks(rows, instances, content)
        return _Node(index_of, dict(zip(self.points, instances)))

    def _blocks(self, rows: list[int], instances: list[Workload], content: dict[str, str]) -> list[Block]:
        if not content or not any(path == place or path.startswith(f"{place}.") for path in self.paths for place in content):
            return [self._block(rows, instances, content)]
        contents = [{path: self._content(data) for path, data in _data(instances[row], "")} for row in rows]
        groups = itertools.groupby(range(len(rows)), contents.__getitem__)
        return [self._block([rows[i] for i in group], instances, own) for own, group in groups]

    def _block(self, rows: list[int], instances: list[Workload], content: dict[str, str]) -> Block:
        cls, points = type(self.base), [self.points[row] for row in rows]
        table, index = self._resources(rows, instances)
        seconds = self._seconds(rows, instances, [table[which] for which in index])
        columns = [list(column) for column in zip(*points)] if self.paths else []
        return Block(
            workload=cls.plugin_name(),
            version=cls.version,
            path=self.path,
            accepts_diverged=cls.accepts_diverged,
            settings=self.base.to_plain(),
            content=content,
            varying=self.paths,
            values=self.values,
            indices=columns,
            inputs=self._inputs(rows, points),
            is_point=self.is_point,
            resources=[one.to_plain() for one in table],
            resource_index=index if len(table) > 1 else [0],
            seconds=seconds if len(set(seconds)) > 1 else seconds[:1],
            size=len(rows),
            free={name: [table[point] for point in points] for name, table in self.free.items()},
        )

    def _inputs(self, rows: list[int], points: list[Point]) -> dict[str, list[int | None]]:
        found: dict[str, list[int | None]] = {}
        for name, (node, pick) in self.children.items():
            found[name] = [node.index_of[pick(point)] for point in points]
        earlier = [self.earlier[row] for row in rows]
        return found | ({EARLIER: earlier} if any(one is not None for one in earlier) else {})

    def _resources(self, rows: list[int], instances: list[Workload]) -> tuple[list[Resources], list[int]]:
        """Distinct resources and which of them each task has."""
        override = self._override()
        if type(self.base).resources is Workload.resources and not override:
            return [Resources()], [0] * len(rows)
        adapts = bool(override) and type(self.base).adapted is not Workload.adapted
        table: dict[Resources, int] = {}
        index = []
        for row in rows:
            needed = instances[row].resources()
            if override:
                needed = self._overridden(needed, override, instances[row])
            if adapts:
                given = {name: getattr(needed, name) for name in override}
                needed = dataclasses.replace(instances[row].adapted(needed), **given)
            index.append(table.setdefault(needed, len(table)))
        return list(table), index

    def _seconds(self, rows: list[int], instances: list[Workload], resources: Sequence[Resources]) -> list[float | None]:
        """What each task may take, to four digits."""
        estimates = type(self.base).estimate is not Workload.estimate
        found: list[float | None] = []
        for row, given in zip(rows, resources, strict=True):
            estimate = instances[row].estimate(given) if estimates else None
            seconds = estimate.seconds if estimate else instances[row].seconds_on(given)
            found.append(None if seconds is None else float(f"{seconds:.4g}"))
        return found

    def _override(self) -> dict[str, Any]:
        """The user's resources for this workload: a number, or a function of a lookup and the text it came from."""
        given = {name: value for name, value in self.tasks.resources.items() if not isinstance(value, Mapping)}
        given |= self.tasks.resources.get(self.base.plugin_name(), {})
        return {name: (expression.compiled(value), value) if isinstance(value, str) else value for name, value in given.items()}

    def _overridden(self, needed: Resources, override: Mapping[str, Any], instance: Workload) -> Resources:
        changes = {}
        for name, value in override.items():
            changes[name] = self._evaluated(name, value, instance) if isinstance(value, tuple) else value
        return dataclasses.replace(needed, **changes)

    def _evaluated(self, name: str, value: tuple[Callable[[Any], Any], str], instance: Workload) -> Any:
        function, text = value
        try:
            number = function(self._lookup(instance))
            whole = next(one.type for one in dataclasses.fields(Resources) if one.name == name) is int
            return round(number) if whole else number
        except UnknownName as error:
            workload = instance.plugin_name()
            raise UnknownName(f"resources.{name}: {error}; for one workload only, write resources.{workload}.{name}") from None
        except (ArithmeticError, TypeError, ValueError) as error:
            raise ConfigError(f"resources.{name}: cannot work out {text!r} for {instance.plugin_name()} ({error})") from None

    def _lookup(self, instance: Workload) -> Callable[[str], Any]:
        def lookup(name: str) -> Any:
            if name not in self.getters:
                self.tree = self.tree or Tree(type(self.base), dict(_chosen(self.base, "")))
                self.getters[name] = operator.attrgetter(self.tree.resolve(name).path)
            return self.getters[name](instance)

        return lookup


def _picker(axes: list[int]) -> _Pick:
    """The indices of some axes of a point."""
    if len(axes) > 1:
        return operator.itemgetter(*axes)
    if axes:
        (only,) = axes
        return lambda point: (point[only],)
    return lambda point: ()


def _changed(base: Workload, changes: Mapping[str, Any]) -> Workload:
    """A copy with checked values in place, without checking all fields again."""
    if not hasattr(base, "__dict__"):
        return dataclasses.replace(base, **changes)
    new: Workload = object.__new__(type(base))
    new.__dict__.update(base.__dict__)
    new.__dict__.update(changes)
    return new


def _data(settings: Settings, path: str) -> list[tuple[str, Data]]:
    """The data sets among a workload's own settings, by path; those of its inputs enter through the inputs' keys."""
    found = []
    for one, _, _ in _fields(type(settings)):
        value = getattr(settings, one.name)
        if isinstance(value, Settings) and not isinstance(value, Workload):
            found += _data_at(value, f"{path}{one.name}")
    return found


def _data_at(value: Settings, path: str) -> list[tuple[str, Data]]:
    own = [(path, value)] if isinstance(value, Data) else []
    return own + _data(value, f"{path}.")


def _chosen(settings: Settings, path: str) -> list[tuple[str, str]]:
    """The plug-ins that stand in an instance, by path."""
    found = []
    for one, _, _ in _fields(type(settings)):
        value = getattr(settings, one.name)
        if isinstance(value, Settings):
            found.append((f"{path}{one.name}", getattr(type(value), "plugin_name", lambda: "")()))
            found += _chosen(value, f"{path}{one.name}.")
    return [(place, name) for place, name in found if name]
