"""Looking at processes that may end at any moment."""

from __future__ import annotations

import os

import psutil


def of_session(leader: int) -> list[psutil.Process]:
    """The processes of a session, those left out that have ended."""
    return [process for process in psutil.process_iter() if _belongs(process, leader)]


def _belongs(process: psutil.Process, leader: int) -> bool:
    try:
        return os.getsid(process.pid) == leader and not ended(process)
    except (ProcessLookupError, psutil.NoSuchProcess):
        return False


def command_line(process: psutil.Process) -> str:
    """Empty when it has ended since it was listed."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def cpu_seconds(process: psutil.Process) -> float:
    """0 when it has ended since it was listed."""
    try:
        return sum(process.cpu_times()[:2])
    except psutil.Error:
        return 0.0


def pid_ended(pid: int) -> bool:
    try:
        return ended(psutil.Process(pid))
    except psutil.NoSuchProcess:
        return True


def ended(process: psutil.Process) -> bool:
    """Zombies have ended, as soon as all their threads have: in a container nobody may ever collect
    orphans. Until then they hold their connections."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE and process.num_threads() <= 1
    except psutil.NoSuchProcess:
        return True
