"""Derived settings: values that follow from others, worked out at every point of a grid on the login node."""

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator import expression, grid
from orchestrator.axes import refuse_as_axis
from orchestrator.expression import Call
from orchestrator.grid import Axis, Point
from orchestrator.paths import Setting, Tree
from orchestrator.placement import nest
from workers.errors import ConfigError, UnknownName, nearest
from workers.settings import _coerce, _from_plain
from workers.workload import Workload


@dataclass(frozen=True, slots=True)
class Rule:
    """How one value follows: the full path of its setting, or the name of a quantity that is none, and its expression."""

    path: str
    text: str
    is_free: bool


@dataclass(frozen=True, slots=True)
class Place:
    """One combination of swept plug-ins: its settings as plain values nested by full path, and its points."""

    tree: Tree
    settings: dict[str, Any]
    points: list[Point]


def used_names(rules: Mapping[str, Any], filter: str = "") -> set[str]:
    """Names that the expressions and the filter of a sweep hold; ConfigError for a rule that is no expression."""
    found = {name for path, text in rules.items() for name in expression.names(checked_text(path, text))}
    return found | grid.words(filter)


def checked_text(path: str, text: Any) -> str:
    """The expression of a rule; a number is one too."""
    if isinstance(text, bool) or not isinstance(text, str | int | float):
        raise ConfigError(f"sweep.derive.{path} must be an expression, such as 'flops / (6 * num_params * units_per_step)', got {text!r}")
    return str(text)


def derived(
    places: Sequence[Place],
    axes: Sequence[Axis],
    rules: Sequence[Rule],
    points: list[Point],
    filter: str,
    calls: Mapping[str, Call],
) -> tuple[list[Axis], list[Point]]:
    """The axes with those of the rules after them, and the points, those that the filter keeps, with an index for each.

    `axes`: the grid's, then one without values for each rule. Raises ConfigError, which says at which point, for a value that cannot be
    worked out or that its setting does not allow.
    """
    num_given = len(axes) - len(rules)
    early = not grid.words(filter) & {name for axis in axes[num_given:] for name in (axis.name, *axis.path.split("."))}
    if filter and early:
        points = grid.filtered(axes[:num_given], points, filter)
    values = _values(places, axes[:num_given], rules, points, calls)
    tables = [list(dict.fromkeys(values[point][i] for point in points)) for i in range(len(rules))]
    found = [(*point, *(tables[i].index(value) for i, value in enumerate(values[point]))) for point in points]
    every = [*axes[:num_given], *(replace(axis, values=tuple(table)) for axis, table in zip(axes[num_given:], tables))]
    if filter and not early:
        found = grid.filtered(every, found, filter)
    typed = [_checked(axis, places, every, found, i) for i, axis in enumerate(every)]
    _refuse_alike(typed, found)
    return typed, found


def _values(
    places: Sequence[Place], axes: Sequence[Axis], rules: Sequence[Rule], points: Sequence[Point], calls: Mapping[str, Call]
) -> dict[Point, list[Any]]:
    """For each point the value of each rule, rounded to its type and not yet checked."""
    compiled = {rule.path: expression.compiled(rule.text, calls) for rule in rules}
    wanted = set(points)
    return {
        point: values
        for place in places
        for evaluation in [_Evaluation(place, axes, rules, compiled)]
        for point in place.points
        if point in wanted
        for values in [evaluation.at(point)]
    }


@dataclass(slots=True)
class _Evaluation:
    """The rules at the points of one place. What names mean, and plug-ins that were made, are kept from point to point."""

    place: Place
    axes: Sequence[Axis]
    rules: Sequence[Rule]
    compiled: Mapping[str, Callable[[Any], Any]]
    meanings: dict[str, Callable[[], Any]] = field(default_factory=dict)
    made: dict[tuple[Any, ...], Any] = field(default_factory=dict)
    point: Point = ()
    known: dict[str, Any] = field(default_factory=dict)
    pending: list[str] = field(default_factory=list)

    def at(self, point: Point) -> list[Any]:
        """The values of the rules at a point."""
        self.point, self.known, self.pending = point, {}, []
        return [self._of_rule(rule) for rule in self.rules]

    def _of_rule(self, rule: Rule) -> Any:
        if rule.path in self.pending:
            circle = " -> ".join([*self.pending[self.pending.index(rule.path) :], rule.path])
            raise ConfigError(f"sweep.derive: {circle} follow from each other in a circle; give one of them as an axis or a value")
        if rule.path not in self.known:
            self.pending.append(rule.path)
            self.known[rule.path] = self._worked_out(rule)
            self.pending.pop()
        return self.known[rule.path]

    def _worked_out(self, rule: Rule) -> Any:
        try:
            value = self.compiled[rule.path](self._lookup)
        except UnknownName as error:
            if str(error).startswith("sweep.derive."):
                raise
            raise UnknownName(f"sweep.derive.{rule.path}: {error}") from None
        except ConfigError:
            raise
        except (ArithmeticError, TypeError, ValueError) as error:
            raise ConfigError(f"{rule.path}: cannot work out {rule.text!r} at {self._words()} ({error})") from None
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{rule.path}: {rule.text!r} gives {value} at {self._words()}; it must be finite")
        return value if rule.is_free else _rounded(self.place.tree.resolve(rule.path), value)

    def _words(self) -> str:
        return words(self.axes, self.point)

    # -- names --------------------------------------------------------------------------------------------------------

    def _lookup(self, name: str) -> Any:
        if name not in self.meanings:
            self.meanings[name] = self._meaning(name)
        return self.meanings[name]()

    def _meaning(self, name: str) -> Callable[[], Any]:
        """A quantity or axis of that name, else a setting, else what a workload counts of itself."""
        for rule in self.rules:
            if rule.is_free and rule.path == name:
                return lambda: self._of_rule(rule)
        for axis in self.axes:
            if name in (axis.path, axis.name):
                return self._getter(axis.path)
        try:
            return self._of_setting(self.place.tree.resolve(name))
        except UnknownName:
            pass
        counted = dict(_counted(self.place.tree))
        found = [path for path in counted if path == name or path.endswith(f".{name}")]
        if len(found) == 1:
            return lambda: self._quantity(found[0], counted[found[0]])
        if found:
            raise ConfigError(f"{name!r} is ambiguous: it may be {' or '.join(sorted(found))}; write more of the path")
        ends = sorted({path.rpartition(".")[2] for path in counted})
        known = [*(axis.name for axis in self.axes), *(rule.path for rule in self.rules if rule.is_free), *ends, *self.place.tree.names()]
        raise UnknownName(f"no axis, quantity or setting {name!r}{nearest(name, known)} There are {', '.join(dict.fromkeys(known))}")

    def _of_setting(self, setting: Setting) -> Callable[[], Any]:
        if not setting.is_leaf and not setting.is_plugin:
            raise ConfigError(f"{setting.path} holds settings, not a value; an expression names one of them")
        return self._getter(setting.path)

    def _getter(self, path: str) -> Callable[[], Any]:
        """The value at a full path: of an axis, of a rule, or as it is for the whole place."""
        for i, axis in enumerate(self.axes):
            if axis.path == path:
                return lambda: axis.values[self.point[i]]
        for rule in self.rules:
            if rule.path == path:
                return lambda: self._of_rule(rule)
        value = self._fixed(self.place.tree.resolve(path))
        return lambda: value

    def _fixed(self, setting: Setting) -> Any:
        node: Any = self.place.settings
        for part in setting.path.split("."):
            node = node.get(part, _MISSING) if isinstance(node, Mapping) else _MISSING
        if node is _MISSING:
            raise ConfigError(
                f"{setting.path} has no value that {', '.join(rule.path for rule in self.rules)} could follow from; give it one"
            )
        return node.get("name") if setting.is_plugin and isinstance(node, Mapping) else setting.coerce(node)

    # -- what a workload counts of itself -----------------------------------------------------------------------------

    def _quantity(self, path: str, cls: type[Workload]) -> float:
        above, _, name = path.rpartition(".")
        fields = {one: f"{above}.{one}" if above else one for one in cls.quantities[name]}
        key = (path, *(self._varying_below(full) for full in fields.values()))
        if key not in self.made:
            self.made[key] = cls.quantity(name, **{one: self._value(full) for one, full in fields.items()})
        return self.made[key]  # type: ignore[no-any-return]

    def _value(self, path: str) -> Any:
        """A leaf's value, or a plug-in made of the settings at this point."""
        setting = self.place.tree.resolve(path)
        if setting.is_leaf:
            return self._getter(path)()
        key = (path, self._varying_below(path))
        if key not in self.made:
            body = copy.deepcopy(self.place.settings)
            for one, value in self._varying_below(path):
                nest(body, one, value)
            for part in path.split("."):
                body = body[part]
            self.made[key] = _from_plain(body, setting.declared, path)
        return self.made[key]

    def _varying_below(self, path: str) -> tuple[tuple[str, Any], ...]:
        """The axes and rules at or below a path, with their values here."""
        varying = [axis.path for axis in self.axes if not axis.is_group] + [rule.path for rule in self.rules if not rule.is_free]
        return tuple((one, self._getter(one)()) for one in varying if one == path or one.startswith(f"{path}."))


_MISSING = object()


def _counted(tree: Tree) -> Iterator[tuple[str, type[Workload]]]:
    """Full path of each quantity, with the workload that counts it."""
    places = [("", tree.target), *((path, one.cls) for path, one in tree.settings.items())]
    for path, cls in places:
        if cls is not None and issubclass(cls, Workload):
            yield from ((f"{path}.{name}" if path else name, cls) for name in cls.quantities)


def quantity_names(tree: Tree) -> list[str]:
    """Last parts of the names of what the workloads of a tree count of themselves."""
    return sorted({path.rpartition(".")[2] for path, _ in _counted(tree)})


def not_counted(name: str, tree: Tree) -> str:
    """The name of a quantity that is no setting; ConfigError for one that a workload counts of itself."""
    if name.rpartition(".")[2] in quantity_names(tree):
        raise ConfigError(f"{name} is counted from the settings, so that it cannot be given a value; give it to what it follows from")
    return name


def _rounded(setting: Setting, value: Any) -> Any:
    """In the setting's type where that loses no more than a rounding; what does not fit is left as it is, for a later error."""
    if setting.declared is int and isinstance(value, float):
        return round(value)
    if isinstance(value, list):
        return tuple(value)
    try:
        return _coerce(value, setting.declared, setting.optional, setting.field.name)
    except ConfigError:
        return value


def words(axes: Sequence[Axis], point: Point) -> str:
    """A point in words."""
    return ", ".join(f"{axis.name}={axis.values[i]}" for axis, i in zip(axes, point)) or "these settings"


def _checked(axis: Axis, places: Sequence[Place], axes: Sequence[Axis], points: Sequence[Point], i: int) -> Axis:
    """The axis of a rule with values that its setting allows, and its type."""
    if not axis.formula:
        return axis
    if axis.is_free:
        return replace(axis, type=grid.free_type(axis.path, axis.values))
    setting = refuse_as_axis(places[0].tree.resolve(axis.path))
    used = {point[i]: point for point in reversed(points)}
    for index, point in used.items():
        try:
            setting.coerce(axis.values[index])
        except ConfigError as error:
            given = [one for one in axes if not one.formula]
            raise ConfigError(f"{error}: it follows from {axis.formula!r} at {words(given, point[: len(given)])}") from None
    return replace(axis, type=setting.type_name)


def _refuse_alike(axes: Sequence[Axis], points: Sequence[Point]) -> None:
    """ConfigError for two points that are one task, since quantities that are no settings alone tell them apart."""
    own = [i for i, axis in enumerate(axes) if not axis.is_free]
    seen: dict[tuple[Any, ...], Point] = {}
    for point in points:
        settings = tuple(axes[i].values[point[i]] for i in own)
        if settings in seen:
            given = [axis for axis in axes if not axis.formula]
            one, other = (words(given, each[: len(given)]) for each in (seen[settings], point))
            same = ", ".join(f"{axis.name}={axis.values[i]}" for axis, i in zip(axes, point) if axis.formula and not axis.is_free)
            raise ConfigError(
                f"two points of the grid are one task: {one}, and {other}, both with {same or 'equal settings'}; filter one out, or give "
                "one value to what no setting follows from"
            )
        seen[settings] = point
