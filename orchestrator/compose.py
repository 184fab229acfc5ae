"""From the command line and the configs to typed settings: one base a combination of swept plug-ins, and the axes of the grid."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator import axes as axes_of
from orchestrator import confdirs, derive, expression, grid
from orchestrator.chosen import Choices
from orchestrator.composed import Combo, Composed, instance_of
from orchestrator.cost import checked_budget
from orchestrator.derive import Place, Rule
from orchestrator.grid import Axis, Point
from orchestrator.hydra_configs import Composer, group_of
from orchestrator.names import first_choices, is_reserved, option_names, setting_names, target_of
from orchestrator.overrides import Override, axis_values, parse
from orchestrator.paths import Setting, Tree
from orchestrator.placement import (
    RESERVED,
    choices_in,
    default_of,
    drop_absent,
    nest,
    place_of,
    places,
    put,
    resolved,
    rooted,
    strongest,
    taken_out,
    undotted,
)
from orchestrator.sites import with_launcher
from workers import plugins
from workers.errors import ConfigError, UnknownName, nearest
from workers.settings import _fields
from workers.workload import Workload

__all__ = ["RESERVED", "Combo", "Composed", "compose", "option_names", "setting_names"]

_SWEEP_KEYS = ("workload", "grid", "derive", "zip", "filter", "sizes")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(slots=True)
class _Given:
    """The command line, sorted: reserved words, plug-in choices and other settings."""

    reserved: dict[str, Override] = field(default_factory=dict)
    choices: dict[str, str] = field(default_factory=dict)
    settings: list[Override] = field(default_factory=list)


@dataclass(slots=True)
class _Axes:
    """Axes while they are collected: full path, or a name that is no setting (`free`) -> values as written; and the derived ones."""

    values: dict[str, list[Any]] = field(default_factory=dict)
    free: set[str] = field(default_factory=set)
    rules: list[Rule] = field(default_factory=list)
    zips: list[list[str]] = field(default_factory=list)
    filter: str = ""


def compose(overrides: Sequence[str], config_dirs: Sequence[Path] = (), *, choices: Choices | None = None) -> Composed:
    """Typed settings, axes and the rest from words in Hydra's grammar; ConfigError or UnknownName, before anything is written.

    `choices`: what derived settings choose from the results of other sweeps; None: there is no store to read them from.
    """
    dirs = confdirs.search_path(config_dirs)
    words = parse(overrides)
    reserved = {word.key: word for word in words if is_reserved(word.key)}
    sweep, size = one_word(reserved, "sweep"), one_word(reserved, "size")
    target, preset = target_of(one_word(reserved, "workload"), sweep, dirs)
    file = confdirs.find("sweep", sweep, dirs) if sweep else None
    tree = Tree(target, first_choices(words, target, confdirs.chosen_in(file, dirs) if file else {}))
    _refuse_reserved_fields(target)
    given = _Given(reserved=reserved, settings=[word for word in words if not is_reserved(word.key)])
    composer = Composer(
        dirs=dirs, tree=tree, launcher=one_word(reserved, "launcher"), site=one_word(reserved, "site"), sweep=sweep, preset=preset
    )
    if composer.site:
        confdirs.require("site", composer.site, dirs)
    return _Composition(composer, given, size, list(overrides), target, choices or Choices()).composed()


class _Composition:
    """The state of one call of `compose`."""

    def __init__(self, composer: Composer, given: _Given, size: str, command: list[str], target: type[Workload], choices: Choices) -> None:
        self.composer, self.given, self.size, self.command, self.target = composer, given, size, command, target
        self.choices = choices
        self.tree = composer.tree
        self.fixed_choices: dict[str, str] = {}
        self.axes = _Axes()
        self.fixed: list[Override] = []
        self.swept: dict[str, list[Any]] = {}
        self.deleted: dict[str, Override] = {}
        self.unknown: dict[str, UnknownName] = {}
        self.filtered: set[str] = set()
        self.first: tuple[dict[str, str], Any] | None = None
        self._sort_words()

    def composed(self) -> Composed:
        first = self._config({key: values[0] for key, values in self._swept_groups().items()})
        section = self._section(first)
        self._collect_axes(section)
        combos = self._combos()
        given = list(axes_of.typed_axes(self.axes.values, self.axes.free, self.tree, [tree for _, tree, _ in combos]))
        axes = grid.named(
            [*given, *(Axis(rule.path, rule.path, "", (), is_free=rule.is_free, formula=rule.text) for rule in self.axes.rules)]
        )
        zips = [[grid.find(path, axes).path for path in paths] for paths in self.axes.zips]
        if self.axes.rules or self.axes.free:
            axes, points = self._derived(combos, axes, grid.points(axes[: len(given)], zips))
        else:
            points = grid.points(axes, zips, self.axes.filter)
        built = self._built(combos, axes, points)
        body = combos[0][2]
        return Composed(
            target=self.target,
            name=_checked_name(body.get("name") or self.composer.sweep.rpartition("/")[2]),
            sweep=self.composer.sweep or None,
            size=self.size or None,
            root=Path(str(body["root"])) if body.get("root") else None,
            combos=built,
            axes=axes,
            zips=zips,
            filter=self.axes.filter,
            launcher=_launcher(body["launcher"]),
            site=_mapping(body, "site"),
            budget=checked_budget(_mapping(body, "budget")),
            resources=expression.checked_resources(_mapping(body, "resources")),
            command=self.command,
            chosen=self.choices.records(),
            notes=self.choices.notes,
        )

    def _derived(self, combos: list[tuple[dict[str, str], Tree, dict[str, Any]]], axes: list[Axis], points: list[Point]) -> Any:
        """Axes and points with what follows from them."""
        places = [Place(tree, body["settings"], axes_of.own_points(options, axes, points)) for options, tree, body in combos]
        calls = {"best": self.choices.best}
        return derive.derived(places, axes, self.axes.rules, points, self.axes.filter, calls)

    def _sort_words(self) -> None:
        """Settings of the command line into choices, axes, fixed values and deletions, by their full path."""
        seen: dict[str, str] = {}
        for word in self.given.settings:
            try:
                setting = self._setting(word.key)
            except UnknownName as error:
                self._take_unknown(word, error)
                continue
            if setting.path in seen:
                raise ConfigError(f"{word.line!r} and {seen[setting.path]!r} set the same {setting.path}; keep one of the two")
            seen[setting.path] = word.line
            values = self._glob(word, setting) if word.glob is not None else word.values
            if word.delete:
                self.deleted[setting.path] = word
            elif values is not None:
                self.swept[setting.path] = list(values)
            elif setting.is_plugin:
                self.fixed_choices[group_of(setting, self.tree).key] = _option(setting, word.value)
                self.swept[setting.path] = [word.value]
            elif setting.is_leaf:
                self.fixed.append(word)
            else:
                raise ConfigError(f"{setting.path} holds settings, not a value; set one of them, as in {setting.path}.NAME=...")

    def _take_unknown(self, word: Override, error: UnknownName) -> None:
        """What names no setting is perhaps a quantity that settings are derived from."""
        self.unknown[word.key] = error
        if word.delete:
            self.deleted[word.key] = word
        else:
            self.swept[word.key] = [word.value] if word.values is None else list(word.values)

    def _glob(self, word: Override, setting: Setting) -> list[str]:
        if not setting.is_plugin:
            raise ConfigError(f"{word.line!r}: glob(...) chooses among plug-ins; {setting.path} takes values")
        known = confdirs.option_names(setting.group, setting.declared.group, setting.declared.package, self.composer.dirs)
        return list(word.glob.filter(known))

    def _setting(self, key: str) -> Setting:
        """The setting of a key; `model@teacher` in Hydra's way is `teacher`."""
        return self.tree.resolve(key.rpartition("@")[2])

    def _swept_groups(self) -> dict[str, list[str]]:
        """Group key -> names, for the axes known so far."""
        found = {}
        for path, values in (self.axes.values | self.swept).items():
            setting = self.tree.settings.get(path)
            if setting is not None and setting.is_plugin:
                found[group_of(setting, self.tree).key] = [_option(setting, value) for value in values] or ["???"]
        return found

    # -- one composition --------------------------------------------------------------------------------------------

    def _config(self, choices: Mapping[str, str]) -> Any:
        """Hydra's composition with the size's overlay and the reserved words of the command line; the first is used twice."""
        if self.first and self.first[0] == choices:
            return self.first[1]
        cfg = self._composed_config(choices)
        self.first = self.first or (dict(choices), cfg)
        return cfg

    def _composed_config(self, choices: Mapping[str, str]) -> Any:
        from omegaconf import OmegaConf

        cfg = self.composer.compose({key: name for key, name in choices.items() if name != "???"})
        cfg = undotted(self._with_size(undotted(cfg)))
        cfg = with_launcher(cfg, site=self.composer.site, launcher=self.composer.launcher)
        self._refuse_bare_names(cfg)
        for word in self.given.reserved.values():
            if "." not in word.key and word.key in ("sweep", "launcher", "site", "workload", "size"):
                continue
            if word.key.startswith("site."):
                raise ConfigError(f"{word.line!r}: a site is chosen whole; its settings are the launcher's: launcher.{word.line[5:]}")
            if word.key.startswith("sweep."):
                self._set_sweep(cfg, word)
            elif word.delete:
                taken_out(cfg, word)
            else:
                OmegaConf.update(cfg, word.key, _fixed_value(word), force_add=True)
        return cfg

    def _refuse_bare_names(self, cfg: Any) -> None:
        """A file chooses a plug-in in its defaults list; `model: cnn` among its values would replace the settings there."""
        for setting in self.tree.settings.values():
            if setting.is_plugin and isinstance(cfg.get(group_of(setting, self.tree).package), str):
                group = group_of(setting, self.tree)
                chosen = cfg[group.package]
                raise ConfigError(
                    f"{group.package}: {chosen} in a file: choose it in the defaults list, as `- override /{group.key}: {chosen}`"
                )

    def _with_size(self, cfg: Any) -> Any:
        from omegaconf import OmegaConf

        section = cfg.get("sweep") or {}
        if not isinstance(section, Mapping) and not OmegaConf.is_dict(section):
            raise ConfigError(f"`sweep:` must hold {', '.join(_SWEEP_KEYS)}, it is {section!r}")
        sizes = section.get("sizes") or {}
        if not self.size:
            return cfg
        if self.size not in sizes:
            where = self.composer.sweep or "the command line"
            raise UnknownName(f"no size {self.size!r} in {where}{nearest(self.size, sizes)} There are: {', '.join(sizes) or 'none'}")
        overlay = sizes[self.size]
        replaced = OmegaConf.select(overlay, "sweep.grid") or {}
        for path in list(OmegaConf.select(cfg, "sweep.grid") or {}):
            if path in replaced:
                del cfg.sweep.grid[path]
        return OmegaConf.merge(cfg, overlay)

    def _set_sweep(self, cfg: Any, word: Override) -> None:
        """`sweep.filter=...`, `sweep.zip=[[a,b]]`, `sweep.grid.PATH=[...]`, `sweep.derive.PATH=...` and `~sweep.grid.PATH`."""
        from omegaconf import OmegaConf

        _, key, *rest = word.key.split(".")
        if key not in _SWEEP_KEYS:
            raise UnknownName(f"no {word.key!r}{nearest(key, _SWEEP_KEYS)} `sweep.` has {', '.join(_SWEEP_KEYS)}")
        section = OmegaConf.to_container(cfg.get("sweep") or OmegaConf.create({}), resolve=False)
        assert isinstance(section, dict)
        if key == "filter":
            # lines of `derive` that the filter in the file names are none the less columns
            self.filtered |= grid.words(str(section.get("filter") or ""))
        if key not in ("grid", "derive") or not rest:
            section[key] = None if word.delete else _fixed_value(word)
        else:
            path = ".".join(rest)
            lines = section.get(key) or {}
            section[key] = {name: values for name, values in lines.items() if self._full(name) != self._full(path)}
            if word.delete and len(section[key]) == len(lines):
                what = "the grid has no axis" if key == "grid" else "sweep.derive has no"
                raise ConfigError(f"{word.line!r}: {what} {path!r}; it has {', '.join(lines) or 'none'}")
            if not word.delete:
                section[key][path] = list(word.values) if word.values is not None else word.value
        cfg["sweep"] = section

    def _full(self, name: str) -> str:
        """The full path of a setting; a name that is none stays."""
        return self.tree.resolve(name).path if self._known(name) else name

    # -- axes -------------------------------------------------------------------------------------------------------

    def _section(self, cfg: Any) -> dict[str, Any]:
        from omegaconf import OmegaConf

        section = resolved(cfg.get("sweep") or OmegaConf.create({}))
        for key in section:
            if key not in _SWEEP_KEYS:
                raise UnknownName(f"no setting 'sweep.{key}'{nearest(key, _SWEEP_KEYS)} `sweep:` has {', '.join(_SWEEP_KEYS)}")
        return section

    def _collect_axes(self, section: dict[str, Any]) -> None:
        """Axes of the file, then of the command line, which replace the file's in place."""
        given = section.get("filter")
        if given is not None and not isinstance(given, str):
            raise ConfigError(f"sweep.filter must be a text, an SQL condition such as 'width < 64', got {given!r}")
        self.axes.filter = given or ""
        rules = dict(axes_of.flat_axes(section.get("derive") or {}, where="derive"))
        used = derive.used_names(rules, self.axes.filter if rules else "") | self.filtered
        for name, values in axes_of.flat_axes(section.get("grid") or {}):
            path = self._path(name, section, used)
            if path in self.axes.values:
                raise ConfigError(f"axis {path} is given twice, the second time as {name!r}; keep one of the two")
            self.axes.values[path] = axis_values(path, values)
        self._refuse_unknown(used)
        for path in list(self.axes.values):
            if path in self.deleted:
                del self.axes.values[path]
        self._collect_rules(rules, section, used)
        fixed = {path for path in self.swept if self._is_fixed_choice(path)}
        for path, values in self.swept.items():
            if path in self.axes.values or path not in fixed:
                self.axes.values[path] = values
        for word in self.fixed:
            path = self._setting(word.key).path
            if path in self.axes.values:
                self.axes.values[path] = [word.value]
        self.axes.zips = axes_of.zip_lists(section.get("zip"))

    def _path(self, name: str, section: dict[str, Any], used: set[str]) -> str:
        """The full path of an axis or a rule, or its name where that is no setting but one that expressions use."""
        if self._known(name):
            return self.tree.resolve(name).path
        try:
            return self._late_setting(name, section).path
        except UnknownName:
            if name not in used:
                raise
        self.axes.free.add(derive.not_counted(name, self.tree))
        return name

    def _refuse_unknown(self, used: set[str]) -> None:
        """Words of the command line that name no setting must be used by expressions."""
        for name, error in self.unknown.items():
            if name not in used:
                raise error
            self.axes.free.add(derive.not_counted(name, self.tree))

    def _collect_rules(self, rules: Mapping[str, Any], section: dict[str, Any], used: set[str]) -> None:
        """Derived settings, but those that the command line gives a value or takes away."""
        fixed = {self._setting(word.key).path for word in self.fixed}
        for name, text in rules.items():
            path = self._path(name, section, used)
            if path in self.axes.values and path not in self.swept:
                raise ConfigError(f"{path} is both an axis and derived; keep one of the two")
            if path in fixed:
                # an axis of that one value, which the filter may name like the rule's; it is set with the other fixed words
                self.axes.values[path] = []
            elif path not in self.swept.keys() | self.deleted.keys():
                self.axes.rules.append(Rule(path, derive.checked_text(name, text), path in self.axes.free))

    def _is_fixed_choice(self, path: str) -> bool:
        setting = self.tree.settings.get(path)
        return setting is not None and setting.is_plugin and group_of(setting, self.tree).key in self.fixed_choices

    def _known(self, name: str) -> bool:
        try:
            self.tree.resolve(name)
        except UnknownName:
            return False
        return True

    def _late_setting(self, name: str, section: dict[str, Any]) -> Setting:
        """A setting of a plug-in that the same grid, or the file's defaults list, chooses."""
        choices = {}
        for other, values in axes_of.flat_axes(section.get("grid") or {}):
            if self._known(other) and (setting := self.tree.resolve(other)).is_plugin:
                choices[setting.path] = str(axis_values(other, values)[0])
        return Tree(self.target, self._choices_of_config() | choices).resolve(name)

    def _choices_of_config(self) -> dict[str, str]:
        cfg = self._config({key: values[0] for key, values in self._swept_groups().items()})
        return choices_in(cfg, self.tree)

    def _combos(self) -> list[tuple[dict[str, str], Tree, dict[str, Any]]]:
        """For each combination of swept plug-ins: its choices by path, its tree, and its resolved config."""
        import itertools

        swept = {
            path: values for path, values in self.axes.values.items() if path in self.tree.settings and self.tree.settings[path].is_plugin
        }
        keys = {path: group_of(self.tree.settings[path], self.tree).key for path in swept}
        found = []
        for names in itertools.product(*swept.values()):
            options = dict(zip(swept, names))
            choices = {keys[path]: _option(self.tree.settings[path], name) for path, name in options.items()}
            cfg = self._config({**self.fixed_choices, **choices})
            tree = Tree(self.target, choices_in(cfg, self.tree))
            drop_absent(cfg, self.tree, tree, chosen=self.swept)
            found.append((options, tree, self._values(cfg, tree)))
        if not found:
            empty = next(path for path, values in swept.items() if not values)
            raise ConfigError(f"axis {empty} has no values, so the grid is empty; give it at least one")
        return found

    def _values(self, cfg: Any, tree: Tree) -> dict[str, Any]:
        """The config with every setting at its full path, interpolations resolved and the swept left out."""
        from omegaconf import OmegaConf

        written = places(cfg, tree)
        for path, values in written.items():
            raw = strongest(path, values, tree)
            for place in values:
                put(cfg, place, raw)
        for word in self.fixed:
            path = tree.resolve(word.key).path
            for place in written.get(path) or [place_of(path, tree)]:
                put(cfg, place, word.value)
        for path in self.deleted:
            self._delete_setting(cfg, tree, path, written)
        for path in [*self.axes.values, *(rule.path for rule in self.axes.rules)]:
            if path not in self.axes.free and (path not in tree.settings or tree.settings[path].is_leaf):
                for place in written.get(tree.resolve(path).path) or [place_of(path, tree)]:
                    put(cfg, place, "???")
        plain = resolved(
            OmegaConf.create({key: value for key, value in cfg.items_ex(resolve=False) if key != "sweep"}), set(self.axes.values)
        )
        return rooted(plain, tree)

    def _delete_setting(self, cfg: Any, tree: Tree, path: str, written: dict[str, dict[str, Any]]) -> None:
        """`~key`: back to the default of its class."""
        setting = tree.settings.get(path)
        if setting is None or setting.is_plugin:
            return
        for place in written.get(path, {}):
            put(cfg, place, default_of(setting))

    def _built(self, combos: list[tuple[dict[str, str], Tree, dict[str, Any]]], axes: list[Axis], points: list[Point]) -> list[Combo]:
        """Combos that have points, each with its workload at its first point."""
        found = []
        for options, tree, body in combos:
            own = axes_of.own_points(options, axes, points)
            if not own:
                continue
            nested = body["settings"]
            for axis, index in zip(axes, own[0]):
                if not axis.is_group and not axis.is_free:
                    nest(nested, axis.path, axis.values[index])
            found.append(Combo(choices=options, base=instance_of(self.target, nested), tree=tree, points=own))
        return found


# -- pieces -----------------------------------------------------------------------------------------------------------


def one_word(reserved: Mapping[str, Override], key: str) -> str:
    """The one value of a reserved word; empty where it is not given."""
    word = reserved.get(key)
    if word is None or word.delete:
        return ""
    if word.values is not None or not isinstance(word.value, str | int | float) or isinstance(word.value, bool):
        raise ConfigError(f"{key}= takes one name, got {word.line!r}")
    return str(word.value)


def _fixed_value(word: Override) -> Any:
    if word.values is not None:
        raise ConfigError(f"{word.line!r}: {word.key} cannot be swept; give one value")
    return word.value


def _refuse_reserved_fields(target: type[Workload]) -> None:
    for one, _, _ in _fields(target):
        if one.name in RESERVED:
            raise ConfigError(f"{target.__name__}.{one.name}: {one.name!r} is a reserved word at the root of a config; rename the field")


def _option(setting: Setting, value: Any) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"{setting.path} takes the name of a {setting.group}, got {value!r}")
    return value


def _checked_name(name: Any) -> str:
    if name and not _NAME.fullmatch(str(name)):
        raise ConfigError(f"name={name!r} must be letters, digits, '_', '-' and '.', and begin with a letter or digit: it names a folder")
    return str(name)


def _launcher(values: Any) -> Any:
    if not isinstance(values, Mapping) or "name" not in values:
        raise ConfigError(f"`launcher` must hold the settings of a launcher and its name, got {values!r}; choose one with launcher=NAME")
    return plugins.load("launchers", str(values["name"]), "orchestrator").from_plain(
        {k: v for k, v in values.items() if v != "???"}, "launcher"
    )


def _mapping(body: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = body.get(key) or {}
    if not isinstance(value, Mapping):
        raise ConfigError(f"`{key}` must hold keys and values, got {value!r}")
    return dict(value)
