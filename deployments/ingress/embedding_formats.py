"""Vectors in the number formats of the embedding shapes.

int8 is the vector times 127, rounded: with unit vectors a dot product divided by 127² is the
cosine, whatever other texts were embedded (there is no calibration by a batch or a corpus).
uint8 is int8 + 128. ubinary is one bit per dimension, 1 where the number is positive, eight to a
byte, the first dimension in the highest bit; binary is the same byte - 128. A last byte that is not
full ends in zero bits.
"""

from __future__ import annotations

import base64
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from models.types.common import FloatArray
from models.types.texts import SparseVector

EmbeddingType = Literal["float", "int8", "uint8", "binary", "ubinary", "base64"]


def formatted(vectors: FloatArray, kind: EmbeddingType) -> list[Any]:
    """One entry per vector: an array of numbers, or base64 of little-endian float32."""
    match kind:
        case "float":
            return list(vectors)
        case "base64":
            raw = vectors.astype("<f4")
            return [base64.b64encode(row.tobytes()).decode() for row in raw]
        case "int8":
            return list(_scaled(vectors).astype(np.int8))
        case "uint8":
            return list((_scaled(vectors) + 128).astype(np.uint8))
        case "ubinary":
            return list(np.packbits(vectors > 0, axis=-1))
        case "binary":
            return list((np.packbits(vectors > 0, axis=-1).astype(np.int16) - 128).astype(np.int8))


def sparse_values(vector: SparseVector) -> list[dict[str, Any]]:
    """What is not zero, as TEI writes it."""
    pairs = zip(vector.indices, vector.values, strict=True)
    return [{"index": index, "value": value} for index, value in pairs]


def _scaled(vectors: FloatArray) -> npt.NDArray[np.int16]:
    return np.clip(np.rint(vectors * 127), -128, 127).astype(np.int16)
