"""The llama.cpp engine over a tiny random model: loading, options, samplers, native refusals."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.continuous_batching.batch import Batch
from models.continuous_batching.numpy_sampler import NumpySampler
from models.errors import InvalidInputError, ModelError, ModelLoadError
from models.llama_cpp.bindings import NativeModel, computes_on_gpus
from models.llama_cpp.engine import LlamaCppGenerator
from models.llama_cpp.generator_file import N_BATCH
from models.llama_cpp.gguf_header import read_gguf_header
from models.llama_cpp.gguf_memory import gguf_memory
from models.llama_cpp.runner import LlamaRunner
from models.types.generation import GenerationRequest, SamplingParams, TokenPrompt
from tests.generators import Recorder, chat, ids_of, request_of
from tests.tiny_gguf import CONTEXT, write_gguf

GIB = 2**30


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture
def runner(path: Path) -> Iterator[LlamaRunner]:
    runner = LlamaRunner(NativeModel(path), cells=512, slots=4, n_threads=1)
    yield runner
    runner.close()


def generator(path: Path, recorder: Recorder | None = None, **options: Any) -> LlamaCppGenerator:
    return LlamaCppGenerator(path, (recorder or Recorder()).listen, **{"n_threads": 1, **options})


# --- loading ------------------------------------------------------------------------------------


def test_a_file_that_only_looks_like_a_model(tmp_path: Path, path: Path) -> None:
    data = path.read_bytes()
    cut = tmp_path / "secret-name.gguf"
    cut.write_bytes(data[: len(data) // 2])
    with pytest.raises(ModelLoadError) as refused:
        generator(cut)
    assert "secret" not in refused.value.message


@pytest.mark.parametrize(
    "options",
    [{"n_threads": 0}, {"n_ctx": 0}, {"max_sequences": 0}, {"kv_cells": -1}, {"max_queued": 0}],
)
def test_options_that_make_no_sense(path: Path, options: dict[str, int]) -> None:
    with pytest.raises(ModelLoadError, match="option"):
        generator(path, **options)


def test_a_broken_chat_template_is_a_load_error(tmp_path: Path) -> None:
    broken = write_gguf(tmp_path / "broken.gguf", chat_template="{% for %}")
    with pytest.raises(ModelLoadError, match="chat template"):
        generator(broken)
    engine = generator(broken, chat_template="{{ messages[0].content }}")
    assert engine.render(chat("hi")) == "hi"
    engine.close()


def test_a_model_without_a_chat_template_completes_texts_only(tmp_path: Path) -> None:
    recorder = Recorder()
    engine = generator(write_gguf(tmp_path / "plain.gguf", chat_template=None), recorder)
    with pytest.raises(InvalidInputError) as refused:
        engine.add("chat", request_of(chat("hi")))
    assert refused.value.param == "messages"
    engine.add("text", request_of("hi", max_tokens=1))
    assert recorder.take("text").finish_reason
    engine.close()


def test_a_hostile_template_in_a_model_file_leaves_the_engine_alive(tmp_path: Path) -> None:
    source = "{{ 'a' * 10**10 }}"
    recorder = Recorder()
    engine = generator(write_gguf(tmp_path / "hostile.gguf", chat_template=source), recorder)
    with pytest.raises(InvalidInputError):
        engine.add("chat", request_of(chat("hi")))
    engine.add("text", request_of("hi", max_tokens=1))
    assert recorder.take("text").finish_reason
    engine.close()


def test_a_smaller_context_than_the_trained_one(path: Path) -> None:
    engine = generator(path, n_ctx=100)
    assert engine.context_length == 100
    engine.close()
    engine = generator(path, n_ctx=10 * CONTEXT)
    assert engine.context_length == CONTEXT
    engine.close()


def test_llama_cpp_writes_to_the_log_not_to_stderr(
    path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.DEBUG, logger="models.llama_cpp.bindings"):
        generator(path).close()
    assert any("llama" in record.message for record in caplog.records)
    assert capfd.readouterr().err == ""


# --- memory -------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [True, False])
def test_the_build_says_whether_it_computes_on_gpus(
    monkeypatch: pytest.MonkeyPatch, answer: bool
) -> None:
    monkeypatch.setattr("llama_cpp.llama_cpp.llama_supports_gpu_offload", lambda: answer)
    assert computes_on_gpus() is answer


@pytest.mark.parametrize(("kind", "warns"), [("Q4_1", True), ("Q5_1", True), ("Q8_0", False)])
def test_a_slow_format_is_loaded_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str, warns: bool
) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", kind=kind)
    with caplog.at_level(logging.WARNING, logger="models.llama_cpp.engine"):
        generator(path).close()
    warned = [text for text in caplog.messages if "slow on CPUs" in text]
    assert len(warned) == warns
    assert all(f"the format {kind} " in text for text in warned)


def test_memory_is_weights_pool_and_buffers(path: Path) -> None:
    sizes = []
    for cells in (512, 1024):
        engine = generator(path, kv_cells=cells)
        sizes.append(engine.memory_bytes)
        engine.close()
    cell = gguf_memory(path, read_gguf_header(path)).kv_bytes_per_cell()
    assert sizes[1] - sizes[0] == 512 * (cell + 2 * N_BATCH)
    assert sizes[0] > path.stat().st_size / 2 + 512 * cell


def test_a_smaller_cache(tmp_path: Path, path: Path) -> None:
    with pytest.raises(ModelLoadError, match="multiple of 32"):
        generator(path, kv_cache="q8_0")
    with pytest.raises(ModelLoadError, match="f16, q8_0"):
        generator(path, kv_cache="q2")
    wide = write_gguf(tmp_path / "wide.gguf", width=128)
    written = []
    for cache in ("f16", "q8_0"):
        recorder = Recorder()
        engine = generator(wide, recorder, kv_cache=cache, kv_cells=1024)
        engine.add("a", request_of("the banana", temperature=0, max_tokens=1, logprobs=1))
        written.append((engine.memory_bytes, recorder.take("a").logprobs[0].top[0].logprob))
        engine.close()
    (full, exact), (small, close) = written
    kv = gguf_memory(wide, read_gguf_header(wide))
    assert full - small == 1024 * (kv.kv_bytes_per_cell() - kv.kv_bytes_per_cell("q8_0"))
    assert close == pytest.approx(exact, abs=0.3)


# --- what native code must never see ------------------------------------------------------------


def single(token: int, position: int, slot: int) -> Batch:
    batch = Batch(4)
    batch.append_singles([slot], [position], [token])
    return batch


@pytest.mark.parametrize(
    "batch",
    [Batch(4), single(-1, 0, 0), single(10**6, 0, 0), single(1, 0, -1), single(1, 0, 4)],
    ids=["empty", "negative token", "unknown token", "negative slot", "unknown slot"],
)
def test_batches_that_are_refused(runner: LlamaRunner, batch: Batch) -> None:
    with pytest.raises(ValueError, match=r"batch|token|sequence"):
        runner.decode(batch)


def test_a_gap_in_the_positions_is_our_bug(runner: LlamaRunner) -> None:
    assert runner.decode(single(1, 0, 0))
    with pytest.raises(RuntimeError, match="-1"):
        runner.decode(single(1, 5, 0))


def test_a_full_pool_is_not_an_error(runner: LlamaRunner) -> None:
    batch = Batch(runner.n_batch)
    batch.append(0, 0, np.ones(runner.cells, np.int32), outputs=0)
    assert runner.decode(batch)
    assert not runner.decode(single(1, 0, 1))
    runner.remove(0)
    assert runner.decode(single(1, 0, 1))


def test_more_tokens_than_a_batch_holds() -> None:
    with pytest.raises(ValueError, match="holds"):
        Batch(4).append(0, 0, np.ones(5, np.int32), outputs=1)
    with pytest.raises(ValueError, match="holds"):
        Batch(1).append_singles([0, 1], [0, 0], [1, 1])


# --- llama.cpp's samplers against their definition in numpy --------------------------------------

GREEDY: dict[str, Any] = {"temperature": 0}
SAME_CHOICE = {
    "greedy": {},
    "presence": {"presence_penalty": 2.0},
    "frequency": {"frequency_penalty": 0.7},
    "rewarded": {"frequency_penalty": -0.5, "presence_penalty": -1.0},
    "repetition": {"repetition_penalty": 1.8},
    "all penalties": {"repetition_penalty": 1.3, "frequency_penalty": 0.5, "presence_penalty": 0.5},
    "bias": {"logit_bias": ((70, 6.0), (80, 5.0), (90, -100.0))},
    "min_tokens": {"min_tokens": 12, "logit_bias": ((2, 30.0),)},
    "ignore_eos": {"ignore_eos": True, "logit_bias": ((2, 30.0),)},
}


@pytest.mark.parametrize("options", SAME_CHOICE.values(), ids=SAME_CHOICE)
def test_samplers_choose_what_their_definition_says(
    runner: LlamaRunner, options: dict[str, Any]
) -> None:
    params = SamplingParams(**(GREEDY | options))
    prompt = runner.vocabulary.tokenize("the banana", add_special=True, parse_special=False)
    native = runner.sampler(params, prompt)
    plain = NumpySampler(params, prompt=prompt, end_tokens=runner.vocabulary.end_tokens)
    batch = Batch(64)
    index = batch.append(0, 0, np.array(prompt, np.int32), outputs=1)
    for position in range(len(prompt), len(prompt) + 40):
        runner.decode(batch)
        expected = plain.choose(native.logits(index))
        token = native.choose(index)
        assert token == expected
        batch.clear()
        index = batch.append(0, position, np.array([token], np.int32), outputs=1)
    native.close()
    native.close()


@pytest.mark.parametrize("options", [GREEDY, {}, GREEDY | {"presence_penalty": 1.0}])
def test_nothing_is_chosen_of_what_is_no_number(
    runner: LlamaRunner, options: dict[str, Any]
) -> None:
    runner.decode(single(65, 0, 0))
    native = runner.sampler(SamplingParams(**options), [65])
    native.logits(0)[:] = np.nan
    with pytest.raises(ModelError, match="no finite score"):
        native.choose(0)
    native.close()


def test_draws_follow_the_distribution(runner: LlamaRunner) -> None:
    runner.decode(single(65, 0, 0))
    params = {"temperature": 3.0, "top_k": 6, "top_p": 0.95, "min_p": 0.01}
    counts: dict[str, dict[int, int]] = {"native": {}, "numpy": {}}
    for seed in range(1500):
        sampling = SamplingParams(seed=seed, **params)  # type: ignore[arg-type]
        native = runner.sampler(sampling, [65])
        plain = NumpySampler(sampling, prompt=[65], end_tokens=())
        drawn = {"native": native.choose(0), "numpy": plain.choose(native.logits(0))}
        native.close()
        for name, token in drawn.items():
            counts[name][token] = counts[name].get(token, 0) + 1
    assert counts["native"].keys() == counts["numpy"].keys()
    for token, count in counts["numpy"].items():
        assert counts["native"][token] == pytest.approx(count, abs=120)


def test_log_probabilities_of_a_prompt_are_those_of_writing_it(
    path: Path,
) -> None:
    recorder = Recorder()
    engine = generator(path, recorder)
    endless = {"temperature": 0, "ignore_eos": True, "max_tokens": 100, "logprobs": 2}
    engine.add("text", request_of("Once upon a time", **endless))
    written = recorder.take("text")
    rest = ids_of(engine, "Once upon a time")
    pieces = engine._vocabulary.pieces
    tokens = [*rest, *(pieces.index(item.raw) for item in written.logprobs)]
    sampling = request_of("", max_tokens=0, logprobs=2).sampling
    engine.add("echo", GenerationRequest(TokenPrompt(tuple(tokens)), sampling, echo=True))
    echo = recorder.take("echo")
    engine.close()
    assert echo.usage.cached_tokens == 0
    assert len(echo.logprobs) == len(tokens)
    assert echo.logprobs[0].logprob is None
    for read, wrote in zip(echo.logprobs[len(rest) :], written.logprobs, strict=True):
        assert read.raw == wrote.raw
        assert read.logprob == pytest.approx(wrote.logprob, abs=0.05)
        assert read.top[0].logprob == pytest.approx(wrote.top[0].logprob, abs=0.05)
