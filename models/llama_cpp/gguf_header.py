"""Reads and checks the header of a GGUF file in pure Python, before native code sees the file.

The format: magic, version, tensor count, key count, key-value pairs, tensor infos, padding,
tensor data (github.com/ggml-org/ggml, docs/gguf.md). Every count and length is bounded by the
size of the file, so a hostile header costs no more than reading it once.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass, field
from pathlib import Path

from models.errors import ModelLoadError

MAX_KEYS = 4096
MAX_TENSORS = 65_536
MAX_STRING = 4 * 2**20
MAX_DIMENSIONS = 4
DEFAULT_ALIGNMENT = 32

Scalar = int | float | bool | str
_FORMATS = dict(zip((*range(8), 10, 11, 12), "BbHhIif?Qqd", strict=True))
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """The metadata of a GGUF file. `values` has all scalars and short arrays of numbers."""

    values: dict[str, Scalar | tuple[Scalar, ...]]
    tensor_count: int
    format_counts: dict[int, int]
    """How many numbers are stored in each format, by its value in `enum ggml_type`."""
    tensors: dict[str, int] = field(default_factory=dict)
    """Bytes of each tensor, up to the next one in the file."""
    vocabulary: int = 0
    """Rows of the table of tokens."""

    @property
    def main_format(self) -> int | None:
        """The format of most of the numbers; None for a file without tensors."""
        return max(self.format_counts, key=self.format_counts.__getitem__, default=None)

    @property
    def architecture(self) -> str:
        return str(self.values.get("general.architecture", ""))

    @property
    def context_length(self) -> int:
        """Tokens the model was trained for; 0 when the file does not say."""
        return self.number("context_length")

    @property
    def chat_template(self) -> str | None:
        template = self.values.get("tokenizer.chat_template")
        return template if isinstance(template, str) else None

    @property
    def is_causal(self) -> bool:
        """Whether tokens see only those before them; encoders say that theirs see all."""
        return bool(self.values.get(f"{self.architecture}.attention.causal", True))

    @property
    def token_types(self) -> int:
        """How many types of tokens a BERT tells apart; 0 for models without types."""
        value = self.values.get("tokenizer.ggml.token_type_count", 0)
        return int(value) if isinstance(value, int) else 0

    def number(self, key: str, default: int = 0) -> int:
        """A number of the architecture's own, as `block_count`; of several the largest."""
        value = self.values.get(f"{self.architecture}.{key}", default)
        if isinstance(value, tuple):
            value = max((n for n in value if isinstance(n, int)), default=default)
        return int(value) if isinstance(value, int | float) else default


def read_gguf_header(path: Path) -> GgufHeader:
    """Raises ModelLoadError when the file is missing, no GGUF, cut short or out of bounds.

    Of a split file's first part: what it holds itself.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Reader(data).header()
    except OSError as error:
        raise ModelLoadError("the GGUF file cannot be read") from error
    except ValueError as error:  # mmap refuses empty files with it
        raise ModelLoadError(f"this is not a valid GGUF file: {error}") from error
    except (struct.error, UnicodeDecodeError) as error:
        raise ModelLoadError("this is not a valid GGUF file: its header is broken") from error


class _Reader:
    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._at = 0
        self._vocabulary = 0

    def header(self) -> GgufHeader:
        if self._data[:4] != b"GGUF":
            raise ValueError("the magic bytes are wrong")
        self._at = 4
        version = self._unpack("I")
        if version not in (2, 3):
            raise ValueError(f"version {version} is not supported")
        tensors = self._bounded("Q", MAX_TENSORS, "tensor count")
        keys = self._bounded("Q", MAX_KEYS, "key count")
        values = {}
        for _ in range(keys):
            name = self._string()
            value = self._value(self._unpack("I"))
            if value is not None:
                values[name] = value
        alignment = _checked_alignment(values.get("general.alignment", DEFAULT_ALIGNMENT))
        counts, starts = self._tensors(tensors)
        room = len(self._data) - -(-self._at // alignment) * alignment
        return GgufHeader(values, tensors, counts, _sizes(starts, room), self._vocabulary)

    def _unpack(self, code: str) -> int:
        (value,) = struct.unpack_from("<" + code, self._data, self._at)
        self._at += struct.calcsize(code)
        return value  # type: ignore[no-any-return]

    def _bounded(self, code: str, limit: int, what: str) -> int:
        value = self._unpack(code)
        if value > limit:
            raise ValueError(f"the {what} is out of bounds")
        return value

    def _skip(self, size: int) -> None:
        self._at += size
        if self._at > len(self._data):
            raise ValueError("the header is cut short")

    def _string(self) -> str:
        size = self._bounded("Q", MAX_STRING, "length of a string")
        start = self._at
        self._skip(size)
        return self._data[start : self._at].decode("utf-8")

    def _value(self, kind: int) -> Scalar | tuple[Scalar, ...] | None:
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            return self._array()
        return self._unpack(_format(kind))

    def _array(self) -> tuple[Scalar, ...] | None:
        """Numbers of short arrays; longer ones and strings (the vocabulary) are skipped."""
        kind = self._unpack("I")
        count = self._bounded("Q", len(self._data), "length of an array")
        if kind == _STRING:
            for _ in range(count):
                self._skip(self._bounded("Q", MAX_STRING, "length of a string"))
            return None
        code = _format(kind)
        if count > MAX_KEYS:
            self._skip(count * struct.calcsize(code))
            return None
        return tuple(self._unpack(code) for _ in range(count))

    def _tensors(self, tensors: int) -> tuple[dict[int, int], list[tuple[int, str]]]:
        """(numbers by format, where each tensor starts in the data)."""
        counts: dict[int, int] = {}
        starts = []
        for _ in range(tensors):
            name = self._string()
            dimensions = self._bounded("I", MAX_DIMENSIONS, "number of dimensions")
            sizes = [self._unpack("Q") for _ in range(dimensions)]
            kind = self._unpack("I")
            offset = self._bounded("Q", len(self._data), "offset of a tensor")
            counts[kind] = counts.get(kind, 0) + self._elements(sizes, offset)
            starts.append((offset, name))
            if name == "token_embd.weight":
                self._vocabulary = sizes[-1]
        return counts, starts

    def _elements(self, sizes: list[int], offset: int) -> int:
        elements = 1
        for size in sizes:
            elements *= size
        # the densest formats store eight numbers in a byte
        if not 0 < elements <= 8 * (len(self._data) - offset):
            raise ValueError("the shape of a tensor is out of bounds")
        return elements


def _sizes(starts: list[tuple[int, str]], room: int) -> dict[str, int]:
    """Bytes from each tensor's start to the next one's, of the last to the end of the file."""
    starts = sorted(starts)
    ends = [*(start for start, _ in starts), room][1:]
    sizes = {name: end - start for (start, name), end in zip(starts, ends, strict=True)}
    if min(sizes.values(), default=0) < 0:
        raise ValueError("a tensor lies beyond the end of the file")
    return sizes


def _checked_alignment(alignment: object) -> int:
    valid = type(alignment) is int and 1 <= alignment <= 65_536 and alignment.bit_count() == 1
    if not valid:
        raise ValueError("the alignment is out of bounds")
    return int(str(alignment))


def _format(kind: int) -> str:
    code = _FORMATS.get(kind)
    if code is None:
        raise ValueError("a value has an unknown type")
    return code
