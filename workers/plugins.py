"""Finds a plug-in's class by its group and name: our file `workers/<group>/<name>.py`, or a user's own module."""

import functools
import importlib
import importlib.util
import pkgutil
from pathlib import Path
from typing import Any

from workers.errors import ConfigError, UnknownName, nearest


@functools.cache
def names(group: str, package: str = "workers") -> tuple[str, ...]:
    """Names of our own plug-ins of a group, from the file names alone (nothing is imported); `swarm.tasks` stand in `swarm/tasks/`."""
    folder = (Path(__file__).parent.parent / package).joinpath(*group.split("."))
    own = group.rpartition(".")[2].removesuffix("s")
    return tuple(sorted(m.name for m in pkgutil.iter_modules([str(folder)]) if not m.name.startswith("_") and m.name != own))


@functools.cache
def load(group: str, name: str, package: str = "workers") -> type[Any]:
    """The class of a plug-in; a dotted `name` is a module of the user's own package."""
    known = names(group, package)
    if "." not in name and name not in known:
        raise UnknownName(
            f"no {_singular(group)} {name!r}{nearest(name, known)} There are {', '.join(known)}; "
            f"a new one is a file {package}/{group.replace('.', '/')}/{name}.py, or a module of your own package given by its dotted name"
        )
    module_name = name if "." in name else f"{package}.{group}.{name}"
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not module_name.startswith(error.name):
            raise
        raise UnknownName(f"no module {module_name!r}: it must be importable from here (on PYTHONPATH or installed)") from None
    return _plugin_class(module, group)


def _plugin_class(module: Any, group: str) -> type[Any]:
    """The class named as the file in CamelCase, or the only plug-in class that the module defines."""
    from workers.settings import Plugin

    camel = "".join(part.capitalize() for part in module.__name__.rpartition(".")[2].split("_"))
    own = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Plugin) and value.group == group and value.__module__ == module.__name__
    ]
    named = [cls for cls in own if cls.__name__ == camel]
    if len(named or own) != 1:
        raise ConfigError(
            f"{module.__name__} must define one {_singular(group)} class named {camel}; it defines "
            f"{', '.join(cls.__name__ for cls in own) or 'none'}"
        )
    return (named or own)[0]


def _singular(group: str) -> str:
    return "data set" if group == "data" else group.rpartition(".")[2].removesuffix("s")
