"""A generator without weights, for tests and for trying the server out.

It answers a chat with the last message, which may be a call of a tool, and continues a text by
repeating it. Tokens are bytes, the answer is written by random draws from a distribution that
favours the right byte, so that every sampling parameter has an effect: at high temperatures it
makes typing errors. Everything around the model (scheduling, prefix cache, stop strings,
cancellation) is the real engine.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np

from models.base import StepListener
from models.chat.format import ChatFormat
from models.chat.template import ChatTemplate
from models.continuous_batching.batch import Batch
from models.continuous_batching.decode_loop import CACHED_SEQUENCES, DecodeLoop
from models.continuous_batching.engine_thread import EngineThread
from models.continuous_batching.generator import ContinuousGenerator
from models.continuous_batching.numpy_sampler import NumpySampler
from models.structured.constraint import TokenConstraint
from models.toy.faults import Faults
from models.types.common import FloatArray
from models.types.generation import SamplingParams

CONTEXT_LENGTH = 4096
N_BATCH = 256
SCORING_ROWS = 16
END_OF_TEXT, START, END = 256, 257, 258
CONTROL_TOKENS = {
    "<|endoftext|>": END_OF_TEXT,
    "<|im_start|>": START,
    "<|im_end|>": END,
    "<|fim_prefix|>": 259,
    "<|fim_suffix|>": 260,
    "<|fim_middle|>": 261,
}
VOCABULARY_SIZE = 262
CHAT_TEMPLATE = """\
{%- if tools -%}
    {{- '<|im_start|>system\\n<tools>' + tools | tojson + '</tools><|im_end|>' -}}
{%- endif -%}
{%- for message in messages -%}
    {{- '<|im_start|>' + message.role + '\\n' + message.content -}}
    {%- for call in message.tool_calls -%}
        {{- '<tool_call>' + call.function | tojson + '</tool_call>' -}}
    {%- endfor -%}
    {{- '<|im_end|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""
RIGHT, NEXT_BEST, TYPING_ERROR, UNLIKELY = 16.0, 12.0, 6.0, -16.0
NO_FAULTS = Faults()
LETTERS = np.frombuffer(b" abcdefghijklmnopqrstuvwxyz", np.uint8)


class ToyGenerator(ContinuousGenerator):
    """The weightless twin of `LlamaCppGenerator`.

    `step_seconds` is how long a step lasts; `kv_cells` is the size of the KV pool in tokens.
    `faults`: see `Faults`.
    """

    def __init__(
        self,
        listener: StepListener,
        *,
        context_length: int = CONTEXT_LENGTH,
        max_sequences: int = 16,
        max_queued: int = 256,
        kv_cells: int | None = None,
        step_seconds: float = 0.0,
        faults: Mapping[str, str | bool] | None = None,
    ) -> None:
        cells = max(kv_cells or max_sequences * 1024, context_length)
        slots = max_sequences + CACHED_SEQUENCES
        vocabulary = ByteVocabulary()

        def load() -> DecodeLoop:
            runner = ToyRunner(
                vocabulary,
                cells=cells,
                slots=slots,
                step_seconds=step_seconds,
                faults=Faults.of(faults),
            )
            return DecodeLoop(runner, max_sequences=max_sequences)

        engine = EngineThread(
            load, listener, max_open=max_sequences + max_queued, name="toy-engine"
        )
        template = ChatTemplate(CHAT_TEMPLATE, control_texts=CONTROL_TOKENS)
        super().__init__(
            engine,
            vocabulary,
            template,
            ChatFormat.detect(CHAT_TEMPLATE, CONTROL_TOKENS),
            context_length=context_length,
            memory_bytes=0,
        )


class ByteVocabulary:
    """One token per byte, and the control tokens."""

    size = VOCABULARY_SIZE
    pieces: Sequence[bytes] = (
        *(bytes([byte]) for byte in range(256)),
        *(b"" for _ in CONTROL_TOKENS),
    )
    longest_piece = max(map(len, CONTROL_TOKENS))
    end_tokens = frozenset({END_OF_TEXT, END})
    bos: int | None = None
    control_tokens: Mapping[str, int] = CONTROL_TOKENS
    infill_tokens: tuple[int, int, int] | None = (259, 260, 261)

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        del add_special  # there is no BOS token
        if parse_special:
            for control, token in CONTROL_TOKENS.items():
                before, found, after = text.partition(control)
                if found:
                    sides = (
                        self.tokenize(s, add_special=False, parse_special=True)
                        for s in (before, after)
                    )
                    return [*next(sides), token, *next(sides)]
        return list(text.encode("utf-8", "replace"))


class ToyRunner:
    """A `TokenRunner` that remembers the tokens themselves, and refuses what llama.cpp would."""

    shares_prefixes = True
    n_batch = N_BATCH

    def __init__(
        self,
        vocabulary: ByteVocabulary,
        *,
        cells: int,
        slots: int,
        step_seconds: float = 0.0,
        faults: Faults = NO_FAULTS,
    ) -> None:
        faults.at_load()
        self.faults = faults
        self.vocabulary = vocabulary
        self.cells = cells
        self.resident_cells = cells // 2
        self.slots = slots
        self.max_outputs = slots + SCORING_ROWS
        self._step_seconds = step_seconds
        self._tokens: list[list[int]] = [[] for _ in range(slots)]
        self._outputs: dict[int, tuple[list[int], int]] = {}

    def decode(self, batch: Batch) -> bool:
        time.sleep(self._step_seconds)
        self._outputs.clear()
        for index in range(batch.size):
            known = self._tokens[batch.slots[index]]
            if batch.positions[index] != len(known):
                raise ValueError("a gap in the positions of a sequence")
            known.append(int(batch.tokens[index]))
            if batch.outputs[index]:
                self._outputs[index] = known, len(known)
        return True

    def output(self, index: int) -> list[int]:
        """The tokens up to an entry of the last batch whose logits were asked for."""
        known, length = self._outputs[index]
        return known[:length]

    def sampler(self, params: SamplingParams, prompt: Sequence[int]) -> ToySampler:
        return ToySampler(self, params, prompt)

    def copy(self, source: int, target: int, length: int) -> None:
        self._tokens[target] = self._tokens[source][:length]

    def remove(self, slot: int) -> None:
        self._tokens[slot] = []

    def close(self) -> None:
        self._tokens.clear()


class ToySampler:
    """A `Sampler` over logits that depend on the tokens in the KV memory, as real ones do."""

    def __init__(self, runner: ToyRunner, params: SamplingParams, prompt: Sequence[int]) -> None:
        self._runner = runner
        self._prompt_tokens = len(prompt)
        self._sampler = NumpySampler(params, prompt=prompt, end_tokens=runner.vocabulary.end_tokens)

    def choose(self, index: int, constraint: TokenConstraint | None = None) -> int:
        return self._sampler.choose(self.logits(index), constraint)

    def accept(self, token: int) -> None:
        self._sampler.accept(token)

    def logits(self, index: int) -> FloatArray:
        known = self._runner.output(index)
        prompt = known[: self._prompt_tokens]
        if self._runner.faults.infer:
            self._runner.faults.in_text(bytes(t for t in prompt if t < 256).decode("latin-1"))
        reply = reply_to(prompt)
        written = len(known) - self._prompt_tokens
        row = np.full(VOCABULARY_SIZE, UNLIKELY, np.float32)
        at = written % (len(reply) + 1)
        right = END_OF_TEXT if at == len(reply) else reply[at]
        if right == END_OF_TEXT:
            row[ord(" ")] = NEXT_BEST
        if right < 128:  # an error within a character would not be text
            row[LETTERS] = TYPING_ERROR
        row[right] = RIGHT
        return row

    def close(self) -> None:
        """Nothing to free."""


def reply_to(prompt: Sequence[int]) -> list[int]:
    """What the model wants to write after a prompt: its last message, or " " and all of it."""
    tokens = list(prompt)
    if tokens.count(START) < 2:
        return [ord(" "), *(token for token in tokens if token < END_OF_TEXT)]
    generation = _last(tokens, START, len(tokens))
    message = tokens[_last(tokens, START, generation) + 1 : generation]
    content = message[message.index(ord("\n")) + 1 :]
    return [token for token in content if token < END_OF_TEXT]


def _last(tokens: list[int], wanted: int, end: int) -> int:
    """Where `wanted` occurs for the last time before `end`."""
    return max(index for index in range(end) if tokens[index] == wanted)
