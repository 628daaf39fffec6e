"""The book of a node's memory: who is admitted, who is refused and why, what the dead leave."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from deployments.memory.node_book import LOCK_S, NodeBook, default_folder, private
from deployments.memory.node_ledger import Holding, NodeLedger, Space
from models.errors import MemoryRefusedError, ModelLoadError

GB = 10**9
ALL = {"cpu": Space(10 * GB, 10 * GB), "cuda:0": Space(8 * GB, 8 * GB)}


ODD = '[{"pid": "a", "start": "b", "place": "cpu", "model_id": "m", "n_bytes": 1}]'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "runtime"


@pytest.fixture
def neighbour() -> Iterator[subprocess.Popen[bytes]]:
    """Another process, until its input is closed."""
    command = [sys.executable, "-c", "input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def holdings(folder: Path) -> list[Holding]:
    with NodeBook(folder, "memory", Holding).open() as entries:
        return list(entries)


def test_a_neighbour_is_never_pushed_out(folder: Path, neighbour: subprocess.Popen[bytes]) -> None:
    NodeLedger(folder, neighbour.pid).take("llama", {"cuda:0": 6 * GB, "cpu": GB}, ALL)
    ours = NodeLedger(folder)
    with pytest.raises(MemoryRefusedError) as refused:
        ours.take("qwen", {"cpu": GB, "cuda:0": 3 * GB}, ALL)
    assert refused.value.message == (
        "The model 'qwen' needs 3.00 GB of the memory of cuda:0; 2.00 GB of 8.00 GB are free. "
        "Held by: 'llama' 6.00 GB."
    )
    assert refused.value.missing == GB
    assert [h.model_id for h in holdings(folder)] == ["llama", "llama"]
    ours.take("qwen", {"cuda:0": 2 * GB}, ALL)
    assert ours.room("cuda:0", ALL["cuda:0"], without="none") == 0
    assert ours.room("cuda:0", ALL["cuda:0"], without="qwen") == 2 * GB
    assert ours.room("cpu", ALL["cpu"], without="qwen") == 9 * GB


def test_what_others_than_us_hold_counts_too(folder: Path) -> None:
    ledger = NodeLedger(folder)
    busy = {"cpu": Space(10 * GB, 3 * GB)}
    assert ledger.room("cpu", busy["cpu"], without="a") == 3 * GB
    with pytest.raises(MemoryRefusedError, match=r"needs 4\.00 GB of memory; 3\.00 GB .* no model"):
        ledger.take("a", {"cpu": 4 * GB}, busy)


def test_taking_again_replaces(folder: Path) -> None:
    ledger = NodeLedger(folder)
    ledger.take("a", {"cpu": 6 * GB}, ALL)
    ledger.take("a", {"cpu": 9 * GB}, ALL)
    assert [h.n_bytes for h in holdings(folder)] == [9 * GB]
    with pytest.raises(MemoryRefusedError):
        ledger.take("a", {"cpu": 11 * GB}, ALL)
    assert holdings(folder) == []
    ledger.take("a", {"cpu": 0}, ALL)
    assert holdings(folder) == []
    ledger.give_back("a")
    ledger.give_back("b")


def test_the_dead_give_back_what_they_had(folder: Path, neighbour: subprocess.Popen[bytes]) -> None:
    ledger = NodeLedger(folder)
    NodeLedger(folder, neighbour.pid).take("gone", {"cpu": 9 * GB}, ALL)
    with pytest.raises(MemoryRefusedError):
        ledger.take("a", {"cpu": 2 * GB}, ALL)
    neighbour.kill()
    neighbour.wait()
    ledger.take("a", {"cpu": 2 * GB}, ALL)
    assert [h.model_id for h in holdings(folder)] == ["a"]


def test_a_process_that_got_the_id_of_a_dead_one_holds_nothing(folder: Path) -> None:
    ledger = NodeLedger(folder)
    ledger.take("a", {"cpu": GB}, ALL)
    book = folder / "memory.json"
    (entry,) = json.loads(book.read_text())
    book.write_text(json.dumps([entry | {"start": entry["start"] - 100}]))
    assert holdings(folder) == []


@pytest.mark.skipif(sys.platform != "linux", reason="psutil's clock is the only one")
def test_setting_the_clock_ends_no_process(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of day of the boot, which psutil reckons with, moves with the clock."""
    NodeLedger(folder).take("a", {"cpu": GB}, ALL)
    monkeypatch.setattr("psutil._pslinux.boot_time", lambda: 0.0)
    assert [h.model_id for h in holdings(folder)] == ["a"]


def test_a_lock_that_another_process_keeps_is_no_endless_wait(folder: Path) -> None:
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    book = NodeBook(folder, "memory", Holding, clock=lambda: now, sleep=sleep)
    with (private(folder) / "memory.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ModelLoadError, match="the node's book of memory locked"), book.open():
            pass
    assert now == pytest.approx(LOCK_S, abs=0.1)
    with book.open() as entries:
        assert entries == []


@pytest.mark.parametrize("content", ["", "{", "[1]", '[{"pid": 1}]', ODD])
def test_a_book_that_cannot_be_read_is_begun_anew(folder: Path, content: str) -> None:
    private(folder)
    (folder / "memory.json").write_text(content)
    ledger = NodeLedger(folder)
    ledger.take("a", {"cpu": GB}, ALL)
    assert [h.n_bytes for h in holdings(folder)] == [GB]


def test_of_many_at_once_only_those_that_fit_get_in(folder: Path) -> None:
    def enter(n: int) -> bool:
        try:
            NodeLedger(folder).take(f"m{n}", {"cpu": 3 * GB}, ALL)
        except MemoryRefusedError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(enter, range(16))) == 3


def test_the_folder_is_private(tmp_path: Path) -> None:
    folder = default_folder()
    assert str(folder).startswith(str(Path(folder.anchor)))
    made = private(tmp_path / "new")
    assert made.stat().st_mode & 0o777 == 0o700
    made.chmod(0o755)
    with pytest.raises(ModelLoadError, match="other users"):
        private(made)
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    with pytest.raises(ModelLoadError, match="other users"):
        private(link)
