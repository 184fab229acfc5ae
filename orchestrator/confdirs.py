"""Where configs are looked for: the user's `./conf`, then `--config-dir`, then ours; read here without Hydra."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from workers import plugins
from workers.errors import ConfigError, UnknownName, nearest


def search_path(config_dirs: Sequence[Path] = ()) -> list[Path]:
    """The folders of configs that exist, in order of precedence; ConfigError for a `--config-dir` that does not."""
    for folder in config_dirs:
        if not Path(folder).is_dir():
            raise ConfigError(f"--config-dir {folder} is no folder; it holds sweep/NAME.yaml and the like")
    here = Path(__file__).parent
    found = [Path("conf"), *map(Path, config_dirs), here / "conf", here.parent / "conf"]
    return list(dict.fromkeys(path.resolve() for path in found if path.is_dir()))


def names(group: str, dirs: Sequence[Path]) -> list[str]:
    """Names of the YAML files of a group."""
    return sorted({file.stem for folder in dirs for file in (folder / group).glob("*.yaml")})


def find(group: str, name: str, dirs: Sequence[Path]) -> Path | None:
    """The first `<group>/<name>.yaml`; None where there is none."""
    return next((path for folder in dirs if (path := folder / group / f"{name}.yaml").is_file()), None)


def require(group: str, name: str, dirs: Sequence[Path]) -> Path:
    """As `find`; UnknownName with the nearest where there is none."""
    path = find(group, name, dirs)
    if path is None:
        known = names(group, dirs)
        raise UnknownName(
            f"no {group} {name!r}{nearest(name, known)} There are {', '.join(known) or 'none'} in "
            f"{', '.join(map(str, dirs)) or 'no folder'}; a new one is a file conf/{group}/{name}.yaml"
        )
    return path


def option_names(group: str, plugin_group: str, package: str, dirs: Sequence[Path]) -> list[str]:
    """What a group can be set to: our plug-ins and the YAML files of that group."""
    return sorted({*plugins.names(plugin_group, package), *names(group, dirs)})


def workload_of(file: Path, dirs: Sequence[Path], depth: int = 8) -> str:
    """The workload that a sweep's file names as `workload:`, itself or in a sweep of its defaults list; empty where none does."""
    body = _load(file)
    section = body.get("sweep")
    own = body.get("workload") or (section.get("workload") if isinstance(section, dict) else None)
    if own or depth == 0:
        return str(own or "")
    for entry in reversed(body.get("defaults") or []):
        other = find("sweep", entry, dirs) if isinstance(entry, str) and entry != "_self_" else None
        if other is not None and (named := workload_of(other, dirs, depth - 1)):
            return named
    return ""


def chosen_in(file: Path, dirs: Sequence[Path], depth: int = 8) -> dict[str, str]:
    """What the defaults list of a sweep's file, and of the sweeps in it, chooses: the group (`data`, `data@images`) -> its option."""
    found: dict[str, str] = {}
    for entry in (_load(file).get("defaults") or []) if depth else []:
        if isinstance(entry, dict):
            found |= {str(key).removeprefix("override ").strip().lstrip("/"): str(name) for key, name in entry.items()}
        elif isinstance(entry, str) and entry != "_self_" and (other := find("sweep", entry, dirs)) is not None:
            found |= chosen_in(other, dirs, depth - 1)
    return found


def axes_of(file: Path) -> list[str]:
    """The axes that a sweep's file itself names; none where it derives no settings."""
    section = _load(file).get("sweep")
    if not isinstance(section, dict) or not section.get("derive") or not isinstance(section.get("grid"), dict):
        return []
    return list(map(str, section["grid"]))


def _load(file: Path) -> dict[str, Any]:
    import yaml  # type: ignore[import-untyped]

    try:
        body = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is no YAML: {' '.join(str(error).split())}") from None
    if body is not None and not isinstance(body, dict):
        raise ConfigError(f"{file} must hold keys and values, it holds a {type(body).__name__}")
    return body or {}
