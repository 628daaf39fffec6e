"""Reads JSON that arrives bit by bit: calls written as objects, and values as they stand.

It is not a validator: it knows where values end. Memory and work are in proportion to the text,
however deep it nests.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from models.chat.text_source import NotACall, Steps, TextSource
from models.chat.tool_formats.calls import Call, Calls

Write = Callable[[str], object]

_IN_STRING = re.compile(r'[^"\\]+')
_IN_OBJECT = re.compile(r'[^"{}\[\]]+')
_OPENING = re.compile(r"[{\[]+")
_IN_PRIMITIVE = re.compile(r"[^\s,:\"{}\[\]]+")
_CODE_UNIT = re.compile("[0-9a-fA-F]{4}")
_ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_REPLACEMENT = "\ufffd"


# --- values -------------------------------------------------------------------------------------


def copy_value(source: TextSource, write: Write) -> Steps[None]:
    """Any value, as it is written."""
    first = yield from source.peek()
    if first == '"':
        yield from _copy_string(source, write)
    elif first in ("{", "["):
        yield from _copy_nested(source, write)
    else:
        text = yield from source.run(_IN_PRIMITIVE)
        if not text:
            raise NotACall
        write(text)


def _copy_nested(source: TextSource, write: Write) -> Steps[None]:
    depth = 0
    while True:
        if (yield from source.peek()) == '"':
            yield from _copy_string(source, write)
        elif text := source.take(_IN_OBJECT):
            write(text)
        elif brackets := source.take(_OPENING):
            write(brackets)
            depth += len(brackets)
        else:
            write((yield from source.next()))
            depth -= 1
            if depth == 0:
                return


def _copy_string(source: TextSource, write: Write) -> Steps[None]:
    write((yield from source.next()))
    while True:
        yield from source.peek()
        if text := source.take(_IN_STRING):
            write(text)
            continue
        char = yield from source.next()
        if char == "\\":
            write(char + (yield from source.next()))
            continue
        write(char)
        return


# --- strings ------------------------------------------------------------------------------------


def read_string(source: TextSource) -> Steps[str]:
    """What a string says."""
    parts: list[str] = []
    yield from unquote_string(source, parts.append)
    return "".join(parts)


def unquote_string(source: TextSource, write: Write) -> Steps[None]:
    """What a string says, as it comes."""
    yield from source.expect('"')
    while True:
        yield from source.peek()
        if text := source.take(_IN_STRING):
            write(text)
        elif (yield from source.next()) == "\\":
            write((yield from _escape(source)))
        else:
            return


def _escape(source: TextSource) -> Steps[str]:
    """The character that an escape stands for; U+FFFD for half of a surrogate pair."""
    char = yield from source.next()
    if char != "u":
        if char not in _ESCAPES:
            raise NotACall
        return _ESCAPES[char]
    unit = yield from _code_unit(source)
    if not 0xD800 <= unit < 0xDC00 or not (yield from source.literal("\\u")):
        return _character(unit)
    low = yield from _code_unit(source)
    if not 0xDC00 <= low < 0xE000:
        return _REPLACEMENT + _character(low)
    return chr(0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00))


def _code_unit(source: TextSource) -> Steps[int]:
    digits = ""
    while len(digits) < 4:
        digits += yield from source.next()
    if not _CODE_UNIT.fullmatch(digits):
        raise NotACall
    return int(digits, 16)


def _character(unit: int) -> str:
    return _REPLACEMENT if 0xD800 <= unit < 0xE000 else chr(unit)


# --- calls --------------------------------------------------------------------------------------


def read_calls(source: TextSource, calls: Calls, *, lazily: bool = False) -> Steps[None]:
    """One call, or a list of calls."""
    if (yield from source.peek()) != "[":
        yield from _read_call(source, calls.expect(lazily=lazily), strict=lazily)
        return
    yield from source.next()
    while True:
        yield from source.space()
        yield from _read_call(source, calls.expect(lazily=lazily), strict=lazily)
        yield from source.space()
        if (yield from source.expect(",", "]")) == "]":
            source.record()
            return


def _read_call(source: TextSource, call: Call, *, strict: bool) -> Steps[None]:
    """An object with a name and arguments; `strict`: and with nothing else."""
    yield from source.expect("{")
    while True:
        yield from source.space()
        key = yield from read_string(source)
        yield from source.space()
        yield from source.expect(":")
        yield from source.space()
        yield from _read_member(source, call, key, strict)
        yield from source.space()
        if (yield from source.expect(",", "}")) == "}":
            break
    call.end()


def _read_member(source: TextSource, call: Call, key: str, strict: bool) -> Steps[None]:
    if key == "name":
        call.name((yield from read_string(source)))
    elif key in ("arguments", "parameters"):
        yield from read_arguments(source, call)
    elif strict and key not in ("type", "id"):
        raise NotACall
    else:
        yield from copy_value(source, _nothing)


def read_arguments(source: TextSource, call: Call) -> Steps[None]:
    """Arguments as an object, or as a string that holds its text; null: there are none."""
    if call.has_arguments:
        raise NotACall
    if (yield from source.peek()) == '"':
        yield from unquote_string(source, call.arguments)
    elif not (yield from source.literal("null")):
        yield from copy_value(source, call.arguments)


def _nothing(text: str) -> None:
    """Where the value of a key goes that no one asked for."""
