"""Every call into llama.cpp, through the low-level API of llama-cpp-python 0.3.36.

What aborts or crashes the process natively is refused here first: batches beyond `n_batch`, token
and sequence ids out of range, use after free. One thread owns a `NativeContext`: it creates it and
calls everything on it, because a second OpenMP master thread in the process halves decode speed.
`NativeModel` is read-only and its tokeniser may be called from any thread until `close`.
"""

from __future__ import annotations

import ctypes
import logging
import threading
from collections.abc import Sequence
from pathlib import Path

import llama_cpp.llama_cpp as api
import numpy as np

from models.continuous_batching.batch import Batch
from models.errors import ModelLoadError
from models.types.common import FloatArray

POOLINGS = {
    "none": api.LLAMA_POOLING_TYPE_NONE,
    "mean": api.LLAMA_POOLING_TYPE_MEAN,
    "cls": api.LLAMA_POOLING_TYPE_CLS,
    "lasttoken": api.LLAMA_POOLING_TYPE_LAST,
    "rank": api.LLAMA_POOLING_TYPE_RANK,
}
"""How llama.cpp makes one vector of a sequence; "rank" is the classification head's output."""
KV_TYPES = {"f16": api.GGML_TYPE_F16, "q8_0": api.GGML_TYPE_Q8_0}

_CONTROL = api.LLAMA_TOKEN_ATTR_CONTROL | api.LLAMA_TOKEN_ATTR_UNKNOWN
_LOG_LEVELS = {2: logging.DEBUG, 3: logging.WARNING, 4: logging.ERROR}
_log = logging.getLogger(__name__)


@api.llama_log_callback  # type: ignore[untyped-decorator]
def _forward_log(level: int, text: bytes, _: ctypes.c_void_p) -> None:
    _log.log(_LOG_LEVELS.get(level, logging.DEBUG), "%s", text.decode("utf-8", "replace").rstrip())


def computes_on_gpus() -> bool:
    """False for a build without a GPU's backend, and where that finds no GPU: layers that are meant
    for one stay on the host then."""
    return bool(api.llama_supports_gpu_offload())


class NativeModel:
    """Weights and vocabulary of one GGUF file.

    Raises ModelLoadError when llama.cpp refuses the file.
    """

    def __init__(self, path: Path, *, n_gpu_layers: int = 0) -> None:
        self._lock = threading.Lock()
        api.llama_log_set(_forward_log, None)
        api.llama_backend_init()
        params = api.llama_model_default_params()
        params.n_gpu_layers = n_gpu_layers
        pointer = api.llama_model_load_from_file(str(path).encode(), params)
        if not pointer:
            raise ModelLoadError("llama.cpp cannot load this GGUF file")
        self.pointer: int | None = pointer
        self._vocab = api.llama_model_get_vocab(pointer)
        self.size_bytes = int(api.llama_model_size(pointer))
        self.trained_context = int(api.llama_model_n_ctx_train(pointer))
        self.width = int(api.llama_model_n_embd_out(pointer))
        self.class_count = int(api.llama_model_n_cls_out(pointer))
        self.size = int(api.llama_vocab_n_tokens(self._vocab))
        self._read_vocabulary()

    def _read_vocabulary(self) -> None:
        ids = range(self.size)
        vocab = self._vocab
        self.pieces = tuple(_piece(vocab, token, special=False) for token in ids)
        self.end_tokens = frozenset(t for t in ids if api.llama_vocab_is_eog(vocab, t))
        self.control_tokens = {
            self._text(t): t for t in ids if api.llama_vocab_get_attr(vocab, t) & _CONTROL
        }
        self.longest_piece = max(map(len, (*self.pieces, *self.control_tokens)))
        infill = (
            int(api.llama_vocab_fim_pre(vocab)),
            int(api.llama_vocab_fim_suf(vocab)),
            int(api.llama_vocab_fim_mid(vocab)),
        )
        self.infill_tokens = infill if min(infill) >= 0 else None
        bos = int(api.llama_vocab_bos(vocab))
        self.bos = bos if bos >= 0 and api.llama_vocab_get_add_bos(vocab) else None
        self.bos_text = self._text(bos)
        self.eos_text = self._text(int(api.llama_vocab_eos(vocab)))

    @property
    def is_generator(self) -> bool:
        """False for encoders and diffusion models, which this engine cannot decode."""
        model = self.pointer
        return bool(api.llama_model_has_decoder(model)) and not (
            api.llama_model_has_encoder(model) or api.llama_model_is_diffusion(model)
        )

    @property
    def class_labels(self) -> tuple[str, ...]:
        """What a rank head's outputs mean; their numbers where the file does not say."""
        names = (api.llama_model_cls_label(self.pointer, n) for n in range(self.class_count))
        return tuple(
            name.decode("utf-8", "replace") if name else str(n) for n, name in enumerate(names)
        )

    @property
    def separator(self) -> int | None:
        """The token between the texts of a pair, where the model puts one beside their ends."""
        token = int(api.llama_vocab_sep(self._vocab))
        return token if token >= 0 and api.llama_vocab_get_add_sep(self._vocab) else None

    @property
    def ends_texts(self) -> bool:
        """Whether the vocabulary closes every text with its end token."""
        return bool(api.llama_vocab_get_add_eos(self._vocab))

    @property
    def shares_prefixes(self) -> bool:
        """Whether part of a sequence can be copied to another one.

        Not so for recurrent and hybrid models (one state, no cells), nor with sliding windows
        (older cells are gone).
        """
        model = self.pointer
        return not (
            api.llama_model_is_recurrent(model)
            or api.llama_model_is_hybrid(model)
            or api.llama_model_n_swa(model) > 0
        )

    def _text(self, token: int) -> str:
        """The text by which templates name a token; empty when there is no such token."""
        if not 0 <= token < self.size:
            return ""
        return str((api.llama_vocab_get_text(self._vocab, token) or b"").decode("utf-8", "replace"))

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Token ids; `parse_special` turns the texts of control tokens into those tokens."""
        data = text.encode("utf-8", "replace")
        with self._lock:
            if self.pointer is None:
                raise ValueError("the model is closed")
            count = len(data) + 8
            while True:
                buffer = (api.llama_token * count)()
                found = api.llama_tokenize(
                    self._vocab, data, len(data), buffer, count, add_special, parse_special
                )
                if found >= 0:
                    tokens: list[int] = buffer[:found]
                    return tokens
                count = -found

    def close(self) -> None:
        with self._lock:
            if self.pointer is not None:
                api.llama_model_free(self.pointer)
                self.pointer = None


def _piece(vocab: int, token: int, *, special: bool) -> bytes:
    size = 64
    while True:
        buffer = ctypes.create_string_buffer(size)
        found = api.llama_token_to_piece(vocab, token, buffer, size, 0, special)
        if found >= 0:
            return buffer.raw[:found]
        size = -found


class _NativeBatch:
    """llama.cpp's view of the arrays of a batch; keeps alive what it points to."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self._ones = np.ones(batch.capacity, np.int32)
        base = batch.slots.ctypes.data
        self._slot_pointers = np.arange(base, base + 4 * batch.capacity, 4, dtype=np.uint64)
        int_pointer = ctypes.POINTER(ctypes.c_int32)
        self.native = api.llama_batch(
            n_tokens=0,
            token=batch.tokens.ctypes.data_as(int_pointer),
            embd=None,
            pos=batch.positions.ctypes.data_as(int_pointer),
            n_seq_id=self._ones.ctypes.data_as(int_pointer),
            seq_id=self._slot_pointers.ctypes.data_as(ctypes.POINTER(int_pointer)),
            logits=batch.outputs.ctypes.data_as(ctypes.POINTER(ctypes.c_int8)),
        )


class NativeContext:
    """The KV pool and compute buffers of one model, owned by the thread that creates it.

    `cells` KV cells are shared by `slots` sequences (unified pool); a step holds at most `n_batch`
    tokens and `max_outputs` rows of logits.
    """

    def __init__(
        self,
        model: NativeModel,
        *,
        cells: int,
        slots: int,
        n_batch: int,
        max_outputs: int,
        n_threads: int,
        kv_cache: str = "f16",
    ) -> None:
        params = api.llama_context_default_params()
        params.n_ctx = cells
        params.type_k = params.type_v = KV_TYPES[kv_cache]
        params.n_batch = params.n_ubatch = n_batch
        params.n_seq_max = slots
        params.n_outputs_max = max_outputs  # the default is n_batch; fewer than slots aborts
        params.n_threads = params.n_threads_batch = n_threads
        params.flash_attn_type = api.LLAMA_FLASH_ATTN_TYPE_AUTO
        params.kv_unified = True
        params.no_perf = True
        self._pointer = api.llama_init_from_model(model.pointer, params)
        if not self._pointer:
            raise ModelLoadError("llama.cpp cannot allocate the context of this model")
        self._memory = api.llama_get_memory(self._pointer)
        self.cells = int(api.llama_n_ctx(self._pointer))
        self.slots = slots
        self.n_batch = n_batch
        self._max_outputs = max_outputs
        self._vocabulary_size = model.size
        self._row = ctypes.c_float * model.size
        self._rows: dict[int, FloatArray] = {}
        self._view: _NativeBatch | None = None

    def decode(self, batch: Batch) -> bool:
        """Evaluate a batch; False when the pool has no room for it (nothing was changed).

        Raises ValueError for input that llama.cpp would refuse and RuntimeError for a failure in
        the computation, after which the context cannot be trusted.
        """
        self._check(batch)
        if self._view is None or self._view.batch is not batch:
            self._view = _NativeBatch(batch)
        self._view.native.n_tokens = batch.size
        status = api.llama_decode(self._pointer, self._view.native)
        if status not in (0, 1):
            raise RuntimeError(f"llama_decode failed with status {status}")
        return bool(status == 0)

    def _check(self, batch: Batch) -> None:
        tokens, slots = batch.tokens[: batch.size], batch.slots[: batch.size]
        if not 0 < batch.size <= self.n_batch:
            raise ValueError("a batch is empty or larger than n_batch")
        if tokens.min() < 0 or tokens.max() >= self._vocabulary_size:
            raise ValueError("a token id is outside the vocabulary")
        if slots.min() < 0 or slots.max() >= self.slots:
            raise ValueError("a sequence id is outside the pool")
        if batch.outputs[: batch.size].sum() > self._max_outputs:
            raise ValueError("a batch asks for too many rows of logits")

    def logits(self, index: int) -> FloatArray:
        """Row of logits of batch entry `index`: float32 [vocabulary], valid until the next decode.

        A view into llama.cpp's buffer: copy what must live longer.
        """
        address = ctypes.addressof(api.llama_get_logits_ith(self._pointer, index).contents)
        row = self._rows.get(address)
        if row is None:
            row = np.ctypeslib.as_array(self._row.from_address(address))
            self._rows[address] = row
        return row

    def sample(self, chain: SamplerChain, index: int) -> int:
        """Draw the token after batch entry `index` and let the chain remember it."""
        return int(api.llama_sampler_sample(chain.pointer, self._pointer, index))

    def copy(self, source: int, target: int, length: int) -> None:
        """Let sequence `target` share the first `length` cells of `source`."""
        api.llama_memory_seq_cp(self._memory, source, target, 0, length)

    def remove(self, slot: int) -> None:
        """Drop a sequence; cells that no other sequence shares become free."""
        api.llama_memory_seq_rm(self._memory, slot, -1, -1)

    def length(self, slot: int) -> int:
        """Tokens that the pool holds of a sequence."""
        return int(api.llama_memory_seq_pos_max(self._memory, slot)) + 1

    def clear(self) -> None:
        api.llama_memory_clear(self._memory, False)

    def close(self) -> None:
        if self._pointer:
            api.llama_free(self._pointer)
            self._pointer = None
            self._rows.clear()


class NativeEncoder:
    """A context that gives a vector for each sequence, owned by the thread that creates it.

    A step holds at most `n_batch` tokens of at most `slots` sequences, each of which begins and
    ends in it: nothing is kept between steps. `pooling` is one of `POOLINGS`.
    """

    def __init__(
        self, model: NativeModel, *, pooling: str, n_batch: int, slots: int, n_threads: int
    ) -> None:
        params = api.llama_context_default_params()
        params.n_ctx = n_batch
        # attention that looks ahead must see a whole sequence in one go, or llama.cpp aborts
        params.n_batch = params.n_ubatch = n_batch
        params.n_seq_max = slots
        params.n_threads = params.n_threads_batch = n_threads
        params.pooling_type = POOLINGS[pooling]
        params.flash_attn_type = api.LLAMA_FLASH_ATTN_TYPE_AUTO
        params.embeddings = True
        params.kv_unified = True
        params.no_perf = True
        self._pointer = api.llama_init_from_model(model.pointer, params)
        if not self._pointer:
            raise ModelLoadError("llama.cpp cannot allocate the context of this model")
        self._memory = api.llama_get_memory(self._pointer)  # null for encoders, which keep nothing
        self._vocabulary_size = model.size
        self.n_batch = n_batch
        self.slots = slots
        width = model.class_count if pooling == "rank" else model.width
        self._row = ctypes.c_float * width
        self._view: _NativeBatch | None = None

    def encode(self, batch: Batch, sequences: int) -> list[FloatArray]:
        """The vectors of the sequences in slots 0 to `sequences`, float32 copies.

        Raises ValueError for input that llama.cpp would refuse or abort at, and RuntimeError for a
        failure in the computation, after which the context cannot be trusted.
        """
        self._check(batch)
        if self._view is None or self._view.batch is not batch:
            self._view = _NativeBatch(batch)
        self._view.native.n_tokens = batch.size
        if self._memory:
            api.llama_memory_clear(self._memory, False)
        status = api.llama_decode(self._pointer, self._view.native)
        if status != 0:
            raise RuntimeError(f"llama_decode failed with status {status}")
        return [self._vector(slot) for slot in range(sequences)]

    def _check(self, batch: Batch) -> None:
        tokens, slots = batch.tokens[: batch.size], batch.slots[: batch.size]
        if not 0 < batch.size <= self.n_batch:
            raise ValueError("a batch is empty or larger than n_batch")
        if tokens.min() < 0 or tokens.max() >= self._vocabulary_size:
            raise ValueError("a token id is outside the vocabulary")
        if slots.min() < 0 or slots.max() >= self.slots:
            raise ValueError("a sequence id is outside the context")

    def _vector(self, slot: int) -> FloatArray:
        pointer = api.llama_get_embeddings_seq(self._pointer, slot)
        if not pointer:
            raise RuntimeError("llama.cpp has no vector of a sequence")
        address = ctypes.addressof(pointer.contents)
        return np.ctypeslib.as_array(self._row.from_address(address)).copy()

    def close(self) -> None:
        if self._pointer:
            api.llama_free(self._pointer)
            self._pointer = None


class SamplerChain:
    """An owned chain of llama.cpp samplers; `close` frees it and its members."""

    def __init__(self, vocabulary_size: int) -> None:
        params = api.llama_sampler_chain_default_params()
        params.no_perf = True
        self.pointer = api.llama_sampler_chain_init(params)
        self._vocabulary_size = vocabulary_size

    def _add(self, sampler: object) -> None:
        if not sampler:
            raise ValueError("llama.cpp refused a sampler's parameters")
        api.llama_sampler_chain_add(self.pointer, sampler)

    def add_bias(self, bias: Sequence[tuple[int, float]]) -> None:
        """Add to the logits of some tokens; minus infinity bans one."""
        entries = (api.llama_logit_bias * len(bias))(*bias)
        self._add(api.llama_sampler_init_logit_bias(self._vocabulary_size, len(bias), entries))

    def add_penalties(
        self, window: int, repeat: float, frequency: float, presence: float, seen: Sequence[int]
    ) -> None:
        """Penalise tokens among the last `window` ones, of which `seen` are known already."""
        sampler = api.llama_sampler_init_penalties(
            self._vocabulary_size, window, repeat, frequency, presence
        )
        for token in seen[-window:]:
            api.llama_sampler_accept(sampler, token)
        self._add(sampler)

    def add_top_k(self, k: int) -> None:
        self._add(api.llama_sampler_init_top_k(k))

    def add_top_p(self, p: float) -> None:
        self._add(api.llama_sampler_init_top_p(p, 1))

    def add_min_p(self, p: float) -> None:
        self._add(api.llama_sampler_init_min_p(p, 1))

    def add_temperature(self, temperature: float) -> None:
        self._add(api.llama_sampler_init_temp(temperature))

    def add_greedy(self) -> None:
        self._add(api.llama_sampler_init_greedy())

    def add_draw(self, seed: int) -> None:
        """Draw from the distribution with a generator of this 32-bit seed."""
        self._add(api.llama_sampler_init_dist(seed))

    def drop_first(self) -> None:
        """Take the first sampler out of the chain; the others keep their state."""
        api.llama_sampler_free(api.llama_sampler_chain_remove(self.pointer, 0))

    def accept(self, token: int) -> None:
        """Tell the chain of a token that was chosen without it."""
        api.llama_sampler_accept(self.pointer, token)

    def close(self) -> None:
        if self.pointer:
            api.llama_sampler_free(self.pointer)
            self.pointer = None
