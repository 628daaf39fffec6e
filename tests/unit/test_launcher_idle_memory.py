"""What the launcher sets so that an idle server holds little memory."""

from __future__ import annotations

import os

import pytest

from launcher.idle_memory import VARIABLES, keep_idle_memory_low


def test_what_the_operator_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MALLOC_ARENA_MAX", "8")
    keep_idle_memory_low()
    assert os.environ["MALLOC_ARENA_MAX"] == "8"
    assert all(os.environ[n] == v for n, v in VARIABLES.items() if n != "MALLOC_ARENA_MAX")
