"""What continuous batching needs of an engine. Everything else in this package is engine-free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from models.continuous_batching.batch import Batch
from models.continuous_batching.kv_pool import KvMemory
from models.structured.constraint import TokenConstraint
from models.types.common import FloatArray
from models.types.generation import SamplingParams


class Vocabulary(Protocol):
    """Tokens and their texts; read-only, and usable from any thread until the engine is closed."""

    @property
    def size(self) -> int: ...

    @property
    def pieces(self) -> Sequence[bytes]:
        """The bytes that each token writes; control tokens write none."""

    @property
    def longest_piece(self) -> int:
        """No token stands for more bytes of text than this."""

    @property
    def end_tokens(self) -> frozenset[int]:
        """Tokens that end a completion."""

    @property
    def control_tokens(self) -> Mapping[str, int]:
        """Control tokens by the texts that name them."""

    @property
    def infill_tokens(self) -> tuple[int, int, int] | None:
        """What stands before the prefix, before the suffix and before the middle of a text with a
        gap; None when the model has no such tokens."""

    @property
    def bos(self) -> int | None:
        """The token that every prompt begins with, where the model wants one."""

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Token ids; `add_special` adds the BOS token where the model wants one, `parse_special`
        turns the texts of control tokens into those tokens. ValueError once closed."""


class Sampler(Protocol):
    """Chooses the tokens of one request. `index` is an entry of the batch just decoded."""

    def choose(self, index: int, constraint: TokenConstraint | None) -> int:
        """One of the tokens that the constraint allows; it may change the row of logits."""

    def accept(self, token: int) -> None:
        """Take note of a token that was chosen otherwise."""

    def logits(self, index: int) -> FloatArray:
        """The model's own row, [vocabulary], valid until the next decode."""

    def close(self) -> None: ...


class TokenRunner(KvMemory, Protocol):
    """A model with its KV memory, used by one thread only: `cells` cells shared by `slots`
    sequences, at most `n_batch` tokens in a step."""

    @property
    def vocabulary(self) -> Vocabulary: ...

    @property
    def cells(self) -> int: ...

    @property
    def slots(self) -> int: ...

    @property
    def n_batch(self) -> int: ...

    @property
    def max_outputs(self) -> int:
        """Rows of logits that a step can give, at least `slots`."""

    @property
    def resident_cells(self) -> int:
        """Cells that may be in use before finished sequences give theirs up: each makes every
        step a little slower."""

    @property
    def shares_prefixes(self) -> bool:
        """Whether a part of one sequence can be copied to another."""

    def decode(self, batch: Batch) -> bool:
        """Evaluate a batch; False when there is no room for it (nothing was changed)."""

    def sampler(self, params: SamplingParams, prompt: Sequence[int]) -> Sampler: ...

    def close(self) -> None: ...
