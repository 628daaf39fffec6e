"""What a model's files hold, where they lie in the layouts of real repositories."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.weights_samples import safetensors
from weights.headers import HeaderError
from weights.sizes import count_safetensors, onnx_bytes


def test_a_copy_of_the_weights_in_another_layout_counts_once(tmp_path: Path) -> None:
    (tmp_path / "consolidated.safetensors").write_bytes(safetensors())
    assert count_safetensors(tmp_path).floats == 2, "without others it is the weights"
    (tmp_path / "model-00001-of-00002.safetensors").write_bytes(safetensors())
    (tmp_path / "model-00002-of-00002.safetensors").write_bytes(safetensors())
    assert count_safetensors(tmp_path).floats == 4
    assert count_safetensors(tmp_path / "consolidated.safetensors").floats == 2


def test_a_folder_without_weights_is_said(tmp_path: Path) -> None:
    with pytest.raises(HeaderError, match="no safetensors"):
        count_safetensors(tmp_path)


def test_the_data_of_a_graph_counts_whatever_the_graph_was_called(tmp_path: Path) -> None:
    sizes = {"model.onnx": 1, "model_q.onnx_data": 10, "model_q.onnx_data_1": 100}
    for name, size in sizes.items():
        (tmp_path / name).write_bytes(bytes(size))
    assert onnx_bytes(tmp_path / "model.onnx") == 111
    (tmp_path / "model_q.onnx").write_bytes(bytes(1000))
    assert onnx_bytes(tmp_path / "model.onnx") == 1
    assert onnx_bytes(tmp_path / "model_q.onnx") == 1110
