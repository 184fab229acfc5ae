"""One composition by Hydra: plug-ins in its config store, YAML of the search path, defaults lists and group choices."""

import dataclasses
import itertools
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator import confdirs
from orchestrator.paths import Setting, Tree
from workers import plugins
from workers.errors import ConfigError, UnknownName, nearest
from workers.settings import Settings, _fields

_ROOT = "eigensweep_root"


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A place in the composed config where a plug-in or a YAML of a group stands."""

    group: str
    package: str
    plugin_group: str
    plugin_package: str

    @property
    def key(self) -> str:
        """How Hydra's grammar names it: `model`, or `model@teacher`."""
        return self.group if self.group == self.package else f"{self.group}@{self.package}"

    def options(self, dirs: Sequence[Path]) -> list[str]:
        """What may be chosen here, besides modules of the user's own."""
        return confdirs.option_names(self.group, self.plugin_group, self.plugin_package, dirs)


_LAUNCHER = Group(group="launcher", package="launcher", plugin_group="launchers", plugin_package="orchestrator")


def group_of(setting: Setting, tree: Tree) -> Group:
    """Where the plug-in of a setting stands: under the shortest name that means it, `model` for `gram.train.model`."""
    return Group(
        group=setting.group, package=tree.short(setting.path), plugin_group=setting.declared.group, plugin_package=setting.declared.package
    )


@dataclass(slots=True)
class Composer:
    """Composes one target's config for given choices (group key -> option); `launcher` and `site`: empty where not given."""

    dirs: Sequence[Path]
    tree: Tree
    launcher: str
    site: str
    sweep: str
    preset: str
    _loader: Any = None

    def compose(self, choices: Mapping[str, str]) -> Any:
        """The composed config (an OmegaConf DictConfig, unresolved); ConfigError where Hydra refuses."""
        from hydra.errors import HydraException
        from omegaconf.errors import OmegaConfBaseException

        groups = {
            group.key: group for setting in self.tree.settings.values() if setting.is_plugin for group in [group_of(setting, self.tree)]
        }
        # without a default of its own, so that what is there was written by somebody: a site comes below it
        defaults: list[Any] = ["_self_", {"launcher": None}, {"site": None}]
        overrides = [f"site={self.site}"] if self.site else []
        if self.launcher:
            self._register_option(_LAUNCHER, self.launcher)
            overrides.append(f"launcher={self.launcher}")
        for setting in self.tree.settings.values():
            if not setting.is_plugin:
                continue
            group = group_of(setting, self.tree)
            option = choices.get(group.key)
            own = setting.cls.plugin_name() if setting.cls is not None else None  # type: ignore[attr-defined]
            if setting.group == "workload":
                own = None
            if option is None and own is None:
                continue
            for name in {own, option} - {None}:
                self._register_option(group, str(name))
            defaults.append({group.key: own or option})
            if option is not None:
                overrides.append(f"{group.key}={option}")
        self._register_names([*groups.values(), _LAUNCHER])
        defaults += [{"workload@_global_": self.preset}] if self.preset else []
        defaults += [{"sweep@_global_": self.sweep}] if self.sweep else []
        self._store(_ROOT, None, {"defaults": defaults, **_leaf_defaults(self.tree)})
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return self._load(overrides)
        except (HydraException, OmegaConfBaseException) as error:
            raise _explained(error, [*groups.values(), _LAUNCHER], self.dirs) from None

    def _load(self, overrides: list[str]) -> Any:
        """Hydra's composition without its own `hydra:` node, whose loading takes 30 times as long."""
        from hydra._internal.config_repository import CachingConfigRepository
        from hydra._internal.defaults_list import create_defaults_list
        from hydra.core.override_parser.overrides_parser import OverridesParser

        self._loader = self._loader or _loader(self.dirs)
        repository = CachingConfigRepository(self._loader.repository)
        parsed = OverridesParser.create().parse_overrides(overrides)
        found = create_defaults_list(repo=repository, config_name=_ROOT, overrides_list=parsed, prepend_hydra=False, skip_missing=False)
        return self._loader._compose_config_from_defaults_list(defaults=found.defaults, repo=repository)

    def _register_option(self, group: Group, option: str) -> None:
        """A plug-in's node in the config store; a YAML of that name in the search path stands before it."""
        known = group.options(self.dirs)
        if option not in known and "." not in option:
            raise UnknownName(
                f"no {group.package} {option!r}{nearest(option, known)} There are {', '.join(known) or 'none'}; a new one is a file "
                f"conf/{group.group}/{option}.yaml, {group.plugin_package}/{group.plugin_group.replace('.', '/')}/{option}.py, or a module "
                "of your own by its dotted name"
            )
        if "." in option or option in plugins.names(group.plugin_group, group.plugin_package):
            cls = plugins.load(group.plugin_group, option, group.plugin_package)
            self._store(option, group.group, {"name": option, **({} if group is _LAUNCHER else plugin_defaults(cls))})

    def _register_names(self, groups: Any) -> None:
        """Every plug-in's bare name, so that a defaults list of the user's may choose it; none is imported for that."""
        from hydra.core.config_store import ConfigStore

        repository = ConfigStore.instance().repo
        for group in groups:
            for name in plugins.names(group.plugin_group, group.plugin_package):
                if f"{name}.yaml" not in repository.get(group.group, {}):
                    self._store(name, group.group, {"name": name})

    def _store(self, name: str, group: str | None, node: Any) -> None:
        from hydra.core.config_store import ConfigStore

        ConfigStore.instance().store(name=name, group=group, node=node, provider="eigensweep")


def _loader(dirs: Sequence[Path]) -> Any:
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
    from hydra._internal.core_plugins.file_config_source import FileConfigSource
    from hydra._internal.core_plugins.importlib_resources_config_source import ImportlibResourcesConfigSource
    from hydra._internal.core_plugins.structured_config_source import StructuredConfigSource
    from hydra._internal.sources_registry import SourcesRegistry

    for source in (FileConfigSource, ImportlibResourcesConfigSource, StructuredConfigSource):
        SourcesRegistry.instance().register(source)
    path = ConfigSearchPathImpl()
    for folder in dirs:
        path.append("eigensweep", f"file://{folder}")
    path.append("schema", "structured://")
    return ConfigLoaderImpl(config_search_path=path)


def plugin_defaults(cls: type[Settings]) -> dict[str, Any]:
    """The plug-in's defaults. Not the dataclass itself: OmegaConf would refuse 1e3 for a whole number, which the class takes.

    Names, types and ranges are checked by the class when it is made.
    """
    return dict(_leaves(cls))


def _leaves(cls: type[Settings]) -> Iterator[tuple[str, Any]]:
    for field, declared, _ in _fields(cls):
        if isinstance(field.default, Settings) or (isinstance(declared, type) and issubclass(declared, Settings)):
            continue
        missing = field.default is dataclasses.MISSING
        yield field.name, "???" if missing else list(field.default) if isinstance(field.default, tuple) else field.default


def _leaf_defaults(tree: Tree) -> dict[str, Any]:
    """Defaults of the settings that stand in no plug-in of a group, nested by their full paths."""
    body: dict[str, Any] = {}
    inside = [f"{path}." for path, setting in tree.settings.items() if setting.is_plugin and setting.group != "workload"]
    for path, setting in tree.settings.items():
        if setting.is_leaf and not any(path.startswith(prefix) for prefix in inside):
            *parents, last = path.split(".")
            node = body
            for parent in parents:
                node = node.setdefault(parent, {})
            default = setting.field.default
            node[last] = "???" if default is dataclasses.MISSING else list(default) if isinstance(default, tuple) else default
    return body


def _explained(error: Exception, groups: Sequence[Group], dirs: Sequence[Path]) -> ConfigError:
    """Hydra's message in one line, with the nearest name where a defaults list names nothing that there is."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(itertools.takewhile(lambda line: not line.startswith("Config search path"), lines))
    if found := re.search(r"Could not (?:find|load) '(\w+)/([\w.]+)'", text):
        known = [name for one in groups if one.group == found[1] for name in one.options(dirs)] or confdirs.names(found[1], dirs)
        hint = nearest(found[2], known)
        return UnknownName(f"no {found[1]} {found[2]!r}{hint} There are {', '.join(known) or 'none'} (a defaults list names it)")
    if found := re.search(r"Could not override '([^']+)'", text):
        hint = nearest(found[1], [one.key for one in groups])
        return UnknownName(f"{text.rstrip('.')}{hint} It has {', '.join(one.key for one in groups)}")
    return ConfigError(text)
