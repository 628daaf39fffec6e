"""Tiny encoders as ONNX files, written without the onnx package.

ONNX is protocol buffers: `_field` writes one field, the functions above it one message each, with
the field numbers of onnx.proto. The cross-encoder gives every token a random relevance, doubles
that of the document's tokens, and sums what the mask lets through. The bi-encoder gives every token
a random vector and adds to each the mean of those that the mask lets through.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.tiny_models import VOCABULARY, tokenizer

FLOAT, INT64 = 1, 7
WIDTH = 16
ATTRIBUTE_INT = 2


def write_onnx_reranker(path: Path, *, dynamic: bool = False, labels: int = 1) -> Path:
    """A folder as exporters write it; `dynamic` quantises activations over the whole batch."""
    tokenizer(typed=True, limit=512).save_pretrained(path)
    (path / "model.onnx").write_bytes(_model(dynamic, labels))
    return path


def write_onnx_encoder(
    path: Path, *, dynamic: bool = False, pooled: bool = False, file: str = "model.onnx"
) -> Path:
    """The same of hidden states; `pooled`: the graph gives their masked mean alone."""
    tokenizer(typed=True, limit=256).save_pretrained(path)
    (path / file).parent.mkdir(parents=True, exist_ok=True)
    (path / file).write_bytes(_wrapped(_encoder_graph(dynamic, pooled)))
    return path


def token_table() -> np.ndarray:
    """The vectors of the bi-encoder's tokens: [vocabulary, WIDTH]."""
    table = np.random.default_rng(1).standard_t(2, (len(VOCABULARY), WIDTH))
    return table.astype(np.float32)


def _model(dynamic: bool, labels: int) -> bytes:
    return _wrapped(_graph(dynamic, labels))


def _wrapped(graph: bytes) -> bytes:
    return _field(1, 8) + _field(8, _field(2, 13)) + _field(7, graph)


def _gathered(dynamic: bool) -> tuple[list[bytes], str]:
    """Nodes that look tokens up, quantised in between or not, and the name of what they give."""
    nodes = [_node("Gather", ["table", "input_ids"], ["gathered"])]
    if not dynamic:
        return nodes, "gathered"
    parts = ["quantised", "scale", "zero_point"]
    nodes += [
        _node("DynamicQuantizeLinear", ["gathered"], parts),
        _node("DequantizeLinear", parts, ["dequantised"]),
    ]
    return nodes, "dequantised"


def _encoder_graph(dynamic: bool, pooled: bool) -> bytes:
    nodes, states = _gathered(dynamic)
    nodes += [
        _node("Cast", ["attention_mask"], ["mask"], to=FLOAT),
        _node("Unsqueeze", ["mask", "last"], ["column"]),
        _node("Mul", [states, "column"], ["masked"]),
        _node("ReduceSum", ["masked", "tokens"], ["sum"], keepdims=1),
        _node("ReduceSum", ["column", "tokens"], ["count"], keepdims=1),
        _node("Div", ["sum", "count"], ["mean"]),
        _node("Cast", ["token_type_ids"], ["side"], to=FLOAT),
        _node("Add", [states, "mean"], ["last_hidden_state"]),
        _node("Squeeze", ["mean", "tokens"], ["sentence_embedding"]),
    ]
    constants = {
        "table": token_table(),
        "last": np.full(1, 2, np.int64),
        "tokens": np.ones(1, np.int64),
    }
    output = (
        _value("sentence_embedding", FLOAT, ("batch", WIDTH))
        if pooled
        else _value("last_hidden_state", FLOAT, ("batch", "tokens", WIDTH))
    )
    return _assembled(nodes, constants, output)


def _graph(dynamic: bool, labels: int) -> bytes:
    table = np.random.default_rng(0).standard_t(2, len(VOCABULARY)).astype(np.float32)
    nodes, gathered = _gathered(dynamic)
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
    return _assembled(nodes, constants, _value("logits", FLOAT, ("batch", labels)))


def _assembled(nodes: list[bytes], constants: dict[str, np.ndarray], output: bytes) -> bytes:
    inputs = ("input_ids", "attention_mask", "token_type_ids")
    return (
        b"".join(_field(1, node) for node in nodes)
        + _field(2, b"tiny")
        + b"".join(_field(5, _tensor(name, value)) for name, value in constants.items())
        + b"".join(_field(11, _value(name, INT64, ("batch", "tokens"))) for name in inputs)
        + _field(12, output)
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
