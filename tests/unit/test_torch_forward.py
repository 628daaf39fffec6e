"""Choosing a forward path: what does not agree with the plain float32 model is not used."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModel

from models import prepacked_linear
from models.encoders import torch_forward
from models.encoders.packed_transformer import PackedBackbone, PaddedBackbone
from models.encoders.pooling import pool
from models.encoders.tokenization import TextTokenizer, TokenSequence
from models.encoders.torch_forward import Dtype, Forward, TorchOptions, TorchRunner
from models.errors import EngineDeadError, ModelLoadError
from tests.tiny_models import CONFIGS, tokenizer

Backbone = Callable[[Sequence[TokenSequence]], Tensor]


class Paths:
    """Mean pooling over a tiny model; `spoil_*` turn a path's output into something else."""

    def __init__(
        self,
        spoil_packed: Callable[[Tensor], Tensor] = lambda t: t,
        spoil_reduced: Callable[[Tensor], Tensor] = lambda t: t,
        spoil_plain: Callable[[Tensor], Tensor] = lambda t: t,
        family: str = "bert",
    ) -> None:
        self._family = family
        self._spoil_packed = spoil_packed
        self._spoil_reduced = spoil_reduced
        self._spoil_plain = spoil_plain
        self.loads = 0

    def load(self) -> Any:
        self.loads += 1
        torch.manual_seed(0)
        return _without_pooler(CONFIGS[self._family]()).eval()

    def plain(self, model: Any) -> Forward:
        return self._pooled(PaddedBackbone(model), model, self._spoil_plain)

    def packed(self, model: Any) -> Forward:
        return self._pooled(PackedBackbone(model), model, self._spoil_packed)

    def trunk(self, model: Any) -> Sequence[nn.Module]:
        return (model,)

    def _pooled(self, backbone: Backbone, model: Any, spoil: Callable[[Tensor], Tensor]) -> Forward:
        reduced = next(model.parameters()).dtype == torch.bfloat16

        def forward(sequences: Sequence[TokenSequence]) -> Tensor:
            vectors = spoil(pool(backbone(sequences), [len(s) for s in sequences], ("mean",)))
            return self._spoil_reduced(vectors) if reduced else vectors

        return forward


def _without_pooler(config: Any) -> Any:
    pooler = {} if config.model_type == "modernbert" else {"add_pooling_layer": False}
    return AutoModel.from_config(config, **pooler)


def _fail(_: Tensor) -> Tensor:
    raise RuntimeError("no such operator")


def _runner(paths: Paths, dtype: Dtype = "float32") -> TorchRunner:
    ours = TextTokenizer(tokenizer(typed=True, limit=512).backend_tokenizer, has_types=True)
    return TorchRunner(paths, ours, 512, TorchOptions(n_threads=1, dtype=dtype))


SEQUENCES = [TokenSequence(range(5, 5 + n), [0] * n) for n in (9, 2, 30, 9)]


def _rows(runner: TorchRunner) -> Any:
    return np.stack(runner(SEQUENCES))


def test_a_sound_model_is_packed_and_reduced() -> None:
    runner = _runner(Paths(), "bfloat16")
    assert (runner.packed, runner.dtype) == (True, torch.bfloat16)
    assert (runner.features, runner.max_tokens) == (32, 320)
    full = _runner(Paths())
    assert runner.memory_bytes * 2 == full.memory_bytes
    np.testing.assert_allclose(_rows(runner), _rows(full), atol=0.05)


SPOILS = [lambda t: t + 0.1, lambda t: t * float("nan"), lambda t: t[:, :5], _fail]


@pytest.mark.parametrize("spoil", SPOILS)
def test_a_packed_path_that_does_not_agree_is_not_used(spoil: Any) -> None:
    runner = _runner(Paths(spoil_packed=spoil))
    assert not runner.packed
    np.testing.assert_allclose(_rows(runner), _rows(_runner(Paths())), atol=1e-4)


@pytest.mark.parametrize("spoil", [lambda t: -t, *SPOILS[1:]])
def test_a_precision_that_does_not_agree_is_not_used(spoil: Any) -> None:
    paths = Paths(spoil_reduced=spoil)
    runner = _runner(paths, "bfloat16")
    assert (runner.packed, runner.dtype, paths.loads) == (True, torch.float32, 2)
    assert runner.memory_bytes == _runner(Paths()).memory_bytes
    np.testing.assert_allclose(_rows(runner), _rows(_runner(Paths())), atol=1e-4)


class CountingPaths(Paths):
    """Notes how many of its models are there whenever it loads one."""

    def __init__(self, spoil_reduced: Callable[[Tensor], Tensor]) -> None:
        super().__init__(spoil_reduced=spoil_reduced)
        self._models: weakref.WeakSet[Any] = weakref.WeakSet()
        self.others: list[int] = []

    def load(self) -> Any:
        self.others.append(len(self._models))
        model = super().load()
        self._models.add(model)
        return model


def test_a_model_has_gone_before_it_is_loaded_again() -> None:
    paths = CountingPaths(spoil_reduced=lambda t: -t)
    _runner(paths, "bfloat16")
    assert paths.others == [0, 0]


def test_a_number_format_that_cannot_be_prepacked_is_computed_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(part: nn.Module) -> None:
        raise RuntimeError("bf16 path needs the cpu support avx512bw")

    monkeypatch.setattr(prepacked_linear, "available", lambda: True)
    monkeypatch.setattr(prepacked_linear, "prepack_linears", refuse)
    runner = _runner(Paths(), "bfloat16")
    assert (runner.packed, runner.dtype) == (True, torch.bfloat16)
    np.testing.assert_allclose(_rows(runner), _rows(_runner(Paths())), atol=0.05)


def test_every_format_that_can_be_asked_for_loads() -> None:
    np.testing.assert_allclose(
        _rows(_runner(Paths(), "float16")), _rows(_runner(Paths())), atol=0.05
    )


@pytest.mark.parametrize("failure", [torch.AcceleratorError, torch.OutOfMemoryError])
def test_only_a_gpu_that_computes_nothing_more_ends_the_engine(
    monkeypatch: pytest.MonkeyPatch, failure: type[RuntimeError]
) -> None:
    runner = _runner(Paths())

    def fail(*_: Any, **__: Any) -> Any:
        raise failure("CUDA error")

    runner._forward = fail
    lost = failure is torch.AcceleratorError
    with pytest.raises(failure if lost else MemoryError):
        runner(SEQUENCES)
    monkeypatch.setattr(torch, "ones", fail)
    with pytest.raises(EngineDeadError if lost else MemoryError):
        runner(SEQUENCES)


@pytest.mark.parametrize("spoil", [lambda t: t * float("inf"), _fail])
def test_a_model_that_does_not_run_is_refused(spoil: Any) -> None:
    with pytest.raises(ModelLoadError):
        _runner(Paths(spoil_plain=spoil))


def test_rows_come_in_the_order_of_the_sequences() -> None:
    runner = _runner(Paths())
    alone = np.concatenate([runner([sequence]) for sequence in SEQUENCES])
    np.testing.assert_allclose(_rows(runner), alone, atol=1e-4)
    assert np.abs(alone[0] - alone[1]).max() > 0.01


def test_a_freed_model_does_not_run() -> None:
    runner = _runner(Paths())
    runner.free()
    with pytest.raises(RuntimeError, match="freed"):
        runner(SEQUENCES)


@pytest.mark.parametrize("family", ["bert", "modernbert", "albert"])
@pytest.mark.parametrize("spoil", [lambda t: t, _fail], ids=["packed", "padded"])
@pytest.mark.parametrize("reduced", [lambda t: t, _fail], ids=["reduced", "reloaded"])
def test_every_layer_is_progress(
    monkeypatch: pytest.MonkeyPatch, family: str, spoil: Any, reduced: Any
) -> None:
    runner = _runner(Paths(spoil, reduced, family=family), "bfloat16")
    ticks: list[str] = []
    monkeypatch.setattr(torch_forward, "tick", lambda: ticks.append(""))
    runner(SEQUENCES[:1])
    assert len(ticks) >= CONFIGS[family]().num_hidden_layers
