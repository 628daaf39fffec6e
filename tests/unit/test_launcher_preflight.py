"""What `make` says when the machine lacks something, and that it says it before it downloads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from launcher.preflight import has_compiler, problems

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on the PATH; empty."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)


@pytest.mark.parametrize("compilers", [("cc", "c++"), ("gcc", "g++"), ("clang", "clang++")])
def test_nothing_missing(tools: Path, compilers: tuple[str, str]) -> None:
    put(tools, *compilers)
    assert problems((3, 11), None, None) == []


def test_every_missing_thing_is_named_with_what_to_do(
    tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    python, venv, c, cxx = problems((3, 10), None, None)
    assert python.startswith("Python 3.11 to 3.14, this is 3.10")
    assert "apt-get install python3-venv" in venv
    assert c.startswith("a C compiler, for llama.cpp (Debian and Ubuntu: apt-get install")
    assert cxx.startswith("a C++ compiler")


def test_a_c_compiler_alone_is_not_enough(tools: Path) -> None:
    put(tools, "gcc")
    assert [problem.split(",")[0] for problem in problems((3, 12), None, None)] == [
        "a C++ compiler"
    ]


@pytest.mark.parametrize("version", [(3, 10), (3, 15), (2, 7)])
def test_pythons_that_cannot_work(version: tuple[int, int]) -> None:
    assert problems(version, "sh", "sh")[0].startswith("Python 3.11")


def test_the_chosen_compiler_counts_and_no_other(tools: Path) -> None:
    put(tools, "gcc", "my-gcc")
    assert has_compiler("ccache my-gcc", ("gcc",))
    assert not has_compiler("your-gcc", ("gcc",))


def test_make_stops_before_it_makes_anything(tmp_path: Path) -> None:
    """A Python that is fine and a PATH without compilers."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("bash", "make"):
        found = next(p for f in os.get_exec_path() if (p := Path(f, name)).exists())
        (tools / name).symlink_to(found)
    run = subprocess.run(
        ["make", "serve", f"PYTHON={sys.executable}", f"VENV={tmp_path}/venv"],
        cwd=ROOT, env={"PATH": str(tools)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 2
    assert "missing: a C++ compiler" in run.stderr
    assert not (tmp_path / "venv").exists()


def test_it_runs_without_the_dependencies() -> None:
    script = ROOT / "launcher" / "preflight.py"
    run = subprocess.run(
        [sys.executable, "-I", "-S", script],
        env={"PATH": "", "CC": "/bin/sh", "CXX": "/bin/sh"}, capture_output=True, text=True,
    )  # fmt: skip
    assert (run.returncode, run.stderr) == (0, "")
