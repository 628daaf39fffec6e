"""Numbers as people print them."""

from __future__ import annotations

import re

PRINTED = re.compile(r"[-+−(]?\d[\d.,'\u2019 \u00a0\u202f]*\)?-?")
AFFIX = re.compile(r"^[^\d(+−-]*|[^\d)-]*$")
GROUPS = re.compile(r"\d{1,3}(?:([.,'\u2019 \u00a0\u202f])\d{3})(?:\1\d{3})*")
MAX_CHARS = 40


def numbers_in(text: str) -> set[float]:
    """What a printed number can mean: "1.234,56" is 1234.56; "1,234" is 1234 or 1.234.

    Currency signs and units beside it are ignored; other texts mean no number.
    """
    core = AFFIX.sub("", text.strip())
    if not core or len(text) > MAX_CHARS or not PRINTED.fullmatch(core):
        return set()
    negative = core[0] in "-−(" or core[-1] == "-"
    digits = core.strip("-+−() \u00a0\u202f")
    values = {value for value in map(_parsed, _readings(digits)) if value is not None}
    return {-value for value in values} if negative else values


def _readings(digits: str) -> list[str]:
    """The number with a point before its decimals and no other marks."""
    readings = []
    if GROUPS.fullmatch(digits):
        readings.append(re.sub(r"\D", "", digits))
    for mark in ".,":
        whole, found, decimals = digits.rpartition(mark)
        if found and decimals.isdecimal() and (whole.isdecimal() or GROUPS.fullmatch(whole)):
            readings.append(re.sub(r"\D", "", whole) + "." + decimals)
    return readings or [digits]


def _parsed(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
