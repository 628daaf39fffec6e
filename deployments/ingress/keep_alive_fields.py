"""`keep_alive` and `ttl`: how long a model stays after a request, as clients write it."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

from pydantic import BaseModel, PlainValidator, WithJsonSchema

from deployments.model_cache.slot import PINNED

UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
"""Those of Go's durations, which Ollama's clients send."""
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)", re.ASCII)
_DURATION = re.compile(rf"[+-]?(?:{_PART.pattern})+", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)", re.ASCII)
MAX_CHARS = 64
LIMIT_S = 1e12


def parse_keep_alive(value: Any) -> float:
    """Seconds; 0 is to leave at once, PINNED (anything negative) to stay. Raises ValueError."""
    if isinstance(value, str):
        seconds = _parse_text(value.strip())
    elif isinstance(value, int | float) and not isinstance(value, bool):
        seconds = value
    else:
        seconds = math.nan
    if not abs(seconds) < LIMIT_S:
        raise ValueError('Should be seconds, or a duration such as "10m" or "1h30m"')
    return float(seconds) if seconds >= 0 else PINNED


def _parse_text(text: str) -> float:
    if len(text) > MAX_CHARS:
        return math.nan
    if _NUMBER.fullmatch(text):
        return float(text)
    if not _DURATION.fullmatch(text):
        return math.nan
    seconds = sum(float(count) * UNITS[unit] for count, unit in _PART.findall(text))
    return -seconds if text.startswith("-") else seconds


KeepAlive = Annotated[
    float,
    PlainValidator(parse_keep_alive),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string"}]}),
]


class KeepAliveFields(BaseModel):
    """Of every request that names a model; see keep_alive.py."""

    keep_alive: KeepAlive | None = None
    """Seconds or a duration as text; 0: leave after this request, negative: stay."""
    ttl: KeepAlive | None = None
    """The same under LM Studio's name."""
