"""Replicas that are urgent are started well above those that step aside."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from launcher import __main__ as launcher


@pytest.mark.parametrize(("before", "after"), [(None, "5"), ("0", "0")])
def test_the_niceness_of_replicas_unless_the_operator_says_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str | None, after: str
) -> None:
    environment = {} if before is None else {"RAY_worker_niceness": before}
    monkeypatch.setattr(os, "environ", environment)
    monkeypatch.setattr(launcher, "haproxy_wanted", lambda document: False)
    launcher._prepared({}, tmp_path)
    assert environment["RAY_worker_niceness"] == after
