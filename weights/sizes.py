"""How much a model's files hold, told from their headers alone."""

from __future__ import annotations

import math
import re
import struct
from dataclasses import dataclass
from pathlib import Path

from weights.headers import HeaderError, safetensors_header
from weights.selection import without_copies

_ONNX_DATA = re.compile(r"\.onnx_data(_\d+)?$")
FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
"""What is cast to the number format of the computation; the rest stays as it is stored."""


@dataclass(frozen=True, slots=True)
class TensorCount:
    """`floats` are numbers, `others` bytes; `stored` is the format of most of the numbers."""

    floats: int
    others: int
    stored: str

    def bytes_as(self, n_bytes: int) -> int:
        """With `n_bytes` for each floating-point number."""
        return self.floats * n_bytes + self.others


def count_safetensors(path: Path) -> TensorCount:
    """Of one file or of all in a folder. Raises HeaderError, also when there is none."""
    files = [path] if path.is_file() else _weight_files(path)
    if not files:
        raise HeaderError("the folder has no safetensors weights.")
    by_format: dict[str, int] = {}
    others = 0
    for file in files:
        try:
            tensors = safetensors_header(file).values()
            for tensor in tensors:
                start, end = tensor["data_offsets"]
                if tensor["dtype"] in FLOATS:
                    count = math.prod(tensor["shape"])
                    by_format[tensor["dtype"]] = by_format.get(tensor["dtype"], 0) + count
                else:
                    others += end - start
        except (KeyError, TypeError, ValueError, struct.error) as error:
            raise HeaderError(f"{file.name} describes its tensors wrongly.") from error
    stored = max(by_format, key=by_format.__getitem__, default="F32")
    return TensorCount(sum(by_format.values()), others, stored)


def _weight_files(folder: Path) -> list[Path]:
    names = sorted(file.name for file in folder.glob("*.safetensors"))
    return [folder / name for name in without_copies(names)]


def onnx_bytes(graph: Path) -> int:
    """The graph and the data beside it, which keep their name where the graph was renamed."""
    size = graph.stat().st_size
    for file in graph.parent.iterdir():
        owner = graph.with_name(_ONNX_DATA.sub(".onnx", file.name))
        if owner != file and (owner == graph or not owner.is_file()):
            size += file.stat().st_size
    return size
