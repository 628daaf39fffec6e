"""How large what a template makes may become, checked before it is made."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from jinja2 import TemplateError

MAX_SIZE = 8 * 2**20
MAX_ITEMS = 10_000
MAX_BASE = 4096
MAX_EXPONENT = 64
_CONTAINERS = (list, tuple, dict)
_SIZED = (str, bytes, *_CONTAINERS)
_PADDING = frozenset({"center", "ljust", "rjust", "zfill", "expandtabs", "format", "format_map"})


class LimitExceeded(TemplateError):
    """A template took too long or made something too large."""


def check_size(size: float) -> None:
    if size > MAX_SIZE:
        raise LimitExceeded("the template makes something too large")


def bounded(value: Any) -> Any:
    """The value itself, once it is known that writing it out stays small."""
    if isinstance(value, _SIZED):
        weight(value)
    return value


def weight(value: Any) -> int:
    """About how many characters a value has when written out, parts that it holds twice counted
    twice. Raises LimitExceeded as soon as that is too much."""
    total, pending = 0, [value]
    while pending:
        item = pending.pop()
        if isinstance(item, str | bytes):
            total += len(item)
        elif isinstance(item, dict):
            pending.extend(item.keys())
            pending.extend(item.values())
        elif isinstance(item, list | tuple):
            pending.extend(item)
        elif isinstance(item, int):
            total += item.bit_length() // 3
        total += 1
        check_size(total + len(pending))
    return total


def check_operation(operator: str, left: Any, right: Any) -> None:
    """Refuse `left operator right` when its result could be large; for +, *, ** and %."""
    if operator == "**":
        _check_power(left, right)
    elif operator == "%" and isinstance(left, str | bytes):
        check_format(left)
        check_size(weight(left) + _count(left, "%") * weight(right))
    elif operator == "*":
        check_size(_factor(left) * _factor(right))
    elif operator == "+" and isinstance(left, _SIZED) and isinstance(right, _SIZED):
        check_size(weight(left) + weight(right))


def _check_power(base: Any, exponent: Any) -> None:
    for value, limit in ((base, MAX_BASE), (exponent, MAX_EXPONENT)):
        if not isinstance(value, int | float) or abs(value) > limit:
            raise LimitExceeded("the template computes too large a power")


def _factor(value: Any) -> float:
    """A factor's share in the size of a product; a product of numbers is small unless they are."""
    if isinstance(value, _SIZED):
        return weight(value)
    return max(abs(value), 1) if isinstance(value, int | float) else 1


def _count(text: str | bytes, mark: str) -> int:
    return text.count(mark) if isinstance(text, str) else text.count(mark.encode())


def check_format(pattern: str | bytes) -> None:
    """Refuse format strings with a computed or a long width."""
    text = pattern if isinstance(pattern, str) else pattern.decode("latin-1")
    if re.search(r"\d{4}|%[^a-zA-Z%]*\*", text):
        raise LimitExceeded("the template pads too much")


def check_method(owner: str | bytes, name: str, arguments: tuple[Any, ...]) -> None:
    """Refuse calls of text methods whose result could be large."""
    if name in _PADDING and any(isinstance(a, int) and a > MAX_ITEMS for a in arguments):
        raise LimitExceeded("the template pads too much")
    if name in ("format", "format_map"):
        check_format(owner)
        check_size(weight(owner) + _count(owner, "{") * weight(arguments))
    elif name == "replace" and len(arguments) > 1:
        check_replacement(owner, arguments[0], arguments[1])
    elif name == "join" and arguments:
        check_join(owner, arguments[0])


def check_replacement(text: Any, old: Any, new: Any) -> None:
    if isinstance(text, str) and isinstance(old, str) and isinstance(new, str):
        check_size(len(text) + text.count(old) * len(new))


def check_join(separator: str | bytes, items: Iterable[Any]) -> None:
    if isinstance(items, list | tuple):
        check_size(len(separator) * len(items) + weight(items))
