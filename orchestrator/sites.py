"""A site holds the settings of a launcher for one cluster: above the launcher's defaults, below a sweep's file and the command line."""

from typing import Any

from orchestrator.hydra_configs import plugin_defaults
from workers import plugins
from workers.errors import ConfigError, UnknownName, nearest
from workers.settings import _fields

# what runs the jobs where neither the command line nor a file says it, without and with a site
LOCAL, ON_A_SITE = "local", "slurm"


def with_launcher(cfg: Any, *, site: str = "", launcher: str = "") -> Any:
    """The composed config with the launcher's settings complete; `site` and `launcher` are what the command line chose.

    A launcher that runs jobs on this machine has no use for a site that a sweep's file names, so that one is left out.
    """
    from omegaconf import OmegaConf

    own, written = _mapping(cfg, "site"), _mapping(cfg, "launcher")
    name = str(written.get("name") or (ON_A_SITE if own else LOCAL))
    cls = plugins.load("launchers", name, "orchestrator")
    if own and not getattr(cls, "detaches", False):
        if site and launcher:
            raise ConfigError(f"site={site} holds settings of launcher={ON_A_SITE}, not of launcher={launcher}; keep one of the two")
        own = OmegaConf.create({})
    _refuse_unknown(own, cls, site)
    cfg["launcher"] = OmegaConf.merge(OmegaConf.create({"name": name, **plugin_defaults(cls)}), own, written)
    cfg["site"] = own
    return cfg


def _mapping(cfg: Any, group: str) -> Any:
    from omegaconf import OmegaConf

    value = cfg.get(group)
    if value is None:
        return OmegaConf.create({})
    if not OmegaConf.is_dict(value):
        raise ConfigError(f"{group}: {value} in a file: choose it in the defaults list, as `- override /{group}: {value}`")
    return value


def _refuse_unknown(own: Any, cls: Any, site: str) -> None:
    known = [field.name for field, _, _ in _fields(cls)]
    for key in own:
        if key not in known:
            where = f"conf/site/{site}.yaml" if site else "the site's file"
            raise UnknownName(
                f"{where}: no setting {str(key)!r}{nearest(str(key), known)} A site holds settings of launcher={cls.plugin_name()}: "
                f"{', '.join(sorted(known))}"
            )
