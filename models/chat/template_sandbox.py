"""A Jinja environment for templates that come with a model: sandboxed, and bounded in time and
size.

Jinja's own sandbox keeps templates away from Python's internals, but lets them build a string of
gigabytes or loop for hours. Here every loop turn, macro, call and operation looks at the clock,
and whatever could make something large is checked beforehand (`template_limits`).
"""

from __future__ import annotations

import functools
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, cast

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension
from jinja2.filters import do_indent
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from models.chat.template_limits import (
    MAX_ITEMS,
    LimitExceeded,
    bounded,
    check_join,
    check_method,
    check_operation,
    check_replacement,
    check_size,
)

MAX_CAPTURES = 4
"""A template may write all of its text a few times: into variables and macros, then out."""

# fmt: off
_FILTERS = frozenset({
    "abs", "attr", "bool", "capitalize", "count", "d", "default", "dictsort", "e", "escape",
    "first", "float", "forceescape", "groupby", "int", "items", "last", "length", "list", "lower",
    "map", "max", "min", "reject", "rejectattr", "reverse", "round", "safe", "select",
    "selectattr", "sort", "string", "striptags", "title", "trim", "truncate", "unique", "upper",
    "urlencode", "wordcount",
})
# fmt: on


class TemplateFailure(TemplateError):
    """The template itself refused its input, through `raise_exception`."""


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """Compiles and renders within limits; call `start` before each rendering.

    One rendering at a time: the deadline belongs to the environment.
    """

    intercepted_binops = frozenset({"*", "+", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols", GenerationBlock],
        )
        self._deadline = math.inf
        self._written = 0
        filters = cast("dict[str, Callable[..., Any]]", self.filters)
        kept = {name: _checked(f) for name, f in filters.items() if name in _FILTERS}
        own: dict[str, Callable[..., Any]] = {
            "tojson": _tojson,
            "replace": _replace,
            "join": _join,
            "indent": _indent,
        }
        self.filters = {**kept, **{name: _checked(f) for name, f in own.items()}}
        self.globals = {
            "dict": dict,
            "namespace": OpaqueNamespace,
            "range": _range,
            "raise_exception": _raise,
            "strftime_now": _strftime_now,
        }
        self.guard_size = bounded

    def start(self, seconds: float) -> None:
        """Let the next rendering take at most `seconds`."""
        self._deadline = time.monotonic() + seconds
        self._written = 0

    def guard_time(self) -> str:
        if time.monotonic() > self._deadline:
            raise LimitExceeded("the template takes too long")
        return ""

    def guard_output(self, value: Any) -> str:
        """The text of a value, counted: captured blocks and macros write out of our sight."""
        text = str(bounded(value))
        self.count_output(len(text))
        return text

    def count_output(self, size: int) -> str:
        self._written += size
        check_size(self._written / MAX_CAPTURES)
        return ""

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        _Guard().visit(tree)
        return tree

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        self.guard_time()
        check_operation(operator, left, right)
        return super().call_binop(context, operator, left, right)

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Jinja's hook for every call: (context, function, arguments...)."""
        self.guard_time()
        function = getattr(args[1], "__wrapped__", args[1])  # Jinja wraps str.format
        owner = getattr(function, "__self__", None)
        if isinstance(owner, str | bytes):
            check_method(owner, function.__name__, (*args[2:], *kwargs.values()))
        return bounded(super().call(*args, **kwargs))


class _Guard(NodeTransformer):
    """Puts a clock check into every loop and macro, a size check around every literal and a count
    into all that is written, and makes `~` an addition, which is checked."""

    def _timed(self, node: nodes.For | nodes.Macro | nodes.CallBlock) -> nodes.Node:
        self.generic_visit(node)
        node.body.insert(0, nodes.Output([_call("guard_time")]))
        return node

    def _sized(self, node: nodes.Expr) -> nodes.Node:
        self.generic_visit(node)
        return node if getattr(node, "ctx", "load") != "load" else _call("guard_size", node)

    def visit_Output(self, node: nodes.Output) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        fixed = [piece for piece in node.nodes if isinstance(piece, nodes.TemplateData)]
        size = sum(len(piece.data) for piece in fixed)
        counted = [p if p in fixed else _call("guard_output", p) for p in node.nodes]
        node.nodes = [_call("count_output", nodes.Const(size)), *counted]
        return node

    visit_For = visit_Macro = visit_CallBlock = _timed  # noqa: N815
    visit_List = visit_Dict = visit_Tuple = _sized  # noqa: N815

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        texts: list[nodes.Expr] = [
            nodes.Filter(part, "string", [], [], None, None) for part in node.nodes
        ]
        return functools.reduce(nodes.Add, texts)


def _call(name: str, *args: nodes.Expr) -> nodes.Call:
    return nodes.Call(nodes.EnvironmentAttribute(name), list(args), [], None, None)


class GenerationBlock(Extension):
    """`{% generation %}` marks the assistant's words for training; here it only has its body."""

    tags = {"generation"}  # noqa: RUF012  (Jinja declares it as a plain set)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class OpaqueNamespace(Namespace):
    """Jinja's namespace; written out, it does not show what it holds."""

    def __repr__(self) -> str:
        return "<namespace>"


# --- globals and filters ------------------------------------------------------------------------


def _checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter whose result is checked; what it needs of the environment is kept."""

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        return bounded(function(*args, **kwargs))

    return checked


def _range(*args: int) -> range:
    numbers = range(*args)
    if len(numbers) > MAX_ITEMS:
        raise LimitExceeded("the template loops too often")
    return numbers


def _raise(message: object) -> None:
    raise TemplateFailure(str(message))


def _strftime_now(pattern: str) -> str:
    return datetime.now().astimezone().strftime(pattern[:64])


def _tojson(value: Any, indent: int | None = None, **_: Any) -> str:
    """Plain JSON: neither escaped for HTML nor reduced to ASCII, as models are trained on it."""
    return json.dumps(value, ensure_ascii=False, indent=None if indent is None else min(indent, 16))


def _replace(text: Any, old: Any, new: Any, count: int = -1) -> str:
    check_replacement(str(text), str(old), str(new))
    return str(text).replace(str(old), str(new), count)


def _join(items: Iterable[Any], separator: str = "", attribute: str | None = None) -> str:
    if attribute is not None:
        items = [i.get(attribute, "") if isinstance(i, Mapping) else "" for i in items]
    parts = [str(item) for item in items]
    check_join(separator, parts)
    return separator.join(parts)


def _indent(text: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    gap = len(width) if isinstance(width, str) else width
    check_size(len(text) + gap * (text.count("\n") + 1))
    return do_indent(text, width, first, blank)
