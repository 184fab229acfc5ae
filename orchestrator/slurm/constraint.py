"""Expressions of node features, as sbatch's --constraint takes them: `icelake&(ib|roce)`, `[rack1|rack2]`, `[gpu*2&fat*1]`."""

import re
from collections.abc import Container

_TOKEN = re.compile(r"\s*([&|()\[\]]|\*\d+|[^&|()\[\]*\s]+)\s*")


def features(expression: str) -> tuple[str, ...]:
    """The features that it names."""
    return tuple(dict.fromkeys(token for token in _TOKEN.findall(expression) if token[0] not in "&|()[]*"))


def fits(expression: str, has: Container[str]) -> bool:
    """Whether a node with these features is one of those that it asks for.

    With counts (`*2`) different nodes may have different features: then any will do. Operators count from left to right.
    """
    tokens = _TOKEN.findall(expression)
    return any(token[0] == "*" for token in tokens) or _either(tokens, has)


def _either(tokens: list[str], has: Container[str]) -> bool:
    """Consumes an expression up to its end or its closing bracket."""
    result, operator = True, "&"
    while tokens:
        token = tokens.pop(0)
        if token in ")]":
            break
        if token in "&|":
            operator = token
            continue
        one = _either(tokens, has) if token in "([" else token in has
        result = result and one if operator == "&" else result or one
    return result
