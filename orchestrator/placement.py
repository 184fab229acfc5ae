"""Where settings stand in a composed config: from the places that files and commands write to full paths, and back."""

import dataclasses
from collections.abc import Container, Iterator, Mapping
from typing import Any

from orchestrator.hydra_configs import group_of
from orchestrator.overrides import Override
from orchestrator.paths import Setting, Tree
from workers.errors import ConfigError

RESERVED = ("sweep", "launcher", "site", "resources", "budget", "root", "name", "size")


def undotted(cfg: Any) -> Any:
    """The config with keys such as `model.width: 3` taken apart, as they are on the command line; the axes under `sweep` keep theirs."""
    from omegaconf import OmegaConf

    body = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(body, dict)
    taken = {"sweep": body.pop("sweep")} if "sweep" in body else {}
    for key, value in body.items():
        _lay(taken, str(key), value)
    return OmegaConf.create(taken)


def _lay(body: dict[str, Any], path: str, value: Any) -> None:
    """Lay a value over `body` at a dotted path; mappings merge, anything else replaces."""
    *parents, last = path.split(".")
    for parent in parents:
        if not isinstance(body.get(parent), dict):
            body[parent] = {}
        body = body[parent]
    if not isinstance(value, dict):
        body[last] = value
        return
    if not isinstance(body.get(last), dict):
        body[last] = {}
    for key, one in value.items():
        _lay(body[last], str(key), one)


def choices_in(cfg: Any, tree: Tree) -> dict[str, str]:
    """The plug-ins that a composed config names, by full path."""
    found = {}
    for setting in tree.settings.values():
        if setting.is_plugin:
            group = group_of(setting, tree)
            node = cfg.get(group.package) if "." not in group.package else _select(cfg, group.package)
            name = node.get("name") if hasattr(node, "get") else None
            if name is not None:
                found[setting.path] = str(name)
            elif node is not None and setting.group != "workload" and hasattr(node, "get"):
                raise ConfigError(f"{group.package} names no {setting.group}; write `name: ...` in its file, or a defaults list")
    return found


def drop_absent(cfg: Any, first: Tree, tree: Tree, chosen: Container[str]) -> None:
    """Take out plug-ins within those of the `first` combination that this one's have no place for, unless somebody chose them."""
    for path, setting in first.settings.items():
        if setting.is_plugin and path not in tree.settings and path not in chosen:
            cfg.pop(group_of(setting, first).package, None)


def _select(cfg: Any, path: str) -> Any:
    from omegaconf import OmegaConf

    return OmegaConf.select(cfg, path)


def places(cfg: Any, tree: Tree) -> dict[str, dict[str, Any]]:
    """Full path -> where a config sets it -> the value there, not yet resolved."""
    from omegaconf import OmegaConf

    body = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(body, dict)
    found: dict[str, dict[str, Any]] = {}
    for key, value in body.items():
        if key in RESERVED or key == "workload":
            continue
        for place, raw in _leaves(str(key), value, tree):
            found.setdefault(tree.resolve(place).path, {})[place] = raw
    return found


def _leaves(place: str, value: Any, tree: Tree) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, below in value.items():
            if key == "name" and not isinstance(below, Mapping) and is_plugin(place, tree):
                continue
            yield from _leaves(f"{place}.{key}", below, tree)
        return
    setting = tree.resolve(place)
    if not setting.is_leaf and not (setting.optional and value is None):
        raise ConfigError(f"{setting.path} holds settings, got {value!r}")
    yield place, value


def is_plugin(place: str, tree: Tree) -> bool:
    try:
        return tree.resolve(place).is_plugin
    except ConfigError:
        return False


def strongest(path: str, places: dict[str, Any], tree: Tree) -> Any:
    """The value that somebody wrote, where a place still has the default."""
    setting = tree.settings[path]
    given = [raw for raw in places.values() if raw not in (default_of(setting), "???")]
    if any(one != given[0] for one in given):
        raise ConfigError(f"{path} is set twice, to different values: {', '.join(f'{k}={v}' for k, v in places.items())}; keep one")
    return given[0] if given else next(iter(places.values()))


def default_of(setting: Setting) -> Any:
    default = setting.field.default
    if default is dataclasses.MISSING:
        return "???"
    return list(default) if isinstance(default, tuple) else default


def place_of(path: str, tree: Tree) -> str:
    """Where a setting stands in the composed config: below its plug-in's place, else at its full path."""
    parts = path.split(".")
    for end in range(len(parts) - 1, 0, -1):
        above = ".".join(parts[:end])
        if tree.settings[above].is_plugin and tree.settings[above].group != "workload":
            return ".".join([group_of(tree.settings[above], tree).package, *parts[end:]])
    return path


def put(cfg: Any, place: str, value: Any) -> None:
    from omegaconf import OmegaConf

    OmegaConf.update(cfg, place, value, force_add=True)


def resolved(cfg: Any, swept: set[str] | None = None) -> dict[str, Any]:
    """Plain values with interpolations resolved; ConfigError where one reaches nothing, or a setting that is swept."""
    from omegaconf import OmegaConf
    from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException

    try:
        body = OmegaConf.to_container(cfg, resolve=True)
    except InterpolationToMissingValueError as error:
        text = str(error).splitlines()[0]
        raise ConfigError(
            f"{text}: an interpolation is resolved once, it cannot follow the axes {', '.join(swept or ()) or 'of a grid'}"
        ) from None
    except OmegaConfBaseException as error:
        raise ConfigError(f"cannot resolve the config: {str(error).splitlines()[0]}") from None
    assert isinstance(body, dict)
    return {str(key): value for key, value in body.items()}


def rooted(plain: dict[str, Any], tree: Tree) -> dict[str, Any]:
    """Reserved keys as they are, and below `settings` everything else nested by full path."""
    body = {key: value for key, value in plain.items() if key in RESERVED}
    settings: dict[str, Any] = {}
    for key, value in plain.items():
        if key in RESERVED or key == "workload":
            continue
        for place, one in _leaves(key, value, tree):
            if one != "???":
                nest(settings, tree.resolve(place).path, one)
    for path, setting in tree.settings.items():
        if setting.is_plugin and setting.cls is not None:
            nest(settings, f"{path}.name", setting.cls.plugin_name())  # type: ignore[attr-defined]
    return body | {"settings": settings}


def nest(body: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for parent in parents:
        if not isinstance(body.get(parent), dict):
            body[parent] = {}
        body = body[parent]
    body[last] = value


def taken_out(cfg: Any, word: Override) -> None:
    """Take a key out of the config; ConfigError where nothing sets it."""
    from omegaconf import OmegaConf

    parent, _, last = word.key.rpartition(".")
    node = OmegaConf.select(cfg, parent) if parent else cfg
    if node is None or last not in node:
        raise ConfigError(f"{word.line!r}: nothing sets {word.key}")
    del node[last]
