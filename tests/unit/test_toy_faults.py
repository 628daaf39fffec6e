"""The weightless models fail on purpose: each fault as the engines know it from real ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from models.base import StepListener
from models.errors import (
    EngineDeadError,
    MemoryRefusedError,
    ModelError,
    ModelLoadError,
    OutOfMemoryError,
)
from models.toy.encoder import ToyEncoder, ToyReranker
from models.toy.generator import ToyGenerator
from models.types.generation import GenerationRequest, TextPrompt
from models.types.texts import EmbeddingRequest, RerankRequest

INFER: dict[str, str | bool] = {"infer": True}
WAIT = 60.0


def test_a_fault_of_loading_lasts_as_long_as_its_file(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.touch()
    with pytest.raises(RuntimeError):
        ToyEncoder(faults={"load": "raise", "file": str(broken)})
    with pytest.raises(ModelLoadError):
        ToyGenerator(lambda events: None, faults={"load": "raise", "file": str(broken)})
    with pytest.raises(MemoryRefusedError):
        ToyGenerator(lambda events: None, faults={"load": "oom"})
    broken.unlink()
    ToyEncoder(faults={"load": "raise", "file": str(broken)}).close()


def test_one_item_of_a_batch_has_the_fault_that_it_names() -> None:
    encoder = ToyEncoder(faults=INFER)
    requests = [EmbeddingRequest((text,)) for text in ("a", "fault:raise", "fault:oom", "b")]
    good, failed, exhausted, also_good = encoder.submit(requests).result(WAIT)
    assert not isinstance(good, ModelError)
    assert not isinstance(also_good, ModelError)
    assert type(failed) is ModelError
    assert type(exhausted) is OutOfMemoryError
    encoder.close()


def test_faults_are_off_unless_asked_for() -> None:
    reranker = ToyReranker()
    [result] = reranker.submit([RerankRequest("fault:raise", ("fault:raise",))]).result(WAIT)
    assert not isinstance(result, ModelError)
    reranker.close()


def test_a_thread_that_dies_takes_its_engine_along() -> None:
    reranker = ToyReranker(faults=INFER)
    with pytest.raises(EngineDeadError):
        reranker.submit([RerankRequest("fault:die", ("x",))]).result(WAIT)
    assert not reranker.alive


def listener(events: SimpleQueue[Any]) -> StepListener:
    def listen(step: Sequence[Any]) -> None:
        for event in step:
            events.put(event)

    return listen


@pytest.mark.parametrize(("fault", "expected"), [("raise", ModelError), ("oom", OutOfMemoryError)])
def test_one_generation_has_the_fault_that_it_names(fault: str, expected: type) -> None:
    events: SimpleQueue[Any] = SimpleQueue()
    generator = ToyGenerator(listener(events), faults=INFER)
    generator.add("bad", GenerationRequest(TextPrompt(f"fault:{fault}")))
    name, error = events.get(timeout=WAIT)
    assert (name, type(error)) == ("bad", expected)
    assert generator.alive
    generator.close()


def test_a_generation_can_end_its_engine() -> None:
    events: SimpleQueue[Any] = SimpleQueue()
    generator = ToyGenerator(listener(events), faults=INFER)
    generator.add("bad", GenerationRequest(TextPrompt("fault:die")))
    name, error = events.get(timeout=WAIT)
    assert (name, type(error)) == ("bad", EngineDeadError)
    assert not generator.alive
