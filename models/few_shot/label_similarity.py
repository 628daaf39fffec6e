"""Labels by the similarity of embeddings: whose vector is closest to a text's."""

from __future__ import annotations

import numpy as np

from models.encoders.label_set import softmax
from models.types.common import FloatArray

SIMILARITY_SCALE = 20.0
"""What a cosine is multiplied with before softmax, as sentence-transformers' losses do."""


def similarity_scores(texts: FloatArray, labels: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Vectors [texts, dimensions] and [labels, dimensions] to cosines and probabilities."""
    cosines = unit_rows(texts) @ unit_rows(labels).T
    return cosines, softmax(SIMILARITY_SCALE * cosines).astype(np.float32)


def unit_rows(vectors: FloatArray) -> FloatArray:
    """Rows of unit length; a zero vector stays one."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(norms, 1e-12), dtype=np.float32)
