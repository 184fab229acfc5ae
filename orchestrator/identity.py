"""Names a task by its content: the canonical text of a workload's settings and inputs, and its 128-bit key."""

import base64
import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from workers.settings import Plugin, Settings, _fields
from workers.workload import Data, Workload


def task_key(workload: Workload, content: Mapping[str, str], input_keys: Mapping[str, str]) -> str:
    """26 lower-case base32 characters: the BLAKE2b-128 of `canonical`.

    `content`: SHA-256 of each data set of the workload's own, by the path of its field. `input_keys`: the keys of its
    inputs, by field name.
    """
    return digest(canonical(workload, content, input_keys))


def canonical(workload: Workload, content: Mapping[str, str], input_keys: Mapping[str, str]) -> str:
    """The text that decides a key: the workload and every plug-in with its version, typed settings, keys of the inputs."""
    cls: type = type(workload)
    parts = [
        input_fragment(field.name, input_keys[field.name])
        if isinstance(getattr(workload, field.name), Workload)
        else fragment(field, getattr(workload, field.name), content)
        for field in sorted_fields(cls)
    ]
    return join(header(cls), parts)


def digest(text: str) -> str:
    """The key of a canonical text."""
    return base64.b32encode(hashlib.blake2b(text.encode(), digest_size=16).digest())[:26].decode().lower()


def header(cls: type[Settings], version: int | None = None) -> str:
    """`name@version` of a class; a settings class that is no plug-in has no name of its own. `version`: null for the class's."""
    return f"{cls.plugin_name() if issubclass(cls, Plugin) else ''}@{cls.version if version is None else version}"


def join(head: str, fragments: Iterable[str]) -> str:
    """A canonical text from a header and its fields' fragments in their order; empty ones are left out."""
    return f"{head}({','.join(filter(None, fragments))})"


@functools.cache
def sorted_fields(cls: type) -> list[dataclasses.Field[Any]]:
    """The fields of a settings class in the order of the canonical text."""
    return sorted((field for field, _, _ in _fields(cls)), key=lambda field: field.name)


def input_fragment(name: str, key: str) -> str:
    """How the input in the field `name` enters the text."""
    return f"{name}=task:{key}"


def fragment(field: dataclasses.Field[Any], value: Any, content: Mapping[str, str], path: str = "") -> str:
    """`name=value` of one field; empty where it is no part of the identity, or came later and has its default.

    A data set always enters: the same path may hold other files tomorrow.
    """
    if not field.metadata.get("identity", True):
        return ""
    if field.metadata.get("added") and value == field.default and not isinstance(value, Data):
        return ""
    return f"{field.name}={value_text(value, content, f'{path}{field.name}')}"


def value_text(value: Any, content: Mapping[str, str], path: str) -> str:
    """The canonical text of one value, of the type that its field has already given it."""
    if isinstance(value, Settings):
        cls: type = type(value)
        head = f"{header(cls, value.key_version())}#{content[path]}" if isinstance(value, Data) else header(cls)
        parts = [fragment(field, getattr(value, field.name), content, f"{path}.") for field in sorted_fields(cls)]
        return join(head, parts)
    if isinstance(value, tuple):
        return f"[{','.join(value_text(one, content, path) for one in value)}]"
    return value.hex() if isinstance(value, float) else json.dumps(value)
