"""Who may use the server: its settings, and the keys of the key file and of the environment.

Keys are hashed as soon as they are read: nothing that lives longer holds one.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from config.paths import with_home

KEYS_VARIABLE = "INFERENCE_API_KEYS"
SHORTEST_KEY = 16
MAX_FILE_BYTES = 1 << 20
OTHERS_MAY_READ = 0o007
LIVENESS = "/health"
"""What launchers and probes ask, which have no key."""
PerMinute = Annotated[int, Field(gt=0, le=1_000_000_000)]


class KeyFileError(ValueError):
    """The keys cannot be used; the message names the entry, and never a key."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One client's key: its name for logs and owners, the SHA-256 of the key, what it may do.

    `allow` has tags and paths of routes, None: all. `expires` in seconds since 1970.
    """

    name: str
    digest: bytes
    expires: float | None = None
    allow: frozenset[str] | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None


def _day(value: object) -> object:
    """A day between quotes is a day too; pydantic would take its first moment."""
    if isinstance(value, str):
        with suppress(ValueError):
            return date.fromisoformat(value)
    return value


class _KeyEntry(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.\-]{1,64}$")]
    key: Annotated[SecretStr, Field(min_length=SHORTEST_KEY, max_length=512)] | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    expires: Annotated[datetime | date | None, BeforeValidator(_day)] = None
    allow: Annotated[list[str], Field(min_length=1, max_length=256)] | None = None
    requests_per_minute: PerMinute | None = None
    tokens_per_minute: PerMinute | None = None

    @model_validator(mode="after")
    def _key_or_digest(self) -> _KeyEntry:
        if (self.key is None) == (self.sha256 is None):
            raise ValueError("give one of 'key' and 'sha256'")
        return self

    def api_key(self) -> ApiKey:
        return ApiKey(
            name=self.name,
            digest=bytes.fromhex(self.sha256) if self.sha256 else digest_of(self._secret()),
            expires=None if self.expires is None else _end(self.expires),
            allow=None if self.allow is None else frozenset(map(str.lower, self.allow)),
            requests_per_minute=self.requests_per_minute,
            tokens_per_minute=self.tokens_per_minute,
        )

    def _secret(self) -> bytes:
        return self.key.get_secret_value().encode() if self.key is not None else b""


class _KeyFile(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    keys: Annotated[list[_KeyEntry], Field(max_length=10_000)]


class AccessSettings(BaseModel):
    """Which clients are answered."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    keys_file: Path | None = None
    """YAML file with the keys of clients. None: those of INFERENCE_API_KEYS, else no key needed."""
    open_routes: tuple[str, ...] = ()
    """Paths that are read without a key, besides that of liveness, which tells nothing."""
    allowed_hosts: tuple[str, ...] = ()
    """Host names that requests may carry, besides `localhost` and addresses; "*": any."""

    @field_validator("keys_file")
    @classmethod
    def _keys_can_be_read(cls, path: Path | None) -> Path | None:
        if path is None:
            return None
        path = with_home(path)
        read_keys(path)
        return path

    @property
    def requires_key(self) -> bool:
        """Whether requests need a key. Reads the environment."""
        return self.keys_file is not None or bool(environment_keys())


def digest_of(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def read_keys(path: Path) -> tuple[ApiKey, ...]:
    """The keys of a file that others must not be able to read. Raises KeyFileError."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & OTHERS_MAY_READ:
                raise KeyFileError(f"others may read {path.name}: chmod 600 it")
            text = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise KeyFileError(f"{path.name} cannot be read: {error.strerror}") from None
    if len(text) > MAX_FILE_BYTES:
        raise KeyFileError(f"{path.name} is larger than {MAX_FILE_BYTES} bytes")
    return parse_keys(text, path.name)


def parse_keys(text: bytes, name: str) -> tuple[ApiKey, ...]:
    """Raises KeyFileError, which names the line or the entry at fault."""
    try:
        content: Any = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)  # its own text would show the line
        where = f" in line {mark.line + 1}" if mark is not None else ""
        raise KeyFileError(f"{name} is not YAML{where}") from None
    try:
        entries = _KeyFile.model_validate(content).keys
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"])) or "keys"
        raise KeyFileError(f"{name}: {place}: {first['msg']}") from None
    return _distinct(tuple(entry.api_key() for entry in entries), name)


def environment_keys() -> tuple[ApiKey, ...]:
    """`$INFERENCE_API_KEYS`: `name:key`, or a key alone, with commas between.

    Raises KeyFileError.
    """
    entries = [entry.strip() for entry in os.environ.get(KEYS_VARIABLE, "").split(",")]
    keys = [_environment_key(n, entry) for n, entry in enumerate(filter(None, entries), 1)]
    return _distinct(tuple(keys), KEYS_VARIABLE)


def _environment_key(number: int, entry: str) -> ApiKey:
    name, colon, key = entry.partition(":")
    try:
        value = {"name": name, "key": key} if colon else {"name": f"key-{number}", "key": name}
        return _KeyEntry.model_validate(value).api_key()
    except ValidationError as error:
        message = error.errors(include_url=False, include_input=False)[0]["msg"]
        raise KeyFileError(f"{KEYS_VARIABLE}: entry {number}: {message}") from None


def _distinct(keys: tuple[ApiKey, ...], where: str) -> tuple[ApiKey, ...]:
    for what in ("name", "digest"):
        if len({getattr(key, what) for key in keys}) < len(keys):
            raise KeyFileError(
                f"{where}: two entries have the same {what.replace('digest', 'key')}"
            )
    return keys


def _end(expires: date) -> float:
    """Days end when they end, in UTC, as do times that name no zone."""
    if not isinstance(expires, datetime):
        expires = datetime.combine(expires, time.max)
    return (expires if expires.tzinfo else expires.replace(tzinfo=UTC)).timestamp()
