"""Keys out of files and the environment: what is read, what is refused; no key is shown."""

from __future__ import annotations

import hashlib
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from config.access import (
    KEYS_VARIABLE,
    AccessSettings,
    ApiKey,
    KeyFileError,
    environment_keys,
    parse_keys,
)
from config.settings import AppConfig

SECRET = "canary-key-0123456789"
DIGEST = hashlib.sha256(SECRET.encode()).digest()


def parsed(*entries: dict[str, Any]) -> tuple[ApiKey, ...]:
    return parse_keys(yaml.safe_dump({"keys": list(entries)}).encode(), "keys.yaml")


def test_a_key_and_its_digest_are_the_same() -> None:
    (by_key,) = parsed({"name": "a", "key": SECRET})
    (by_digest,) = parsed({"name": "a", "sha256": DIGEST.hex()})
    assert by_key == by_digest == ApiKey("a", DIGEST)
    assert SECRET not in repr(by_key)


def test_everything_that_an_entry_can_say() -> None:
    text = b"""
    keys:
      - name: search
        key: canary-key-0123456789
        expires: 2030-01-01
        allow: [OCR, /v1/models]
        requests_per_minute: 60
        tokens_per_minute: 1000
      - {name: other, key: canary-key-9876543210, expires: 2030-01-01T12:00:00+01:00}
    """
    first, second = parse_keys(text, "keys.yaml")
    assert first.allow == {"ocr", "/v1/models"}
    assert (first.requests_per_minute, first.tokens_per_minute) == (60, 1000)
    assert first.expires == pytest.approx(datetime(2030, 1, 2, tzinfo=UTC).timestamp(), abs=1e-3)
    assert second.expires == datetime(2030, 1, 1, 11, tzinfo=UTC).timestamp()


def test_a_day_between_quotes_ends_when_it_ends_too() -> None:
    (day,) = parsed({"name": "a", "key": SECRET, "expires": "2030-01-01"})
    (moment,) = parsed({"name": "a", "key": SECRET, "expires": "2030-01-01T00:00"})
    assert day.expires == pytest.approx(datetime(2030, 1, 2, tzinfo=UTC).timestamp(), abs=1e-3)
    assert moment.expires == datetime(2030, 1, 1, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"keys: [{{name: a, key: {SECRET}", "keys.yaml is not YAML in line 1"),
        (f"{SECRET}", "keys"),
        (f"keys: [{{name: a b, key: {SECRET}}}]", "keys.0.name"),
        ("keys: [{name: a, key: short-key}]", "keys.0.key: Value should have at least 16"),
        ("keys: [{name: a}]", "give one of"),
        (f"keys: [{{name: a, key: {SECRET}, sha256: {'a' * 64}}}]", "give one of"),
        (f"keys: [{{name: a, sha256: {SECRET}}}]", "keys.0.sha256"),
        (f"keys: [{{name: a, key: {SECRET}, allows: x}}]", "keys.0.allows"),
        (f"keys: [{{name: a, key: {SECRET}}}, {{name: a, key: {SECRET}1}}]", "same name"),
        (f"keys: [{{name: a, key: {SECRET}}}, {{name: b, key: {SECRET}}}]", "same key"),
        (f"keys: [{{name: a, key: {SECRET}, requests_per_minute: 0}}]", "requests_per_minute"),
    ],
)
def test_mistakes_are_named_and_keys_are_not(text: str, reason: str) -> None:
    with pytest.raises(KeyFileError, match=reason) as caught:
        parse_keys(text.encode(), "keys.yaml")
    assert SECRET not in str(caught.value)
    assert "short-key" not in str(caught.value)


@given(st.binary(max_size=300))
@settings(max_examples=100, derandomize=True, deadline=None)
def test_any_bytes_are_keys_or_refused(text: bytes) -> None:
    try:
        keys = parse_keys(text, "keys.yaml")
    except KeyFileError:
        return
    assert all(len(key.digest) == 32 for key in keys)


@pytest.mark.parametrize("mode", [0o604, 0o646, 0o607])
def test_a_file_that_others_can_read_stops_the_start(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text(f"keys: [{{name: a, key: {SECRET}}}]")
    path.chmod(mode)
    with pytest.raises(ValidationError, match=r"others may read keys\.yaml") as caught:
        AppConfig.model_validate({"access": {"keys_file": str(path)}})
    assert SECRET not in str(caught.value)
    path.chmod(0o600)
    assert AccessSettings(keys_file=path).requires_key


def test_a_missing_or_endless_file_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="cannot be read"):
        AccessSettings(keys_file=tmp_path / "none.yaml")
    large = tmp_path / "large.yaml"
    large.touch(0o600)
    os.truncate(large, 1 << 21)
    with pytest.raises(ValidationError, match="larger than"):
        AccessSettings(keys_file=large)


def test_the_environment_names_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEYS_VARIABLE, raising=False)
    assert not AccessSettings().requires_key
    monkeypatch.setenv(KEYS_VARIABLE, f"reporting:{SECRET}, another-key-0123456789,")
    assert [key.name for key in environment_keys()] == ["reporting", "key-2"]
    assert environment_keys()[0].digest == DIGEST
    assert AccessSettings().requires_key


@pytest.mark.parametrize("value", ["a:short", "short", f"a b:{SECRET}", f"{SECRET},{SECRET}"])
def test_mistakes_in_the_environment_are_named(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv(KEYS_VARIABLE, value)
    with pytest.raises(KeyFileError, match=KEYS_VARIABLE) as caught:
        environment_keys()
    assert SECRET not in str(caught.value)
    assert "short" not in str(caught.value)
