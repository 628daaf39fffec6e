"""The nested fields in what Donut writes, as transformers' `DonutProcessor.token2json` has them,
and how sure the model was of each value."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import exp
from typing import Any

from models.document_models.donut_prompts import CATEGORY, OPENING, SEPARATOR
from models.types.pages import PageField

MAX_DEPTH = 32
Decode = Callable[[list[int]], str]


@dataclass(frozen=True, slots=True)
class Piece:
    """A token as it was written, and the logarithm of its probability."""

    id: int
    token: str
    logprob: float


@dataclass(frozen=True, slots=True)
class Leaf:
    value: str
    probability: float


Tree = dict[str, "Tree"] | list["Tree"] | Leaf


class FieldReader:
    """`decode`: ids to text. `added`: the tokens that are not parts of text."""

    def __init__(self, decode: Decode, added: frozenset[str]) -> None:
        self._decode = decode
        self._added = added

    def tree(self, pieces: Sequence[Piece]) -> Tree:
        """Fields by name; several objects, which `<sep/>` parts, are a list.

        What is outside of fields is left out, and a field without an end is not one.
        """
        objects = self._objects(pieces, 0)
        return objects[0] if len(objects) == 1 else objects

    def leaf(self, pieces: Sequence[Piece], end: Piece | None = None) -> Leaf:
        """One value; that of an empty one is as probable as its `end`."""
        text = self._decode([piece.id for piece in pieces]).strip()
        category = CATEGORY.fullmatch(text) if text in self._added else None
        logs = [piece.logprob for piece in (pieces or ([end] if end else []))]
        probability = exp(sum(logs) / len(logs)) if logs else 0.0
        return Leaf(category[1] if category else text, probability)

    def _objects(self, pieces: Sequence[Piece], depth: int) -> list[Tree]:
        objects: list[Tree] = []
        fields: dict[str, Tree] = {}
        while (found := _first_field(pieces)) is not None:
            name, start, stop = found
            value = self._value(pieces[start + 1 : stop], pieces[stop], depth)
            if value is not None:
                fields[name] = value
            pieces = pieces[stop + 1 :]
            if pieces and pieces[0].token == SEPARATOR:
                objects.append(fields)
                fields, pieces = {}, pieces[1:]
        return [*objects, fields] if fields or not objects else objects

    def _value(self, content: Sequence[Piece], end: Piece, depth: int) -> Tree | None:
        tokens = [piece.token for piece in content]
        nested = any(map(OPENING.fullmatch, tokens)) and any(t.startswith("</s_") for t in tokens)
        if nested and depth < MAX_DEPTH:
            objects = [item for item in self._objects(content, depth + 1) if item]
            return objects[0] if len(objects) == 1 else objects or None
        leaves: list[Tree] = [self.leaf(part, stop) for part, stop in _parts(content, end)]
        return leaves[0] if len(leaves) == 1 else leaves


def plain(tree: Tree) -> Any:
    """As JSON."""
    if isinstance(tree, Leaf):
        return tree.value
    if isinstance(tree, list):
        return [plain(item) for item in tree]
    return {name: plain(item) for name, item in tree.items()}


def flat(tree: Tree, key: str = "") -> Iterator[PageField]:
    """Every value under its path, as in `menu.0.price`."""
    if isinstance(tree, Leaf):
        yield PageField(key, tree.value, tree.probability)
        return
    items = enumerate(tree) if isinstance(tree, list) else tree.items()
    for name, item in items:
        yield from flat(item, f"{key}.{name}" if key else str(name))


def _first_field(pieces: Sequence[Piece]) -> tuple[str, int, int] | None:
    """Name, start and stop of the first field that has an end."""
    for start, piece in enumerate(pieces):
        match = OPENING.fullmatch(piece.token)
        if match is None:
            continue
        end = f"</s_{match[1]}>"
        rest = range(start + 1, len(pieces))
        stop = next((place for place in rest if pieces[place].token == end), None)
        if stop is not None:
            return match[1], start, stop
    return None


def _parts(content: Sequence[Piece], end: Piece) -> Iterator[tuple[Sequence[Piece], Piece]]:
    """What `<sep/>` parts, each with the token that ends it."""
    start = 0
    for place, piece in enumerate(content):
        if piece.token == SEPARATOR:
            yield content[start:place], piece
            start = place + 1
    yield content[start:], end
