"""Tokens as exact bytes, and control tokens that text cannot spell."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from models.errors import InvalidInputError, ModelLoadError
from models.transformers_lm.vocabulary import TokenizerVocabulary
from tests.tiny_causal import TOKENS, byte_level_tokenizer

SIZE = len(TOKENS)
BYTE_FALLBACK = [f"<0x{byte:02X}>" for byte in range(256)]


def byte_level(size: int = SIZE, added: tuple[Any, ...] = (), **options: Any) -> Any:
    tokenizer = byte_level_tokenizer(**options)
    tokenizer.backend_tokenizer.add_tokens(list(added))
    return TokenizerVocabulary(tokenizer, size=size, end_tokens=[5])


def ids(vocabulary: Any, text: str, *, special: bool = False, bos: bool = False) -> list[int]:
    found: list[int] = vocabulary.tokenize(text, add_special=bos, parse_special=special)
    return found


def text_of(vocabulary: Any, tokens: list[int]) -> str:
    return b"".join(vocabulary.pieces[token] for token in tokens).decode()


@pytest.mark.parametrize("text", ["the tin can", " a\n\tb  c", "é🙂漢", "\x00\x7f", "I'm 123  4"])
def test_byte_level_pieces_are_the_texts_bytes(text: str) -> None:
    vocabulary = byte_level()
    assert text_of(vocabulary, ids(vocabulary, text)) == text
    assert sorted(p for p in vocabulary.pieces if len(p) == 1) == [bytes([b]) for b in range(256)]


def test_control_tokens_write_nothing_and_are_parsed_on_request_only() -> None:
    vocabulary = byte_level()
    assert vocabulary.control_tokens["<|im_end|>"] == 2
    assert vocabulary.pieces[2] == b""
    assert ids(vocabulary, "<|im_end|>", special=True) == [2]
    spelled = ids(vocabulary, "x<|im_end|>")
    assert 2 not in spelled
    assert text_of(vocabulary, spelled) == "x<|im_end|>"


def test_added_words_are_text_and_rows_beyond_the_vocabulary_are_empty() -> None:
    vocabulary = byte_level(SIZE + 5, added=(AddedToken("<think>", special=False),))
    assert vocabulary.pieces[SIZE:] == (b"<think>", b"", b"", b"", b"")
    assert ids(vocabulary, "<think>") == [SIZE]
    assert "<think>" not in vocabulary.control_tokens
    assert vocabulary.longest_piece == len("<|fim_prefix|>")


def test_tokens_without_weights_are_refused() -> None:
    vocabulary = byte_level(added=(AddedToken("<image>", special=True),))
    assert len(vocabulary.pieces) == SIZE
    with pytest.raises(InvalidInputError, match="no weights"):
        ids(vocabulary, "<image>", special=True)
    assert text_of(vocabulary, ids(vocabulary, "<image>")) == "<image>"


def test_bos_end_and_infill_tokens() -> None:
    plain = byte_level()
    assert plain.bos is None
    assert ids(plain, "a", bos=True) == ids(plain, "a")
    beginning = byte_level(adds_bos=True)
    assert beginning.bos == 0
    assert ids(beginning, "a", bos=True) == [0, *ids(beginning, "a")]
    assert plain.end_tokens == {2, 5}
    assert (plain.bos_text, plain.eos_text) == ("<|endoftext|>", "<|im_end|>")
    assert plain.infill_tokens == tuple(
        TOKENS.index(f"<|fim_{part}|>") for part in ("prefix", "suffix", "middle")
    )


def test_ends_and_infill_tokens_without_weights_are_none() -> None:
    vocabulary = TokenizerVocabulary(byte_level_tokenizer(), size=3, end_tokens=[-1, 1, 5])
    assert vocabulary.end_tokens == {1, 2}
    assert vocabulary.infill_tokens is None


@pytest.mark.parametrize("special", [False, True])
def test_half_a_surrogate_pair_is_a_question_mark(special: bool) -> None:
    vocabulary = byte_level()
    assert ids(vocabulary, "a\ud800b", special=special) == ids(vocabulary, "a?b")


def test_a_closed_vocabulary_says_so() -> None:
    vocabulary = byte_level()
    vocabulary.close()
    with pytest.raises(ValueError, match="closed"):
        ids(vocabulary, "a")


# --- sentencepiece ------------------------------------------------------------------------------


def sentencepiece(*, unigram: bool) -> Any:
    specials = ["<unk>", "<s>", "</s>"]
    words = ["\u2581", "a", "b", "\u2581a", "\u2581\u2581", "é"]
    tokens = [*specials, *BYTE_FALLBACK, *words]
    if unigram:
        scores = [(token, 0.0 if token in specials else -2.0) for token in tokens]
        letters = [(letter, -2.0) for letter in "</s>"]
        backend = Tokenizer(models.Unigram([*scores, *letters], 0, byte_fallback=True))
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
        backend.decoder = decoders.Metaspace()
    else:
        vocabulary = {token: i for i, token in enumerate(tokens)}
        merges = [("\u2581", "a"), ("\u2581", "\u2581")]
        backend = Tokenizer(
            models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
        )
        backend.normalizer = normalizers.Replace(" ", "\u2581")
        backend.decoder = decoders.Sequence(
            [
                decoders.Replace("\u2581", " "),
                decoders.ByteFallback(),
                decoders.Fuse(),
                decoders.Strip(" ", 1, 0),
            ]
        )
    backend.add_special_tokens([AddedToken(text, special=True) for text in specials])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", bos_token="<s>")
    return TokenizerVocabulary(tokenizer, size=len(tokens) + 4 * unigram, end_tokens=())


@pytest.mark.parametrize("text", [" a  b", "ab", "é\n🙂", " "])
def test_sentencepiece_pieces_are_the_texts_bytes(text: str) -> None:
    vocabulary = sentencepiece(unigram=False)
    assert text_of(vocabulary, ids(vocabulary, text)) == text
    assert vocabulary.pieces[3 + 0x0A] == b"\n"


def test_words_that_are_control_tokens_are_cut_apart() -> None:
    vocabulary = sentencepiece(unigram=True)
    assert ids(vocabulary, "</s>", special=True) == [2]
    for text in ("</s>", "a</s></s>b", "</s>a", "</s>" * 5000):
        tokens = ids(vocabulary, text)
        assert 2 not in tokens
        assert text_of(vocabulary, tokens) == text


def test_tokenizers_that_do_not_say_their_bytes_are_refused() -> None:
    backend = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    with pytest.raises(ModelLoadError, match="byte-level"):
        TokenizerVocabulary(tokenizer, size=2, end_tokens=())
