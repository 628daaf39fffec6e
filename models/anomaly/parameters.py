"""Typed parameters of detectors, with bounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from models.errors import InvalidInputError
from models.types.anomaly import ParameterInfo

ParameterValue = float | int | str


@dataclass(frozen=True, slots=True)
class Parameter:
    """`default` decides the type. Numbers lie between `low` and `high`, texts are `choices`."""

    name: str
    default: ParameterValue
    low: float = 0.0
    high: float = 0.0
    choices: tuple[str, ...] = ()
    description: str = ""

    @property
    def type(self) -> Literal["integer", "number", "string"]:
        if self.choices:
            return "string"
        return "number" if isinstance(self.default, float) else "integer"

    @property
    def info(self) -> ParameterInfo:
        low, high = (None, None) if self.choices else (self.low, self.high)
        return ParameterInfo(
            self.name, self.type, self.default, low, high, self.choices, self.description
        )

    def checked(self, value: object) -> ParameterValue:
        """The value in the parameter's type. Raises InvalidInputError."""
        if self.choices:
            if isinstance(value, str) and value in self.choices:
                return value
            raise self._refusal(f"one of {', '.join(self.choices)}")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._refusal("a number")
        if not self.low <= value <= self.high:  # also for NaN
            raise self._refusal(f"between {self.low:g} and {self.high:g}")
        if isinstance(self.default, float):
            return float(value)
        if value != int(value):
            raise self._refusal("a whole number")
        return int(value)

    def _refusal(self, expected: str) -> InvalidInputError:
        return InvalidInputError(f"'{self.name}' must be {expected}.", f"parameters.{self.name}")
