"""Arithmetic over a task's settings, for resources and derived settings: numbers, names, operators and functions, nothing else."""

import ast
import math
import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from workers.errors import ConfigError, UnknownName, nearest
from workers.settings import _fields
from workers.workload import Resources

_BINARY: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_UNARY: dict[type[ast.AST], Callable[[Any], Any]] = {ast.USub: operator.neg, ast.UAdd: operator.pos}
_COMPARE: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "min": min,
    "max": max,
    "ceil": math.ceil,
    "floor": math.floor,
    "round": round,
    "sqrt": math.sqrt,
    "abs": abs,
    "exp": math.exp,
    "log": math.log,
    "log2": math.log2,
    "log10": math.log10,
}

Lookup = Callable[[str], Any]


# what a call with constant arguments, such as best('scan', 'learning_rate', by=['width']), comes to
Call = Callable[[list[Any], dict[str, Any]], Callable[[Lookup], Any]]


def compiled(text: str, calls: Mapping[str, Call] | None = None) -> Callable[[Lookup], Any]:
    """A function from a lookup of settings to the value of `text`; ConfigError for what is no arithmetic.

    `calls`: further functions, by name; their arguments are constants.
    """
    return _Compiler(text, calls or {}).visit(_parsed(text))


def names(text: str) -> set[str]:
    """Names of settings that the expression `text` holds, dotted or not, constants in calls left out."""
    tree = _parsed(text)
    functions = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    found = (node for node in ast.walk(tree) if isinstance(node, ast.Name | ast.Attribute) and id(node) not in functions | inner)
    return {ast.unparse(node) for node in found}


def _parsed(text: str) -> ast.expr:
    try:
        return ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        raise ConfigError(f"cannot read the expression {text!r}: {error.msg}") from None


class _Compiler:
    def __init__(self, text: str, calls: Mapping[str, Call]) -> None:
        self.text, self.calls = text, calls

    def visit(self, node: ast.AST) -> Callable[[Lookup], Any]:
        match node:
            case ast.Constant(value=int() | float() | str() as value):
                return lambda lookup: value
            case ast.Name() | ast.Attribute():
                name = self.name(node)
                return lambda lookup: lookup(name)
            case ast.BinOp() if type(node.op) in _BINARY:
                return self.apply(_BINARY[type(node.op)], node.left, node.right)
            case ast.UnaryOp() if type(node.op) in _UNARY:
                return self.apply(_UNARY[type(node.op)], node.operand)
            case ast.Compare(ops=[operation]) if type(operation) in _COMPARE:
                return self.apply(_COMPARE[type(operation)], node.left, node.comparators[0])
            case ast.IfExp():
                test, then, other = self.visit(node.test), self.visit(node.body), self.visit(node.orelse)
                return lambda lookup: then(lookup) if test(lookup) else other(lookup)
            case ast.Call(func=ast.Name(id=function), keywords=[]) if function in _FUNCTIONS:
                return self.apply(_FUNCTIONS[function], *node.args)
            case ast.Call(func=ast.Name(id=function)) if function in self.calls:
                return self.calls[function]([self.constant(one) for one in node.args], self.constants(node.keywords))
        raise ConfigError(
            f"the expression {self.text!r} may hold numbers, settings, + - * / // % **, comparisons, `a if b else c`, "
            f"{', '.join([*_FUNCTIONS, *self.calls])}; it holds {ast.unparse(node)!r}"
        )

    def apply(self, function: Callable[..., Any], *nodes: ast.AST) -> Callable[[Lookup], Any]:
        arguments = [self.visit(node) for node in nodes]
        return lambda lookup: function(*[argument(lookup) for argument in arguments])

    def constants(self, keywords: list[ast.keyword]) -> dict[str, Any]:
        return {str(one.arg): self.constant(one.value) for one in keywords}

    def constant(self, node: ast.AST) -> Any:
        try:
            return ast.literal_eval(ast.unparse(node))
        except ValueError:
            raise ConfigError(f"in {self.text!r}, {ast.unparse(node)!r} must be a constant: a text in quotes, a number or a list") from None

    def name(self, node: ast.AST) -> str:
        if isinstance(node, ast.Attribute):
            return f"{self.name(node.value)}.{node.attr}"
        if isinstance(node, ast.Name):
            return node.id
        raise ConfigError(f"the expression {self.text!r} holds {ast.unparse(node)!r}, which names no setting")


def checked_resources(given: Mapping[str, Any]) -> dict[str, Any]:
    """The user's resources by field, and by workload and field, checked as far as they can be without a task."""
    fields = [one.name for one, _, _ in _fields(Resources)]
    found: dict[str, Any] = {}
    for path, value in _flat(given):
        workload, _, name = path.rpartition(".")
        if name not in fields:
            hint = nearest(path, [f"{workload}.{one}" if workload else one for one in fields])
            raise UnknownName(
                f"no setting 'resources.{path}'{hint} resources has {', '.join(fields)}, or a workload's name with these below it"
            )
        _check_resource(f"resources.{path}", name, value)
        (found.setdefault(workload, {}) if workload else found)[name] = value
    return found


def _flat(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def _check_resource(path: str, name: str, value: Any) -> None:
    if isinstance(value, str):
        compiled(value)
        return
    try:
        Resources(**{name: value})
    except ConfigError as error:
        raise ConfigError(
            f"{path.rpartition('.')[0]}.{error}; it may also be an expression of settings, such as '0.5 + width * 1e-3'"
        ) from None
