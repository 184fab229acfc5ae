"""What a command line and its configs come to: the target, its combinations of plug-ins, the axes and the rest, all typed."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.grid import Axis, Point
from orchestrator.paths import Tree
from workers.errors import ConfigError
from workers.settings import Settings
from workers.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Combo:
    """One combination of swept plug-ins: their names by path, the workload at its first point, and its points."""

    choices: dict[str, str]
    base: Workload
    tree: Tree
    points: list[Point]


@dataclass(frozen=True, slots=True, kw_only=True)
class Composed:
    """What a command line and its configs ask for, checked; nothing is written yet.

    `axes`: the grid's, swept plug-ins among them, then the derived ones. `chosen`: what was read from other sweeps, and `notes` on that.
    `resources`: the user's overrides, by field, or by workload and field. `site`: what the site gave to the launcher's settings. `name` is
    empty where neither `name=` nor `sweep=` says it.
    """

    target: type[Workload]
    name: str
    sweep: str | None
    size: str | None
    root: Path | None
    combos: list[Combo]
    axes: list[Axis]
    zips: list[list[str]]
    filter: str
    launcher: Any
    site: dict[str, Any]
    budget: dict[str, Any]
    resources: dict[str, Any]
    command: list[str]
    chosen: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def num_points(self) -> int:
        """Points of the grid."""
        return sum(len(combo.points) for combo in self.combos)

    @property
    def cfg(self) -> str:
        """The composed config as YAML, for `--cfg job`."""
        from omegaconf import OmegaConf

        section: dict[str, Any] = {
            "workload": self.target.plugin_name(),
            "grid": {axis.path: list(axis.values) for axis in self.axes if not axis.formula},
        }
        section |= {"derive": rules} if (rules := {axis.path: axis.formula for axis in self.axes if axis.formula}) else {}
        section |= {"zip": self.zips} if self.zips else {}
        section |= {"filter": self.filter} if self.filter else {}
        settings = self.combos[0].base.to_plain()
        settings.pop("name")
        body = {"name": self.name, "sweep": section, "launcher": self.launcher.to_plain()}
        for name in ("resources", "budget"):
            body |= {name: getattr(self, name)} if getattr(self, name) else {}
        return OmegaConf.to_yaml(OmegaConf.create(_plain(body | settings)))


def _plain(value: Any) -> Any:
    if isinstance(value, Settings):
        return value.to_plain()
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


def instance_of(target: type[Workload], nested: dict[str, Any]) -> Workload:
    """The workload of nested settings; ConfigError that names those that are required and lacking."""
    try:
        return target.from_plain(nested)
    except TypeError as error:
        if "required" not in str(error):
            raise
        missing = re.findall(r"'(\w+)'", str(error))
        raise ConfigError(f"{target.__name__} needs {', '.join(missing)}; give it, as in {missing[0] if missing else 'key'}=...") from None
