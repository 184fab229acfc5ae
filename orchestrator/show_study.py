"""Studies in words, for the command line."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator import show, study


def all_studies() -> list[dict[str, Any]]:
    """Each study with its title and sweeps."""
    found = [study.load(name) for name in study.names()]
    return [{"study": one.name, "title": one.title, "sweeps": dict(one.sweeps)} for one in found]


def listed(studies: Sequence[Mapping[str, Any]]) -> str:
    """A paragraph a study."""
    lines = []
    for one in studies:
        lines += [f"{one['study']}  {one['title']}", *(f"  {name:<28} {asks}" for name, asks in one["sweeps"].items())]
    return "\n".join([*lines, f"next: eigensweep study {studies[0]['study'] if studies else 'NAME'} size=small\n"])


def plans(found: Mapping[str, Any]) -> str:
    """The plan of each sweep under its name."""
    return "\n".join(f"== {name}\n{show.plan(one, every_script=True)}" for name, one in found.items())


def page(one: Any) -> str:
    """The findings, and where they are shown."""
    return "\n".join([*one.findings, f"page {one.path}", f"next: open {one.path} in a browser\n"])


def studied(found: Any, name: str, settings: Sequence[str]) -> str:
    """Where each sweep stands; the page, or how to come back for it."""
    lines = [show.status(status).split("\nnext: ")[0].rstrip("\n") for status in found.sweeps.values()]
    if found.page is None:
        again = f"eigensweep study {name} {shlex.join(settings)}".rstrip()
        return "\n".join([*lines, f"next: {again}   # goes on; writes the page when all sweeps are over\n"])
    return "\n".join([*lines, page(found.page)])
