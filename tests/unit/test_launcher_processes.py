"""Signals, descendants, the terminal, the private folder: how a server ends."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from launcher.descendants import Descendants
from launcher.private_folder import private_folder, ray_variables, write_token
from tests.processes import ended

ROOT = Path(__file__).parents[2]
WAIT_S = 60.0
FAMILY = """
import subprocess, sys, time
generations = int(sys.argv[1])
if generations:
    subprocess.Popen([sys.executable, "-c", sys.argv[2], str(generations - 1), sys.argv[2]])
else:
    print("born", flush=True)
time.sleep(600)
"""
COUNTS = """
import sys, time
from contextlib import nullcontext
from launcher.stop_signals import StopSignals
from launcher.terminal import own_foreground_group
signals = StopSignals(lambda: sys.exit(130))
signals.install()
with own_foreground_group() if "own-group" in sys.argv else nullcontext():
    print("ready", flush=True)
    for _ in range(6000):
        if signals.requested:
            break
        time.sleep(0.01)
    else:
        sys.exit("no signal came")
    print("stopping", flush=True)
    if "slowly" in sys.argv:
        time.sleep(60)
"""


@pytest.fixture
def family() -> Iterator[list[psutil.Process]]:
    """A process, its child, its grandchild."""
    command = [sys.executable, "-c", FAMILY, "2", FAMILY]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as ancestor:
        assert ancestor.stdout is not None
        assert ancestor.stdout.readline() == "born\n"
        process = psutil.Process(ancestor.pid)
        members = [process, *process.children(recursive=True)]
        yield members
        for member in members:
            with suppress(psutil.NoSuchProcess):
                member.kill()


def test_orphans_are_remembered_and_killed(family: list[psutil.Process]) -> None:
    ancestor, child, grandchild = family
    descendants = Descendants(ancestor.pid)
    descendants.look()
    child.kill()
    assert wait_until(lambda: ended(child))
    descendants.end(grace_s=0)
    assert ended(grandchild)
    assert not ended(ancestor)


@pytest.mark.parametrize("vital", [True, False])
def test_only_what_ray_cannot_replace_is_lost(
    family: list[psutil.Process], vital: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ancestor, child, _ = family
    name = child.name()
    monkeypatch.setattr("launcher.descendants.VITAL", {name} if vital else {"raylet"})
    descendants = Descendants(ancestor.pid)
    descendants.look()
    assert descendants.lost() == []
    child.kill()
    assert wait_until(lambda: ended(child))
    for _ in range(2):
        assert descendants.lost() == ([name] if vital else [])
        descendants.look()


def test_a_child_may_end_while_it_is_looked_at(
    family: list[psutil.Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    def name(process: psutil.Process) -> str:
        raise psutil.NoSuchProcess(process.pid)

    monkeypatch.setattr(psutil.Process, "name", name)
    descendants = Descendants(family[0].pid)
    descendants.look()
    assert descendants.lost() == []


def test_those_that_stay_stopped_are_killed(family: list[psutil.Process]) -> None:
    ancestor, child, grandchild = family
    descendants = Descendants(ancestor.pid)
    descendants.look()
    grandchild.suspend()
    assert wait_until(lambda: grandchild.status() == psutil.STATUS_STOPPED)
    descendants.end_stopped()
    assert not ended(grandchild), "it may only have been looked at by a shell"
    descendants.end_stopped()
    assert wait_until(lambda: ended(grandchild))
    assert not ended(child)


def test_those_who_end_in_time_are_not_killed(
    family: list[psutil.Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: list[bool] = []  # of each that is killed
    ancestor, child, grandchild = family
    descendants = Descendants(ancestor.pid)
    descendants.look()
    timer = threading.Timer(0.2, lambda: [child.terminate(), grandchild.terminate()])
    timer.start()
    with monkeypatch.context() as patch:
        patch.setattr(psutil.Process, "kill", lambda process: alive.append(not ended(process)))
        descendants.end(grace_s=30)
    timer.join()
    assert not any(alive)


def wait_until(true: Callable[[], bool]) -> bool:
    end = time.monotonic() + WAIT_S
    while not true() and time.monotonic() < end:
        time.sleep(0.01)
    return true()


@contextmanager
def counting(argument: str) -> Iterator[subprocess.Popen[str]]:
    """A process that counts signals; started with SIGINT ignored, as background jobs are."""
    with subprocess.Popen(
        [sys.executable, "-c", COUNTS, argument], cwd=ROOT, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_asks(number: signal.Signals) -> None:
    with counting("quickly") as process:
        process.send_signal(number)
        output, errors = process.communicate(timeout=WAIT_S)
    assert (process.returncode, output) == (0, "stopping\n")
    assert errors == "\nStopping. Once more ends at once.\n"


def test_the_second_signal_ends_at_once() -> None:
    with counting("slowly") as process:
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        assert process.stdout.readline() == "stopping\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT_S / 2) == 130


def in_terminal(command: list[str], folder: Path, keys: bytes) -> tuple[int, str]:
    """Run in a terminal, type `keys` once it says ready; exit status (or -signal), output."""
    pid, terminal = pty.fork()
    if pid == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored where the tests are a background job
        os.chdir(folder)
        os.execvp(command[0], command)  # noqa: S606
    output = b""
    while b"ready" not in output:
        output += os.read(terminal, 1024)
    os.write(terminal, keys)
    try:
        while piece := os.read(terminal, 1024):
            output += piece
    except OSError:  # what Linux says at the end of a terminal
        pass
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), output.decode()


@pytest.mark.parametrize(("argument", "interrupted"), [("own-group", False), ("", True)])
def test_ctrl_c_reaches_the_server_and_not_the_make_above(
    tmp_path: Path, argument: str, interrupted: bool
) -> None:
    """The second case is what the first would be without a group of its own."""
    (tmp_path / "serve.py").write_text(COUNTS)
    (tmp_path / "Makefile").write_text(
        f"serve:\n\t@PYTHONPATH={ROOT} {sys.executable} serve.py {argument}\n"
    )
    status, output = in_terminal(["make"], tmp_path, b"\x03")
    assert "stopping" in output
    assert (status != 0) is interrupted


def test_nothing_in_the_private_folder_is_for_others() -> None:
    with private_folder() as folder:
        token = write_token(folder)
        assert folder.stat().st_mode & 0o777 == 0o700
        assert token.stat().st_mode & 0o777 == 0o600
        assert len(bytes.fromhex(token.read_text())) == 32
        assert ray_variables(token)["RAY_AUTH_MODE"] == "token"
        assert ray_variables(token)["RAY_AUTH_TOKEN_PATH"] == str(token)
    assert not folder.exists()
    with private_folder() as folder:
        other = write_token(folder).read_text()
        assert len(other) == 64


def test_the_folder_leaves_room_for_socket_names() -> None:
    """Serve adds the node's id (56 characters) and a file name; a socket's path may have 107."""
    with private_folder() as folder:
        assert len(f"{folder.name}/{'0' * 56}/metrics.sock") <= 107 - len("/tmp/")  # noqa: S108
