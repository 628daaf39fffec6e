"""The loop and its scheduler over the weightless runner, step by step on one thread."""

from __future__ import annotations

from typing import Any

import pytest

from models.continuous_batching.completion import Completion
from models.continuous_batching.decode_loop import DecodeLoop
from models.continuous_batching.pacing import PaceLimits
from models.continuous_batching.sequence import NO_SLOT, Sequence
from models.errors import ModelError, OutOfMemoryError
from models.toy.generator import ByteVocabulary, ToyRunner
from models.types.generation import SamplingParams, TextDelta, TokenLogprob

SMALL_CHUNKS = PaceLimits(min_chunk=8, max_chunk=8)


def loop_of(
    cells: int = 1000, slots: int = 16, max_sequences: int = 8, **options: Any
) -> DecodeLoop:
    runner = ToyRunner(ByteVocabulary(), cells=cells, slots=slots)
    return DecodeLoop(runner, max_sequences=max_sequences, **options)


def submit(loop: DecodeLoop, name: str, text: str, max_new: int = 20, **sampling: Any) -> Sequence:
    params = SamplingParams(temperature=0, ignore_eos=True, **sampling)
    completion = Completion(loop.runner.vocabulary.pieces)
    sequence = Sequence.start(name, list(text.encode()), max_new, params, completion)
    loop.submit(sequence)
    return sequence


def finish(loop: DecodeLoop) -> dict[str, str]:
    """Step until nothing is left to do; the texts by request."""
    texts: dict[str, str] = {}
    for _ in range(5000):
        if not loop.busy:
            return texts
        for name, event in loop.step():
            assert isinstance(event, TextDelta)
            texts[name] = texts.get(name, "") + event.text
    raise AssertionError("the loop does not end")


def test_a_running_stream_goes_on_while_a_prompt_arrives() -> None:
    loop = loop_of(limits=SMALL_CHUNKS)
    submit(loop, "running", "ab", max_new=500)
    for _ in range(2):  # the second one is plain, and tells what that costs
        loop.step()
    newcomer = submit(loop, "newcomer", "x" * 200)
    steps = 0
    while newcomer.generated == 0:
        names = [name for name, _ in loop.step()]
        assert "running" in names
        steps += 1
    assert steps == 200 // 8


def test_a_short_prompt_does_not_wait_for_a_long_one() -> None:
    loop = loop_of(limits=SMALL_CHUNKS)
    submit(loop, "running", "ab", max_new=500)
    for _ in range(2):  # the second one is plain, and tells what that costs
        loop.step()
    long = submit(loop, "long", "x" * 400)
    loop.step()
    short = submit(loop, "short", "y" * 24)
    for _ in range(2 * 24 // 8):
        loop.step()
    assert short.generated > 0
    assert long.generated == 0
    assert long.evaluated >= 8 * 3  # and is not kept waiting itself


def test_alone_a_prompt_takes_the_whole_batch() -> None:
    loop = loop_of(limits=PaceLimits(solo_seconds=1000))
    sequence = submit(loop, "one", "x" * 600)
    loop.step()
    assert sequence.evaluated == loop.runner.n_batch


def test_first_come_first_served() -> None:
    loop = loop_of(max_sequences=1)
    for name in "abc":
        submit(loop, name, name * 5, max_new=3)
    assert list(finish(loop)) == ["a", "b", "c"]


def test_callers_are_admitted_in_turn() -> None:
    loop = loop_of(cells=2000, max_sequences=2)
    for name in ("flood-1", "flood-2", "flood-3", "other-1"):
        submit(loop, name, name).caller = name.partition("-")[0]
    loop.step()
    running = {sequence.request_id for sequence in loop.scheduler.sequences() if sequence.slot >= 0}
    assert running == {"flood-1", "other-1"}
    assert set(finish(loop)) == {"flood-1", "flood-2", "flood-3", "other-1"}


def test_admission_asks_for_the_prompt_not_for_max_tokens() -> None:
    loop = loop_of(cells=300)
    for name in "abcd":
        submit(loop, name, name * 20, max_new=250)
    loop.step()
    assert loop.scheduler.running == 4


def test_what_does_not_fit_waits_and_the_youngest_is_parked() -> None:
    loop = loop_of(cells=300)
    sequences = [submit(loop, name, name * 20, max_new=150) for name in "abcd"]
    alone = {name: finish_alone(name * 20, 150) for name in "abcd"}
    parked: list[str] = []
    while loop.busy and not parked:
        loop.step()
        parked = [s.request_id for s in sequences if s.slot < 0 and 0 < s.generated < 150]
    assert parked == ["d"]
    assert loop.stats.preemptions == 1
    texts = {s.request_id: s for s in sequences}
    finish(loop)
    for name, sequence in texts.items():
        written = bytes(sequence.tokens[20 : sequence.length].tolist()).decode()
        assert written == alone[name]


def finish_alone(text: str, max_new: int) -> str:
    loop = loop_of()
    submit(loop, "alone", text, max_new)
    return finish(loop)["alone"]


def test_the_oldest_sequence_always_gets_through() -> None:
    loop = loop_of(cells=256, slots=8)
    first = submit(loop, "first", "a" * 100, max_new=156)
    for i in range(5):
        submit(loop, f"other-{i}", f"{i}" * 50, max_new=150)
    while first.generated < 156:
        loop.step()
        assert first.slot >= 0 or first.generated == 156
    finish(loop)
    loop.cache.clear()
    assert loop.pool.used == 0


def test_cached_sequences_go_before_anyone_is_parked() -> None:
    loop = loop_of(cells=200)
    submit(loop, "old", "o" * 80, max_new=10)
    finish(loop)
    assert loop.stats.cached_sequences == 1
    submit(loop, "new", "n" * 150, max_new=40)
    finish(loop)
    assert loop.stats.preemptions == 0


def test_others_pass_a_prompt_that_waits_for_its_equal() -> None:
    loop = loop_of(limits=SMALL_CHUNKS)
    submit(loop, "running", "ab", max_new=500)
    for _ in range(2):
        loop.step()
    first = submit(loop, "first", "x" * 400)
    loop.step()
    equal = submit(loop, "equal", "x" * 400)
    other = submit(loop, "other", "y" * 8)
    for _ in range(4):
        loop.step()
    assert other.generated > 0
    assert (first.generated, equal.slot) == (0, NO_SLOT)
    while not equal.generated:
        loop.step()
    assert equal.cached_tokens is not None
    assert equal.cached_tokens >= 368


def test_a_prompt_waits_for_its_equal_and_starts_from_it() -> None:
    loop = loop_of(limits=SMALL_CHUNKS)
    first = submit(loop, "first", "p" * 100 + "1")
    second = submit(loop, "second", "p" * 100 + "2")
    texts = finish(loop)
    assert first.cached_tokens == 0
    assert second.cached_tokens is not None
    assert second.cached_tokens >= 100 - 32
    assert texts["second"] == finish_alone("p" * 100 + "2", 20)


def test_without_shareable_memory_nothing_is_reused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ToyRunner, "shares_prefixes", False)
    loop = loop_of()
    for name in ("first", "second"):
        sequence = submit(loop, name, "the same prompt")
        finish(loop)
        assert sequence.cached_tokens == 0
    assert loop.pool.used == 0


def test_a_refused_batch_is_tried_again_with_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """The native pool may be fuller than the account says, with sliding windows for instance."""
    loop = loop_of()
    for name in "ab":
        submit(loop, name, name * 10, max_new=5)
    decode, refusals = loop.runner.decode, iter([True, False, False])

    def refuse_first(batch: Any) -> bool:
        return False if next(refusals, False) else decode(batch)

    monkeypatch.setattr(loop.runner, "decode", refuse_first)
    assert finish(loop).keys() == {"a", "b"}
    assert loop.stats.preemptions == 1


def test_a_single_sequence_without_room_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = loop_of()
    submit(loop, "one", "abc")
    monkeypatch.setattr(loop.runner, "decode", lambda batch: False)
    with pytest.raises(RuntimeError):
        loop.step()


def test_what_fails_in_one_request_ends_that_one_only() -> None:
    loop = loop_of()
    broken = submit(loop, "broken", "abc")
    submit(loop, "sound", "abd", max_new=5)

    def fail(index: int) -> int:
        raise ValueError(index)

    assert broken.sampler is not None
    broken.sampler.choose = fail  # type: ignore[method-assign]
    events: list[tuple[str, Any]] = []
    while loop.busy:
        events += loop.step()
    assert [type(e) for name, e in events if name == "broken"] == [ModelError]
    assert events[-1][0] == "sound"
    assert events[-1][1].finish_reason == "length"


@pytest.mark.parametrize(
    ("error", "kind"),
    [(MemoryError(), OutOfMemoryError), (ValueError("a bound"), ModelError)],
)
@pytest.mark.parametrize("others", [0, 1])
def test_a_sampler_that_cannot_be_made_ends_its_request_alone(
    error: Exception, kind: type[ModelError], others: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = loop_of()
    for number in range(others):
        submit(loop, f"sound-{number}", "abd", max_new=3)

    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr(loop.runner, "sampler", refuse)
    submit(loop, "refused", "abc")
    assert loop.busy
    events = loop.step()
    assert [type(event) for name, event in events if name == "refused"] == [kind]
    assert len(finish(loop)) == others


def test_scores_that_fail_end_their_request_alone() -> None:
    loop = loop_of()
    broken = submit(loop, "broken", "abc")
    broken.prompt_logprobs = [TokenLogprob("a", b"a", None)]
    submit(loop, "sound", "abd", max_new=3)

    def fail(index: int) -> Any:
        raise MemoryError(index)

    assert broken.sampler is not None
    broken.sampler.logits = fail  # type: ignore[method-assign]
    events = loop.step()
    assert [type(event) for name, event in events if name == "broken"] == [OutOfMemoryError]
    assert set(finish(loop)) == {"sound"}


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_cancelling_frees_at_once(steps: int) -> None:
    loop = loop_of(limits=SMALL_CHUNKS)
    submit(loop, "gone", "x" * 30)
    for _ in range(steps):
        loop.step()
    loop.cancel("gone")
    assert not loop.busy
    assert loop.step() == []
    loop.cache.clear()
    assert loop.pool.used == 0


class Refusing:
    """A constraint that the text gets too complex for after some tokens."""

    finished = False

    def __init__(self, tokens: int) -> None:
        self.left = tokens

    def mask(self, logits: Any) -> None:
        if not self.left:
            raise ModelError("too complex")
        self.left -= 1

    def accept(self, token: int) -> None:
        """Anything goes."""


def test_a_grammar_that_cannot_be_followed_ends_its_request_alone() -> None:
    loop = loop_of()
    submit(loop, "other", "ab", max_new=10)
    failing = submit(loop, "failing", "cd", max_new=10)
    failing.constraint = Refusing(3)
    events = [event for _ in range(10) for event in loop.step()]
    errors = [(name, str(event)) for name, event in events if isinstance(event, ModelError)]
    assert errors == [("failing", "too complex")]
    assert failing.generated == 3
    assert sum(name == "other" for name, _ in events) == 10
    assert loop.scheduler.running == 0


class Complete:
    """A constraint under which nothing but the end may follow two tokens."""

    def __init__(self) -> None:
        self.tokens = 0

    @property
    def finished(self) -> bool:
        return self.tokens == 2

    def mask(self, logits: Any) -> None:
        """Anything goes."""

    def accept(self, token: int) -> None:
        self.tokens += 1


def test_a_complete_text_ends_whatever_else_was_asked_for() -> None:
    loop = loop_of()
    sequence = submit(loop, "one", "ab", max_new=10, min_tokens=8)
    sequence.constraint = Complete()
    last = [event for _ in range(3) for _, event in loop.step()][-1]
    assert isinstance(last, TextDelta)
    assert last.finish_reason == "stop"
    assert sequence.generated == 2
