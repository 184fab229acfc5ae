"""What words name before Hydra is loaded: the target, its plug-ins and, for completion, what may follow."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from orchestrator import confdirs
from orchestrator.overrides import Override
from orchestrator.paths import Tree
from orchestrator.placement import RESERVED, is_plugin
from orchestrator.sites import LOCAL, ON_A_SITE
from workers import plugins
from workers.errors import ConfigError
from workers.settings import _fields
from workers.workload import Workload


def is_reserved(key: str) -> bool:
    """Whether a word is no setting of the target."""
    return key.partition(".")[0].partition("@")[0] in RESERVED or key == "workload"


def target_of(workload: str, sweep: str, dirs: Sequence[Path]) -> tuple[type[Workload], str]:
    """The workload's class, and the name of a YAML in conf/workload that presets it, if any."""
    file = confdirs.require("sweep", sweep, dirs) if sweep else None
    name = workload or (confdirs.workload_of(file, dirs) if file else "")
    if not name:
        if file:
            raise ConfigError(f"{file} names no workload; write `workload: train` in it, or add workload=train")
        known, sweeps = ", ".join(plugins.names("workloads")), ", ".join(confdirs.names("sweep", dirs))
        raise ConfigError(f"nothing says what to run; give sweep=NAME (there are {sweeps or 'none'}) or workload=NAME (there are {known})")
    preset = confdirs.find("workload", name, dirs)
    if preset is None:
        return plugins.load("workloads", name), ""
    return plugins.load("workloads", confdirs.workload_of(preset, dirs) or name), name


def first_choices(words: Sequence[Override], target: type[Workload], in_files: Mapping[str, str] | None = None) -> dict[str, str]:
    """Plug-ins that the files and, before these, the command line choose, as far as they are plug-ins and not a YAML.

    They decide which settings exist. `in_files`: group -> option.
    """
    found: dict[str, str] = {}
    given = list((in_files or {}).items())
    for word in words:
        if not (is_reserved(word.key) or word.delete or word.glob is not None):
            given.append((word.key, str(word.values[0] if word.values else word.value)))
    # a choice may make the place of another
    for _ in range(3):
        tree = Tree(target, found)
        for key, name in given:
            path = key.rpartition("@")[2]
            try:
                setting = tree.resolve(path)
            except ConfigError:
                continue
            if setting.is_plugin and ("." in name or name in plugins.names(setting.declared.group, setting.declared.package)):
                found[setting.path] = name
    return found


def setting_names(overrides: Sequence[str] = (), config_dirs: Sequence[Path] = ()) -> list[str]:
    """Names that may stand before `=` after these words, without Hydra: settings of the target, and what is reserved."""
    given = dict(word.partition("=")[::2] for word in overrides)
    dirs = confdirs.search_path(config_dirs)
    file = confdirs.find("sweep", given.get("sweep", ""), dirs)
    name = given.get("workload") or (confdirs.workload_of(file, dirs) if file else "")
    if not name:
        return []
    target = plugins.load("workloads", name)
    choices: dict[str, str] = {}
    tree = Tree(target)
    for key, value in given.items():
        if is_plugin(key, tree) and (setting := tree.resolve(key)).is_plugin:
            first = value.partition(",")[0]
            if "." in first or first in plugins.names(setting.declared.group, setting.declared.package):
                choices[setting.path] = first
    tree = Tree(target, choices)
    return [*_free_axes(file, tree), *tree.names()] if file else tree.names()


def _free_axes(file: Path, tree: Tree) -> list[str]:
    """Axes of a sweep's file that are no settings, but what others are derived from."""
    return [name for name in confdirs.axes_of(file) if name.isidentifier() and not tree.ends_in(name)]


def launcher_setting_names(overrides: Sequence[str] = ()) -> list[str]:
    """`launcher.NAME` for the settings of the launcher that these words choose."""
    given = dict(word.partition("=")[::2] for word in overrides)
    name = given.get("launcher") or (ON_A_SITE if given.get("site") else LOCAL)
    return [f"launcher.{field.name}" for field, _, _ in _fields(plugins.load("launchers", name, "orchestrator"))]


def option_names(key: str, overrides: Sequence[str] = (), config_dirs: Sequence[Path] = ()) -> list[str]:
    """Names that may stand after `key=`, for what is chosen by name; empty for other settings."""
    dirs = confdirs.search_path(config_dirs)
    own = {"launcher": ("launchers", "orchestrator"), "workload": ("workloads", "workers")}
    if key in ("sweep", "site"):
        return confdirs.names(key, dirs)
    if key in own:
        return confdirs.option_names(key, *own[key], dirs)
    given = dict(word.partition("=")[::2] for word in overrides)
    file = confdirs.find("sweep", given.get("sweep", ""), dirs)
    name = given.get("workload") or (confdirs.workload_of(file, dirs) if file else "")
    if not name or not is_plugin(key, tree := Tree(plugins.load("workloads", name))):
        return []
    setting = tree.resolve(key)
    return confdirs.option_names(setting.group, setting.declared.group, setting.declared.package, dirs)
