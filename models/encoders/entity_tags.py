"""What the labels of a token classifier mean: where an entity begins, and what it is called."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

OUTSIDE = "O"
_PREFIXED = re.compile(r"[BILUES]-.+", re.DOTALL)
_CLOSED = re.compile(r"[LUES]-")


@dataclass(frozen=True, slots=True)
class Tag:
    """`opens`: never continues the entity before; `closes`: never continued by the next."""

    name: str
    opens: bool = False
    closes: bool = False


def read_tags(labels: Sequence[str]) -> tuple[Tag, ...]:
    """The tag of each label.

    IOB and IOB2: "B-" opens, "I-" continues (or opens, after something else). BILOU and its twin
    BIOES, recognised by all labels but "O" having such a prefix and some of them L, U, E or S: "L-"
    and "E-" close, "U-" and "S-" do both. Labels without prefixes continue their like.
    """
    inside = [label for label in labels if label != OUTSIDE]
    closed = all(map(_PREFIXED.fullmatch, inside)) and any(map(_CLOSED.match, inside))
    return tuple(_closed_tag(label) if closed else _open_tag(label) for label in labels)


def _open_tag(label: str) -> Tag:
    if label.startswith(("B-", "I-")):
        return Tag(label[2:], opens=label[0] == "B")
    return Tag(label)


def _closed_tag(label: str) -> Tag:
    if label == OUTSIDE:
        return Tag(label)
    return Tag(label[2:], opens=label[0] in "BUS", closes=label[0] in "LUES")
