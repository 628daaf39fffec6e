"""deploy/systemd: a unit that systemd takes and that gives the launcher time to end."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ray._common.utils import get_default_ray_temp_dir

from launcher.__main__ import _parser
from launcher.launch import STOP_DEADLINE_S

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "deploy" / "systemd" / "inference-server.service"


@pytest.fixture(scope="module")
def unit() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(UNIT.read_text())
    return parser


def test_systemd_takes_it(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd here")
    copy = tmp_path / UNIT.name
    installed = "/opt/inference-server/.venv/bin/python"
    copy.write_text(UNIT.read_text().replace(installed, sys.executable))
    run = subprocess.run(["systemd-analyze", "verify", copy], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")


def test_it_starts_the_launcher(unit: configparser.ConfigParser) -> None:
    service = unit["Service"]
    program, *arguments = service["ExecStart"].split()
    assert program == f"{service['WorkingDirectory']}/.venv/bin/python"
    assert arguments[:2] == ["-m", "launcher"]
    _parser().parse_args(arguments[2:])


def test_it_waits_for_the_drain_and_the_stop(unit: configparser.ConfigParser) -> None:
    service = unit["Service"]
    drain_s = _parser().parse_args(service["ExecStart"].split()[3:]).drain_s
    assert float(service["TimeoutStopSec"]) > drain_s + STOP_DEADLINE_S
    assert service["KillMode"] == "mixed", "the launcher ends its own processes"
    assert service["Restart"] == "on-failure"


def test_it_is_locked_down(unit: configparser.ConfigParser) -> None:
    service = unit["Service"]
    assert service["ProtectSystem"] == "strict"
    assert service["NoNewPrivileges"] == "yes"
    assert service["CapabilityBoundingSet"] == ""
    assert service["User"] not in ("", "root")


def test_it_is_installed_with_the_weights_where_it_looks_for_them(
    unit: configparser.ConfigParser,
) -> None:
    """`make setup`, which fetches them, would else fill the cache of the one who installs."""
    header, _, body = UNIT.read_text().partition("[Unit]")
    [fetched] = re.findall(r"INFERENCE_WEIGHTS_DIR=(\S+) make setup", header)
    assert f"Environment=INFERENCE_WEIGHTS_DIR={fetched}\n" in body
    assert fetched.startswith(f"/var/cache/{unit['Service']['CacheDirectory']}/")


SESSION = "session_2026-01-01_00-00-00_000000_4194304"
LONGEST_SOCKET = 107


def test_logs_outlive_the_server(
    unit: configparser.ConfigParser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below a folder that systemd makes, in which Ray's sockets have short enough names."""
    [folder] = re.findall(r"^Environment=RAY_TMPDIR=(\S+)$", UNIT.read_text(), flags=re.MULTILINE)
    assert folder == f"/var/log/{unit['Service']['LogsDirectory']}"
    monkeypatch.setenv("RAY_TMPDIR", folder)
    assert get_default_ray_temp_dir() == f"{folder}/ray"
    assert len(f"{folder}/ray/{SESSION}/sockets/plasma_store") <= LONGEST_SOCKET
    assert f"`{folder}/ray`" in (ROOT / "docs" / "operations.md").read_text()


def test_logs_do_not_fill_the_disk(unit: configparser.ConfigParser, tmp_path: Path) -> None:
    logs = f"/var/log/{unit['Service']['LogsDirectory']}"
    command = shlex.split(unit["Service"]["ExecStartPre"].removeprefix("-"))
    here = [part.replace(logs, str(tmp_path)) for part in command]
    assert here != command
    subprocess.run(here, check=True)
    sessions = [tmp_path / "ray" / f"session_2026-01-{day:02}" for day in range(1, 32)]
    for session in sessions:
        (session / "logs").mkdir(parents=True)
    latest = tmp_path / "ray" / "session_latest"
    latest.symlink_to(sessions[-1])
    subprocess.run(here, check=True)
    assert sorted(latest.parent.iterdir()) == [*sessions[-20:], latest]
