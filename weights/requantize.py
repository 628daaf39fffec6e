"""Storing a GGUF file's weights in another number format.

llama.cpp has matrix kernels that work on many rows at once for some formats only; in the others
a batch of eight sequences costs eight times as much as one. The conversion is done once, when the
weights are fetched. It is element-wise float32 arithmetic, so the result has the same bytes on
every machine, and the catalogue pins its digest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from models.errors import ModelLoadError
from weights.pip_download import Progress

FILE_TYPES = {"F16": 1, "Q8_0": 7, "BF16": 32}
"""The formats to convert to, with their values of `general.file_type` (llama.h, llama_ftype)."""
_KEPT = frozenset({"F32", "F16", "BF16", "F64", "I8", "I16", "I32", "I64"})
"""Formats without blocks: norms and biases, which are small and stay as they are."""
_QUANT_SUFFIX = re.compile(r"[-._](I?Q\d\w*|B?F16|F32)$", re.IGNORECASE)


def requantized_name(name: str, target: str) -> str:
    """File name of the converted file: "model.Q4_1.gguf" becomes "model.BF16.gguf"."""
    stem = _QUANT_SUFFIX.sub("", name.removesuffix(".gguf"))
    return f"{stem}.{target}.gguf"


def requantize(source: Path, result: Path, target: str, progress: Progress | None = None) -> None:
    """Write `source` to `result` with every quantised tensor in the format `target`.

    `progress` counts the bytes of `source`. Raises ModelLoadError for a tensor in a format that
    cannot be read.
    """
    import gguf

    reader = gguf.GGUFReader(source)
    architecture = reader.fields["general.architecture"].contents()
    with closing(gguf.GGUFWriter(result, architecture)) as writer:
        _copy_metadata(reader, writer, FILE_TYPES[target])
        _describe_tensors(reader, writer, target)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for values in _followed(_converted(reader, target), reader, progress):
            writer.write_tensor_data(values)


def _copy_metadata(reader: Any, writer: Any, file_type: int) -> None:
    import gguf

    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture":
            continue  # the writer writes them itself
        value = file_type if key == "general.file_type" else field.contents()
        kind = field.types[0]
        items = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(key, value, kind, items)


def _describe_tensors(reader: Any, writer: Any, target: str) -> None:
    import gguf

    for tensor in reader.tensors:
        kind = _format_of(tensor, target)
        shape = [int(size) for size in reversed(tensor.shape)]
        block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
        size = int(tensor.n_elements) // block * block_bytes
        writer.add_tensor_info(tensor.name, shape, None, size, raw_dtype=kind)


def _format_of(tensor: Any, target: str) -> Any:
    import gguf

    kept = tensor.tensor_type.name in _KEPT
    return tensor.tensor_type if kept else gguf.GGMLQuantizationType[target]


def _converted(reader: Any, target: str) -> Iterator[Any]:
    """The tensors' data in order, one in memory at a time."""
    from gguf import quants

    for tensor in reader.tensors:
        kind = _format_of(tensor, target)
        if kind == tensor.tensor_type:
            yield tensor.data
            continue
        try:
            values = quants.dequantize(tensor.data, tensor.tensor_type)
        except NotImplementedError as error:
            found = tensor.tensor_type.name
            raise ModelLoadError(f"{tensor.name} is in the format {found}, unreadable.") from error
        yield quants.quantize(values, kind)


def _followed(data: Iterator[Any], reader: Any, progress: Progress | None) -> Iterator[Any]:
    total = sum(int(tensor.n_bytes) for tensor in reader.tensors)
    done = 0
    for tensor, values in zip(reader.tensors, data, strict=True):
        yield values
        done += int(tensor.n_bytes)
        if progress is not None:
            progress(done, total)
