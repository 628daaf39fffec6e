"""A tiny cross-encoder as an ONNX file, written without the onnx package.

ONNX is protocol buffers: `_field` writes one field, the functions above it one message each, with
the field numbers of onnx.proto. The graph gives every token a random relevance, doubles that of
the document's tokens, and sums what the mask lets through.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.tiny_models import VOCABULARY, tokenizer

FLOAT, INT64 = 1, 7
ATTRIBUTE_INT = 2


def write_onnx_reranker(path: Path, *, dynamic: bool = False, labels: int = 1) -> Path:
    """A folder as exporters write it; `dynamic` quantises activations over the whole batch."""
    tokenizer(typed=True, limit=512).save_pretrained(path)
    (path / "model.onnx").write_bytes(_model(dynamic, labels))
    return path


def _model(dynamic: bool, labels: int) -> bytes:
    opset = _field(2, 13)
    return _field(1, 8) + _field(8, opset) + _field(7, _graph(dynamic, labels))


def _graph(dynamic: bool, labels: int) -> bytes:
    table = np.random.default_rng(0).standard_t(2, len(VOCABULARY)).astype(np.float32)
    gathered = "relevance"
    nodes = [_node("Gather", ["table", "input_ids"], [gathered])]
    if dynamic:
        parts = ["quantised", "scale", "zero_point"]
        nodes += [
            _node("DynamicQuantizeLinear", [gathered], parts),
            _node("DequantizeLinear", parts, ["dequantised"]),
        ]
        gathered = "dequantised"
    nodes += [
        _node("Cast", ["attention_mask"], ["mask"], to=FLOAT),
        _node("Cast", ["token_type_ids"], ["side"], to=FLOAT),
        _node("Add", ["side", "one"], ["weight"]),
        _node("Mul", [gathered, "mask"], ["masked"]),
        _node("Mul", ["masked", "weight"], ["weighted"]),
        _node("ReduceSum", ["weighted", "axes"], ["sum"], keepdims=1),
        _node("Concat", ["sum"] * labels, ["logits"], axis=1),
    ]
    constants: dict[str, np.ndarray] = {
        "table": table,
        "one": np.ones(1, np.float32),
        "axes": np.ones(1, np.int64),
    }
    inputs = ("input_ids", "attention_mask", "token_type_ids")
    return (
        b"".join(_field(1, node) for node in nodes)
        + _field(2, b"tiny")
        + b"".join(_field(5, _tensor(name, value)) for name, value in constants.items())
        + b"".join(_field(11, _value(name, INT64, ("batch", "tokens"))) for name in inputs)
        + _field(12, _value("logits", FLOAT, ("batch", labels)))
    )


def _node(kind: str, inputs: list[str], outputs: list[str], **attributes: int) -> bytes:
    return (
        b"".join(_field(1, name.encode()) for name in inputs)
        + b"".join(_field(2, name.encode()) for name in outputs)
        + _field(4, kind.encode())
        + b"".join(
            _field(5, _field(1, name.encode()) + _field(3, value) + _field(20, ATTRIBUTE_INT))
            for name, value in attributes.items()
        )
    )


def _tensor(name: str, value: np.ndarray) -> bytes:
    kind = FLOAT if value.dtype == np.float32 else INT64
    dims = b"".join(_field(1, size) for size in value.shape)
    return dims + _field(2, kind) + _field(8, name.encode()) + _field(9, value.tobytes())


def _value(name: str, kind: int, shape: tuple[str | int, ...]) -> bytes:
    dims = b"".join(
        _field(1, _field(1, size) if isinstance(size, int) else _field(2, size.encode()))
        for size in shape
    )
    return _field(1, name.encode()) + _field(2, _field(1, _field(1, kind) + _field(2, dims)))


def _field(number: int, value: int | bytes) -> bytes:
    """A varint, or bytes with their length."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    groups = []
    while value > 127:
        groups.append(value & 127 | 128)
        value >>= 7
    return bytes([*groups, value])
