"""A process whose compute thread hangs ends, also when it holds the interpreter's lock."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from deployments.watchdog import Watchdog

PROGRAM = """
import threading, time
from deployments.watchdog import Watchdog
from models.compute_thread import ComputeThread
from models.toy.faults import CAUSES

def work():
    thread.begin()
    print(time.monotonic(), flush=True)
    CAUSES["{fault}"]()
    thread.end()

Watchdog({grace}).start()
thread = ComputeThread(work, "toy-engine", 0.0)
thread.start()
time.sleep(240 if "{fault}" in ("hang", "spin") else 4)
print("alive")
"""


def run(fault: str, grace: float) -> tuple[subprocess.CompletedProcess[str], float]:
    """How it ended, and the seconds from the fault to the end."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(fault=fault, grace=grace)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done, time.monotonic() - float(done.stdout.splitlines()[0])


@pytest.mark.parametrize("fault", ["hang", "spin"])
def test_a_process_that_hangs_ends_and_shows_where(fault: str) -> None:
    done, seconds = run(fault, 1.0)
    assert done.returncode == 1
    assert "alive" not in done.stdout
    assert f"_{fault}" in done.stderr
    assert seconds < 30


def test_a_slow_step_is_no_hang() -> None:
    done, _ = run("slow", 30.0)
    assert (done.returncode, done.stdout.splitlines()[1:]) == (0, ["alive"])


def test_a_pause_of_the_whole_process_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = iter([100.0, 101, 103, 703, 704])
    watchdog = Watchdog(15, lambda: next(looks))
    monkeypatch.setattr("deployments.watchdog.stuck_threads", lambda grace, resumed: [resumed])
    assert [watchdog.stuck() for _ in range(5)] == [[100], [100], [100], [703], [703]]
