"""Markers from the path: tests/contract and tests/integration are selected by `-m`."""

from __future__ import annotations

from pathlib import Path

import pytest

TESTS = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0]
        if folder in {"contract", "integration"}:
            item.add_marker(folder)
