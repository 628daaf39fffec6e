"""Logits over the shared pool against the plain model, for every kind of attention; and what is
refused instead of being wrong."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from models import prepacked_linear
from models.continuous_batching.batch import Batch
from models.errors import ModelLoadError
from models.transformers_lm import pooled_attention, self_test
from models.transformers_lm.engine import TransformersGenerator
from models.transformers_lm.loading import load_causal_lm
from models.transformers_lm.runner import TransformersRunner
from models.transformers_lm.self_test import reference_of
from models.transformers_lm.vocabulary import TokenizerVocabulary
from tests.generators import Recorder, request_of
from tests.tiny_causal import CONFIGS, TOKENS, byte_level_tokenizer, write_causal_lm
from tests.tiny_gguf import CONTEXT

CPU = torch.device("cpu")
TOLERANCE = 1e-4
"""Of logits, relative to the largest."""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def runner_of(path: Path, *, cells: int = 256, slots: int = 8) -> TransformersRunner:
    loaded = load_causal_lm(path, dtype="float32", device=CPU)
    vocabulary = TokenizerVocabulary(
        loaded.tokenizer, size=loaded.vocabulary_size, end_tokens=loaded.end_tokens
    )
    reference = reference_of(loaded, vocabulary)
    return TransformersRunner(loaded, vocabulary, reference, cells=cells, slots=slots)


def prompts_of(chance: random.Random) -> list[list[int]]:
    """Some share a beginning."""
    first, second = ([chance.randrange(len(TOKENS)) for _ in range(70)] for _ in range(2))
    return [first, [*first[:25], *second[:30]], second, [*second[:9], *first[:5]], [7]]


class Walk:
    """Evaluates the prompts in chunks of chance, copies what they share, drops and repeats them."""

    def __init__(self, runner: TransformersRunner, path: Path, chance: random.Random) -> None:
        self._runner, self._chance = runner, chance
        self._prompts = prompts_of(chance)
        self._done = [0] * len(self._prompts)
        plain = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
        with torch.inference_mode():
            self._expected = [
                plain.eval()(torch.tensor([prompt])).logits[0].numpy() for prompt in self._prompts
            ]
        self.compared = 0

    def step(self) -> float:
        """The largest difference of a step's logits, relative to the largest logit."""
        chunks = self._chunks()
        batch = Batch(512)
        for slot, count in chunks:
            start = self._done[slot]
            tokens = np.array(self._prompts[slot][start : start + count], np.int32)
            batch.append(slot, start, tokens, outputs=1 + (count > 4))
        assert self._runner.decode(batch)
        for slot, count in chunks:
            self._done[slot] += count
        rows = [i for i in range(batch.size) if batch.outputs[i]]
        self.compared += len(rows)
        return max(self._difference(batch, row) for row in rows)

    def _chunks(self) -> list[tuple[int, int]]:
        chosen = []
        for slot, prompt in enumerate(self._prompts):
            left = len(prompt) - self._done[slot]
            if left == 0 or self._chance.random() < 0.05:
                self._runner.remove(slot)
                self._done[slot] = 0
                self._copy_to(slot)
                left = len(prompt) - self._done[slot]
            if self._chance.random() < 0.8:
                chosen.append((slot, min(left, self._chance.choice([1, 1, 1, 2, 5, 13, 40]))))
        self._chance.shuffle(chosen)
        return chosen or [(0, 1)]

    def _copy_to(self, slot: int) -> None:
        other = self._chance.randrange(len(self._prompts))
        pairs = zip(self._prompts[slot][:-1], self._prompts[other], strict=False)
        shared = 0
        for mine, theirs in pairs:
            if mine != theirs or shared == self._done[other]:
                break
            shared += 1
        if shared and other != slot:
            self._runner.copy(other, slot, shared)
            self._done[slot] = shared

    def _difference(self, batch: Batch, row: int) -> float:
        expected = self._expected[batch.slots[row]][batch.positions[row]]
        return float(np.abs(self._runner.logits(row) - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("family", CONFIGS)
def test_logits_are_those_of_the_plain_model(tmp_path: Path, family: str) -> None:
    path = write_causal_lm(tmp_path, family)
    runner = runner_of(path)
    walk = Walk(runner, path, random.Random(3))
    assert max(walk.step() for _ in range(80)) < TOLERANCE
    assert walk.compared > 200
    runner.close()


@pytest.mark.parametrize("family", ["gemma2", "gpt-oss"])
def test_long_chunks_in_blocks_come_out_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    monkeypatch.setattr(pooled_attention, "MAX_SCORES", 500)
    path = write_causal_lm(tmp_path, family)
    walk = Walk(runner_of(path), path, random.Random(5))
    assert max(walk.step() for _ in range(30)) < TOLERANCE


def test_memory_is_weights_and_pool(tmp_path: Path) -> None:
    path = write_causal_lm(tmp_path, "qwen2")  # tied: the packed head is a copy of the embeddings
    weights = (path / "model.safetensors").stat().st_size
    head = len(TOKENS) * 32 * 4
    cell = 2 * 2 * 2 * 8 * 4  # layers, keys and values, heads, dim, bytes
    memory = runner_of(path).memory_bytes - 256 * cell
    packed = head if prepacked_linear.available() else 0
    assert memory == pytest.approx(weights + packed, abs=4096)  # the file has a header


def test_half_precision_stays_near(tmp_path: Path) -> None:
    path = write_causal_lm(tmp_path, "qwen2")
    for dtype in ("bfloat16", "float16"):
        engine = TransformersGenerator(path, Recorder().listen, n_threads=1, dtype=dtype)
        assert engine.alive
        engine.close()


def test_no_more_sequences_than_one_step_has_tokens(tmp_path: Path) -> None:
    path = write_causal_lm(tmp_path)
    engine = TransformersGenerator(path, Recorder().listen, n_threads=1, max_sequences=1000)
    assert engine._runner.slots == engine._runner.n_batch
    engine.close()


# --- refused ------------------------------------------------------------------------------------

SIZE: dict[str, Any] = {"vocab_size": len(TOKENS), "hidden_size": 32, "num_hidden_layers": 2}
REFUSED: dict[str, Callable[[], Any]] = {
    "MambaForCausalLM": lambda: transformers.MambaForCausalLM(
        transformers.MambaConfig(**SIZE, state_size=4)
    ),
    "BloomForCausalLM": lambda: transformers.BloomForCausalLM(
        transformers.BloomConfig(vocab_size=len(TOKENS), hidden_size=32, n_layer=2, n_head=4)
    ),
    "BertLMHeadModel": lambda: transformers.BertLMHeadModel(
        transformers.BertConfig(
            **SIZE, num_attention_heads=4, intermediate_size=64, initializer_range=0.4
        )
    ),
    "Qwen3NextForCausalLM": lambda: transformers.Qwen3NextForCausalLM(
        transformers.Qwen3NextConfig(
            **SIZE,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            intermediate_size=64,
            num_experts=2,
            num_experts_per_tok=1,
            moe_intermediate_size=16,
            shared_expert_intermediate_size=16,
            linear_num_key_heads=2,
            linear_num_value_heads=2,
            linear_key_head_dim=8,
            linear_value_head_dim=8,
            layer_types=["linear_attention", "full_attention"],
        )
    ),
    "T5ForConditionalGeneration": lambda: transformers.T5ForConditionalGeneration(
        transformers.T5Config(vocab_size=len(TOKENS), d_model=32, d_ff=32, num_layers=1, d_kv=8)
    ),
    "ViTForImageClassification": lambda: transformers.ViTForImageClassification(
        transformers.ViTConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2)
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_models_of_another_kind_are_refused_by_name(tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    REFUSED[name]().save_pretrained(tmp_path)
    byte_level_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ModelLoadError, match=name):
        TransformersGenerator(tmp_path, Recorder().listen, n_threads=1)


@pytest.mark.parametrize("part", ["window", "softcap", "sinks"])
def test_attention_that_comes_out_wrong_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    right = pooled_attention.pooled_attention

    def wrong(*args: Any, **options: Any) -> Any:
        if part == "window":
            causal = pooled_attention.PositionMask(
                pooled_attention.causal_mask_function, args[4].plan
            )
            return right(*args[:4], causal, **options)
        options.pop({"softcap": "softcap", "sinks": "s_aux"}[part], None)
        return right(*args, **options)

    monkeypatch.setattr(pooled_attention, "pooled_attention", wrong)
    family = {"window": "mistral", "softcap": "gemma2", "sinks": "gpt-oss"}[part]
    with pytest.raises(ModelLoadError, match="cannot run over a shared pool"):
        runner_of(write_causal_lm(tmp_path, family))


def test_a_copied_prefix_that_goes_wrong_is_noticed(tmp_path: Path) -> None:
    runner = runner_of(write_causal_lm(tmp_path))
    loaded = load_causal_lm(tmp_path, dtype="float32", device=CPU)
    reference = reference_of(loaded, runner.vocabulary)
    right = self_test.check_pooled(runner._decode_all, runner.copy, reference, torch.float32)
    assert right is None
    for slot in range(3):
        runner.remove(slot)

    def copy_another(source: int, target: int, length: int) -> None:
        runner.copy(1, target, 9)
        batch = Batch(64)
        batch.append(target, 9, np.zeros(length - 9, np.int32), outputs=1)
        runner.decode(batch)
        del source

    fault = self_test.check_pooled(runner._decode_all, copy_another, reference, torch.float32)
    assert fault is not None
    assert "deviations" in fault


def test_weights_that_are_missing_or_not_numbers_are_refused(tmp_path: Path) -> None:
    model = transformers.LlamaForCausalLM(CONFIGS["llama"]())
    state = {k: v.clone() for k, v in model.state_dict().items()}
    incomplete = {k: v for k, v in state.items() if "layers.1.mlp" not in k}
    for name, weights in {
        "missing": incomplete,
        "nan": {**state, "model.norm.weight": None},
    }.items():
        path = write_causal_lm(tmp_path / name)
        broken = {k: torch.full((32,), torch.nan) if v is None else v for k, v in weights.items()}
        model.save_pretrained(path, state_dict=broken)
        with pytest.raises(ModelLoadError, match=r"no weights for|not finite"):
            TransformersGenerator(path, Recorder().listen, n_threads=1)


def test_code_of_others_is_not_run(tmp_path: Path) -> None:
    path = write_causal_lm(tmp_path)
    config = json.loads((path / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "modeling.Evil"}
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelLoadError, match="auto_map"):
        TransformersGenerator(path, Recorder().listen, n_threads=1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dtype": "int4"}, "number formats"),
        ({"device": "abacus"}, "device"),
        ({"max_sequences": 0}, "smaller than one"),
        ({"chat_template": "{% if %}"}, "cannot chat"),
    ],
)
def test_options_that_are_refused(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    path = write_causal_lm(tmp_path)
    with pytest.raises(ModelLoadError, match=words):
        TransformersGenerator(path, Recorder().listen, n_threads=1, **options)


# --- what a folder says of itself ---------------------------------------------------------------


def test_end_tokens_context_and_templates_come_from_the_folder(tmp_path: Path) -> None:
    path = write_causal_lm(tmp_path, chat_template=None)
    (path / "generation_config.json").write_text(json.dumps({"eos_token_id": [70, 71]}))
    (path / "chat_template.jinja").write_text("{{ messages[0].content }}!")
    loaded = load_causal_lm(path, dtype="auto", device=CPU)
    assert loaded.end_tokens == {2, 70, 71}
    assert loaded.context_length == CONTEXT
    assert loaded.chat_template == "{{ messages[0].content }}!"
    assert loaded.model.dtype == torch.float32
    settings = json.loads((path / "tokenizer_config.json").read_text())
    named = [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]
    (path / "chat_template.jinja").unlink()
    (path / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": named}))
    assert load_causal_lm(path, dtype="auto", device=CPU).chat_template == "d"


def test_rotations_that_depend_on_the_company_are_kept_from_changing(tmp_path: Path) -> None:
    path = write_causal_lm(tmp_path, "phi3")
    config = json.loads((path / "config.json").read_text())
    factors = [1.0] * 4
    config["rope_parameters"] = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": factors,
        "long_factor": [4.0] * 4,
        "original_max_position_embeddings": 64,
    }
    config["original_max_position_embeddings"] = 64
    (path / "config.json").write_text(json.dumps(config))
    assert load_causal_lm(path, dtype="auto", device=CPU).context_length == 64


def test_a_prompt_that_begins_with_bos(tmp_path: Path) -> None:
    path = write_causal_lm(tmp_path, adds_bos=True)
    recorder = Recorder()
    engine = TransformersGenerator(path, recorder.listen, n_threads=1)
    engine.add("one", request_of("abc", max_tokens=1))
    assert recorder.take("one").usage.prompt_tokens == 4
    engine.close()
