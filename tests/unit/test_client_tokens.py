"""Token ids of OpenAI's vocabulary become texts, without a network and before any engine."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from config.settings import AppConfig, LimitSettings
from deployments.client_tokens import ClientTokens
from models.encoders.cl100k import TOKENS, Cl100k
from models.errors import InvalidInputError, ModelError, ModelLoadError
from models.types.texts import EmbeddingRequest


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vocabulary of the right size: the bytes, then made-up words."""
    pieces = [bytes([i]) for i in range(256)]
    pieces += [b" " * 100 if i == 300 else f"w{i} ".encode() for i in range(256, TOKENS)]
    path = tmp_path_factory.mktemp("ranks") / "ranks"
    lines = (f"{base64.b64encode(piece).decode()} {i}\n" for i, piece in enumerate(pieces))
    path.write_text("".join(lines))
    return path


@pytest.fixture(scope="module")
def vocabulary(ranks: Path) -> Cl100k:
    return Cl100k(ranks)


def test_ids_become_text(vocabulary: Cl100k) -> None:
    assert vocabulary.text([256, 72, 105, TOKENS - 1], 99) == f"w256 Hiw{TOKENS - 1} "
    assert vocabulary.text(list("né漢".encode()), 99) == "né漢"
    assert vocabulary.text([100_257, 100_276], 99) == "<|endoftext|><|endofprompt|>"


def test_a_character_cut_in_half_is_replaced(vocabulary: Cl100k) -> None:
    assert vocabulary.text(list("aé".encode())[:-1], 99) == "a\ufffd"


@pytest.mark.parametrize("token", [-1, 100_256, 100_261, 100_275, 100_277, 2**31 - 1])
def test_ids_outside_the_vocabulary_are_refused(vocabulary: Cl100k, token: int) -> None:
    with pytest.raises(InvalidInputError, match=str(token)) as caught:
        vocabulary.text([72, token], 99)
    assert caught.value.param == "input"


def test_long_tokens_do_not_get_around_the_limit(vocabulary: Cl100k) -> None:
    assert len(vocabulary.text([300] * 2, 50)) == 200
    with pytest.raises(InvalidInputError, match="more than 49 characters"):
        vocabulary.text([300] * 2, 49)


@pytest.mark.parametrize("content", [b"", b"IQ== 0\n", b"!!! 0\n", b"\n"])
def test_a_file_that_is_no_vocabulary_is_a_load_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "ranks"
    path.write_bytes(content)
    with pytest.raises(ModelLoadError, match="cl100k"):
        Cl100k(path)


def openais(*inputs: str | tuple[int, ...]) -> EmbeddingRequest:
    return EmbeddingRequest(inputs, dimensions=2, vocabulary="cl100k")


async def test_only_requests_in_that_vocabulary_are_rewritten(
    ranks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deployments.client_tokens.fetch", lambda *_, **__: ranks)
    native = EmbeddingRequest(((72, 105),))
    bad = openais((72,), (-1,))
    entries = await ClientTokens(AppConfig()).readable([native, openais((72, 105), "ho"), bad])
    assert entries[0] is native
    assert entries[1] == EmbeddingRequest(("Hi", "ho"), dimensions=2)
    assert isinstance(entries[2], InvalidInputError)


async def test_the_text_limits_hold_for_all_inputs_together(
    ranks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deployments.client_tokens.fetch", lambda *_, **__: ranks)
    config = AppConfig(limits=LimitSettings(max_input_chars=100, max_total_chars=150))
    tokens = ClientTokens(config)
    assert not isinstance((await tokens.readable([openais((300,), (72,))]))[0], ModelError)
    (entry,) = await tokens.readable([openais((300,), (300,), (300,))])
    assert isinstance(entry, InvalidInputError)


async def test_a_missing_vocabulary_fails_those_who_need_it_and_no_others(tmp_path: Path) -> None:
    tokens = ClientTokens(AppConfig(weights_dir=tmp_path, offline=True))
    native = EmbeddingRequest(((72, 105),))
    assert await tokens.readable([native]) == [native]
    kept, failed = await tokens.readable([native, openais((72,))])
    assert kept is native
    assert isinstance(failed, ModelLoadError)
    assert "python -m weights fetch cl100k-base" in failed.message
