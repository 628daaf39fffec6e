"""Threads of replicas: by their shares of the node, among those that are awake."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deployments.cpu_shares import CpuShares
from deployments.memory.node_book import NodeBook


@pytest.fixture
def others() -> Iterator[list[int]]:
    """Ids of three processes that live as long as the test."""
    command = [sys.executable, "-c", "input()"]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE) for _ in range(3)]
    yield [process.pid for process in processes]
    for process in processes:
        with process:
            process.kill()


@pytest.mark.parametrize(("cpus", "alone"), [(1, 1), (2, 1), (4, 2), (16, 8), (64, 32)])
def test_alone_a_small_share_is_half_of_the_node(tmp_path: Path, cpus: int, alone: int) -> None:
    assert CpuShares(tmp_path / "b").threads(0.25, cpus) == alone
    assert CpuShares(tmp_path / "b").threads(0.0, cpus) == alone


def test_who_wakes_later_gets_a_part_among_all(tmp_path: Path, others: list[int]) -> None:
    folder = tmp_path / "b"
    embedding, chat, rerank = (CpuShares(folder, pid) for pid in others)
    assert embedding.threads(0.25, 16) == 8
    assert chat.threads(0.5, 16) == 8
    assert rerank.threads(0.25, 16) == 3
    assert embedding.threads(0.25, 16) == 3
    assert [shares.threads(share, 2) for shares, share in ((chat, 0.5), (rerank, 0.25))] == [1, 1]


def test_whole_cpus_are_weights_too(tmp_path: Path, others: list[int]) -> None:
    folder = tmp_path / "b"
    CpuShares(folder, others[0]).threads(8, 16)
    assert CpuShares(folder, others[1]).threads(4, 16) == 5
    assert CpuShares(folder, others[0]).threads(8, 16) == 10


def test_the_dead_take_no_part(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        CpuShares(tmp_path / "b", process.pid).threads(8, 16)
        process.kill()
    assert CpuShares(tmp_path / "b").threads(0.25, 16) == 8


def test_without_its_book_a_replica_counts_as_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: list[int]
) -> None:
    folder = tmp_path / "b"
    CpuShares(folder, others[0]).threads(8, 16)
    folder.chmod(0o755)  # others could write into it
    assert CpuShares(folder).threads(0.25, 16) == 8

    def full(book: NodeBook[Any], entries: list[Any]) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    folder.chmod(0o700)
    monkeypatch.setattr(NodeBook, "_write", full)
    assert CpuShares(folder).threads(0.25, 16) == 8
