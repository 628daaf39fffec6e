"""Torch computes with the threads that it is given and does not remember every shape."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest
import torch

from models.torch_cpu import CACHED_SHAPES, SHAPE_CACHES, use_cpu_threads


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_the_threads_are_those_of_the_calling_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SHAPE_CACHES:
        monkeypatch.setenv(name, "5")
    found: list[int] = []

    def compute() -> None:
        use_cpu_threads(2)
        found.append(torch.get_num_threads())

    thread = threading.Thread(target=compute)
    thread.start()
    thread.join()
    assert found == [2]


def test_the_caches_of_shapes_are_small_unless_the_operator_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second = SHAPE_CACHES
    monkeypatch.delenv(first, raising=False)
    monkeypatch.setenv(second, "7")
    use_cpu_threads(1)
    assert os.environ[first] == str(CACHED_SHAPES)
    assert os.environ[second] == "7"
