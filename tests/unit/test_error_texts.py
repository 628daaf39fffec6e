"""What errors may say: sentences stay, what belongs to this machine goes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.ingress.error_texts import MAX_CHARS, presentable


@pytest.mark.parametrize(
    "message",
    [
        "'max_tokens' must not exceed 4096.",
        "No route /v1/nope.",
        "POST is not allowed on /v1/models.",
        "The model 'vendor/model:Q4_K_M' does not exist.",
        "Input should be less than or equal to 2 (temperature)",
        "A schema at #/properties/etc is too deep.",
        "The media type must be application/json; text/plain is not.",
        "The field 'object' attribute is missing at index 3.",
    ],
)
def test_ordinary_sentences_stay(message: str) -> None:
    assert presentable(message) == message


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("cannot identify <_io.BytesIO object at 0x7f11a0900e00>", "cannot identify …"),
        ("at 0xdeadbeef in memory", "at … in memory"),
        ("No such file: '/home/me/weights/a.gguf'.", "No such file: '…'."),
        ("open /etc/passwd failed", "open … failed"),
        ("in C:\\Users\\me\\x.txt now", "in … now"),
        ("file:///etc/hosts is odd", "… is odd"),
        ("authorization was Bearer abc.def-123456", "authorization was …"),
        ("key sk-live_0123456789 is wrong", "key … is wrong"),
        ("oops Traceback (most recent call last):\n  File x\nKeyError: y", "oops …"),
        ("a\nFAKE LOG\x1b[31m\u2028line\ud800", "a FAKE LOG [31m line"),
    ],
)
def test_what_belongs_to_this_machine_goes(message: str, shown: str) -> None:
    assert presentable(message) == shown


@given(st.text(max_size=200), st.sampled_from(["/usr/lib/x.so", "0x7f11a0900e00", "\n", "\x00"]))
@settings(max_examples=100, derandomize=True, deadline=None)
def test_nothing_around_it_saves_a_secret(text: str, secret: str) -> None:
    assert secret not in presentable(f"{text} {secret} {text}")


def test_long_texts_are_cut_in_little_time() -> None:
    for piece in ("<", "/etc/", "0x", "a object at ", "bearer ", "x"):
        assert len(presentable(piece * 200_000)) <= MAX_CHARS + 1
