"""docs/security.md names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_named_test_exists() -> None:
    document = (ROOT / "docs" / "security.md").read_text()
    named = set(re.findall(r"`(test_\w+)`", document))
    assert len(named) > 80
    sources = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    defined = set(re.findall(r"def (test_\w+)\(", sources))
    assert named <= defined


def test_every_subject_says_what_shows_it() -> None:
    document = (ROOT / "docs" / "security.md").read_text()
    rows = re.findall(r"^\| ([^|]+) \| ([^|]*) \|$", document, flags=re.MULTILINE)
    assert len(rows) > 50
    assert all(shown.strip() for _, shown in rows)
