"""The special tokens of a tokenizer around one text or two, found out by trying.

The library's own `post_process` is no way to put long texts between them: what was cut off an
`Encoding` stays with it, and for a pair the library makes every combination of such rests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tokenizers import Encoding, Tokenizer

from models.errors import ModelLoadError


@dataclass(frozen=True, slots=True)
class Slot:
    """Where the `place`-th text goes, the type of its tokens, and what comes after it."""

    place: int
    type_id: int
    after: tuple[int, ...]
    after_types: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TokenFrame:
    """Special tokens with a slot for every text, in the order in which the model reads them."""

    before: tuple[int, ...]
    before_types: tuple[int, ...]
    slots: tuple[Slot, ...]

    def ids(self, *texts: Sequence[int]) -> list[int]:
        """The tokens of the texts with the special ones."""
        ids = [*self.before]
        for slot in self.slots:
            ids += texts[slot.place]
            ids += slot.after
        return ids

    def types(self, *texts: Sequence[int]) -> list[int]:
        """Of `ids`."""
        types = [*self.before_types]
        for slot in self.slots:
            types += [slot.type_id] * len(texts[slot.place])
            types += slot.after_types
        return types


def learn_frame(tokenizer: Tokenizer, texts: int, *, specials: bool = True) -> TokenFrame:
    """The frame of `texts` texts (1 or 2), with or without special tokens.

    Raises ModelLoadError when the texts do not stand in it once each.
    """
    nothing = [Encoding()] * texts
    special_ids = _processed(tokenizer, nothing, specials).ids
    probe = _probe(tokenizer, special_ids)
    word = tokenizer.encode(probe, add_special_tokens=False)
    starts = []
    for place in range(texts):
        alone = [word if i == place else nothing[i] for i in range(texts)]
        starts.append(_processed(tokenizer, alone, specials).ids.index(word.ids[0]))
    order = sorted(range(texts), key=starts.__getitem__)
    second = probe if texts > 1 else None
    whole = tokenizer.encode(probe, second, add_special_tokens=specials)
    frame = _frame(whole, len(word), order, [starts[place] for place in order])
    if frame.ids(*[word.ids] * texts) != whole.ids or frame.ids(*[()] * texts) != special_ids:
        raise ModelLoadError("the tokenizer does not put every text once between special tokens")
    return frame


def _frame(whole: Encoding, size: int, order: Sequence[int], starts: Sequence[int]) -> TokenFrame:
    """`starts`: where each text begins when the others, of `size` tokens each, are empty."""
    ids, types = tuple(whole.ids), tuple(whole.type_ids)
    begins = [start + rank * size for rank, start in enumerate(starts)]
    slots = []
    for place, begin, stop in zip(order, begins, [*begins[1:], len(ids)], strict=True):
        end = begin + size
        slots.append(Slot(place, types[begin], ids[end:stop], types[end:stop]))
    return TokenFrame(ids[: begins[0]], types[: begins[0]], tuple(slots))


def _processed(tokenizer: Tokenizer, contents: Sequence[Encoding], specials: bool) -> Encoding:
    first, *second = contents
    return tokenizer.post_process(first, second[0] if second else None, specials)


def _probe(tokenizer: Tokenizer, special_ids: Sequence[int]) -> str:
    """A text that has tokens, none of which is a special one."""
    for token in range(tokenizer.get_vocab_size(with_added_tokens=True)):
        text = tokenizer.decode([token])
        if not text:
            continue
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        if ids and set(special_ids).isdisjoint(ids):
            return text
    raise ModelLoadError("the tokenizer has no tokens but special ones")
