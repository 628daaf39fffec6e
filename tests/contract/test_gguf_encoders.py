"""llama.cpp's encoders and rerankers against torch on the same weights."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.encoders.cross_encoder import TorchReranker
from models.encoders.encoder import TorchEncoder
from models.encoders.rerank_template import QWEN3_INSTRUCTION, QWEN3_TEMPLATE
from models.encoders.torch_judge import TorchJudge
from models.errors import InvalidInputError, ModelLoadError
from models.llama_cpp.bindings import NativeEncoder, NativeModel
from models.llama_cpp.encoder import LlamaCppEncoder
from models.llama_cpp.engine import LlamaCppGenerator
from models.llama_cpp.reranker import LlamaCppReranker
from models.llama_cpp.tokenization import GgufTokenizer
from models.types.texts import EmbeddingRequest, RerankRequest
from tests.contract.test_encoder_fidelity import LENGTHS, TEXTS, texts_of
from tests.gguf_encoders import write_bert_gguf, write_qwen3_gguf
from tests.tiny_gguf import write_gguf
from tests.tiny_models import write_encoder, write_json, write_judge, write_reranker

WAIT = 300.0
COSINE = 0.9999
LOGITS = 0.1
PLAIN_TEXTS = texts_of(LENGTHS)
"""Without accents and ideographs, at which BERT's normaliser and the tiny tokenizer part."""


def _both(torch: Any, llama: Any, texts: list[str]) -> tuple[Any, Any]:
    """The results of both engines, which are closed; llama's with those of single requests."""
    (expected,) = torch.submit([EmbeddingRequest(tuple(texts), truncate=True)]).result(WAIT)
    (together,) = llama.submit([EmbeddingRequest(tuple(texts), truncate=True)]).result(WAIT)
    alone = [
        llama.submit([EmbeddingRequest((text,), truncate=True)]).result(WAIT)[0].vectors
        for text in texts
    ]
    torch.close()
    llama.close()
    assert together.input_tokens == expected.input_tokens
    assert float((together.vectors * np.concatenate(alone)).sum(1).min()) > COSINE
    return expected, together


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_bert_gives_the_vectors_of_torch(pooling: str, tmp_path: Path) -> None:
    folder = write_encoder(tmp_path, "bert", pooling)
    llama: Any = LlamaCppEncoder(
        write_bert_gguf(folder, tmp_path / "model.gguf", pooling), n_threads=1, max_tokens=256
    )
    torch: Any = TorchEncoder(folder, n_threads=1, dtype="float32")
    assert (llama.info.pooling, llama.info.dtype, llama.max_tokens) == (pooling, "F32", 256)
    expected, vectors = _both(torch, llama, PLAIN_TEXTS)
    assert float((expected.vectors * vectors.vectors).sum(1).min()) > COSINE


@pytest.mark.parametrize("pooling", [None, "lasttoken"])
def test_a_causal_embedder_pools_its_last_token(pooling: str | None, tmp_path: Path) -> None:
    folder = write_judge(tmp_path)
    write_json(
        folder / "modules.json",
        [
            {"type": "sentence_transformers.models.Transformer", "path": ""},
            {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"},
            {"type": "sentence_transformers.models.Normalize", "path": "2_Normalize"},
        ],
    )
    write_json(folder / "1_Pooling" / "config.json", {"pooling_mode": "lasttoken"})
    torch: Any = TorchEncoder(folder, n_threads=1, dtype="float32")
    llama: Any = LlamaCppEncoder(
        write_qwen3_gguf(folder, tmp_path / "model.gguf", pooling), n_threads=1
    )
    assert llama.info.pooling == "lasttoken"
    expected, vectors = _both(torch, llama, [text for text in TEXTS if text.strip()])
    assert float((expected.vectors * vectors.vectors).sum(1).min()) > COSINE


def test_a_call_holds_several_sequences_up_to_its_size(tmp_path: Path) -> None:
    """Batches of the queue larger than a call are cut into calls; results do not change."""
    path = write_bert_gguf(write_encoder(tmp_path, "bert"), tmp_path / "model.gguf", "mean")
    sizes: list[list[int]] = []
    original = NativeEncoder.encode

    def spy(context: Any, batch: Any, sequences: int) -> Any:
        sizes.append([batch.size, sequences])
        return original(context, batch, sequences)

    encoder: Any = LlamaCppEncoder(path, n_threads=1, max_tokens=64, max_batch_tokens=4096)
    encoder._runner.sizes = type(encoder._runner.sizes)(64, 64, 1)  # smaller calls
    encoder._runner._context.n_batch = 64
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(NativeEncoder, "encode", spy)
        request = EmbeddingRequest(tuple(PLAIN_TEXTS), truncate=True)
        (result,) = encoder.submit([request]).result(WAIT)
    encoder.close()
    assert sum(tokens for tokens, _ in sizes) == result.usage.prompt_tokens
    assert sum(count for _, count in sizes) == len(PLAIN_TEXTS)
    assert max(tokens for tokens, _ in sizes) <= 64
    assert max(count for _, count in sizes) > 1


def test_one_thread_makes_the_context_and_computes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_bert_gguf(write_encoder(tmp_path, "bert"), tmp_path / "model.gguf", "mean")
    threads: list[int] = []
    for name in ("__init__", "encode"):
        original = getattr(NativeEncoder, name)

        def spy(*arguments: Any, _original: Any = original, **options: Any) -> Any:
            threads.append(threading.get_ident())
            return _original(*arguments, **options)

        monkeypatch.setattr(NativeEncoder, name, spy)
    encoder: Any = LlamaCppEncoder(path, n_threads=1)
    encoder.submit([EmbeddingRequest(("a",))]).result(WAIT)
    encoder.close()
    assert len(threads) == 3  # made, tried out, used
    assert set(threads) == {encoder._batcher._thread.ident}


def test_what_would_abort_is_refused_before(tmp_path: Path) -> None:
    from models.continuous_batching.batch import Batch

    path = write_bert_gguf(write_encoder(tmp_path, "bert"), tmp_path / "model.gguf", "mean")
    model = NativeModel(path)
    context = NativeEncoder(model, pooling="mean", n_batch=32, slots=2, n_threads=1)
    batch = Batch(64)
    for tokens, slot in (([5] * 33, 0), ([-1], 0), ([10_000], 0), ([5], 2)):
        batch.clear()
        batch.append(slot, 0, np.array(tokens, np.int32), outputs=1)
        with pytest.raises(ValueError, match=r"n_batch|vocabulary|context"):
            context.encode(batch, 1)
    context.close()
    model.close()


def test_prompts_and_plain_vectors_by_option(tmp_path: Path) -> None:
    path = write_bert_gguf(write_encoder(tmp_path, "bert"), tmp_path / "model.gguf", "mean")
    encoder: Any = LlamaCppEncoder(path, n_threads=1, prompts={"query": "ask: "}, normalize=False)
    (prompted,) = encoder.submit([EmbeddingRequest(("a",), prompt_name="query")]).result(WAIT)
    (plain,) = encoder.submit([EmbeddingRequest(("ask: a",))]).result(WAIT)
    encoder.close()
    np.testing.assert_allclose(prompted.vectors, plain.vectors, atol=1e-5)
    assert abs(np.linalg.norm(plain.vectors) - 1) > 0.1


def test_what_llama_cpp_does_not_give_is_refused(tmp_path: Path) -> None:
    path = write_bert_gguf(write_encoder(tmp_path, "bert"), tmp_path / "model.gguf", "mean")
    encoder: Any = LlamaCppEncoder(path, n_threads=1)
    for options in ({"kinds": ("tokens",)}, {"late_chunking": True}):
        (error,) = encoder.submit([EmbeddingRequest(("a", "b"), **options)]).result(WAIT)
        assert isinstance(error, InvalidInputError)
    encoder.close()


def test_files_of_another_task_are_refused(tmp_path: Path) -> None:
    folder = write_reranker(tmp_path, "bert")
    ranks = write_bert_gguf(folder, tmp_path / "rank.gguf", "rank")
    embeds = write_bert_gguf(folder, tmp_path / "mean.gguf", "mean")
    generates = write_gguf(tmp_path / "llama.gguf")
    with pytest.raises(ModelLoadError, match="task is rerank"):
        LlamaCppEncoder(ranks, n_threads=1)
    with pytest.raises(ModelLoadError, match="by mean, cls or lasttoken"):
        LlamaCppEncoder(embeds, n_threads=1, pooling="median")
    for path in (embeds, generates):
        with pytest.raises(ModelLoadError, match="no rank head"):
            LlamaCppReranker(path, n_threads=1)
    with pytest.raises(ModelLoadError, match="does not generate"):
        LlamaCppReranker(embeds, n_threads=1, style="yes_no")
    with pytest.raises(ModelLoadError, match="does not generate"):
        LlamaCppGenerator(embeds, lambda _: None, n_threads=1)
    with pytest.raises(ModelLoadError, match="not one token"):
        LlamaCppReranker(generates, n_threads=1, style="yes_no", yes_token="absolutely")


# --- rerankers ------------------------------------------------------------------------------

QUERY = "which river is famous?"


def _logits(reranker: Any, query: str, documents: list[str]) -> Any:
    """Of one request for all and of one for each document: [2, documents]."""
    requests = [RerankRequest(query, tuple(documents))]
    requests += [RerankRequest(query, (document,)) for document in documents]
    together, *alone = reranker.submit(requests).result(WAIT)
    return np.array([together.logits, [result.logits[0] for result in alone]])


def test_a_rank_head_scores_like_torch(tmp_path: Path) -> None:
    """Documents get type 0 in llama.cpp: here the model has but one type."""
    folder = write_reranker(tmp_path, "bert", type_vocab_size=1)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    names = ["input_ids", "attention_mask"]
    write_json(folder / "tokenizer_config.json", settings | {"model_input_names": names})
    torch: Any = TorchReranker(folder, n_threads=1, dtype="float32")
    llama: Any = LlamaCppReranker(
        write_bert_gguf(folder, tmp_path / "model.gguf", "rank"), n_threads=1
    )
    expected = _logits(torch, QUERY, PLAIN_TEXTS)
    logits = _logits(llama, QUERY, PLAIN_TEXTS)
    assert llama.max_tokens == torch.max_tokens == 320
    torch.close()
    llama.close()
    np.testing.assert_allclose(logits, expected, atol=LOGITS)
    assert np.ptp(expected) > 1


def test_one_label_of_several_is_its_share_of_the_softmax(tmp_path: Path) -> None:
    folder = write_reranker(tmp_path, "bert", labels=3, type_vocab_size=1)
    path = write_bert_gguf(folder, tmp_path / "model.gguf", "rank", labels=("no", "so-so", "yes"))
    with pytest.raises(ModelLoadError, match="several labels"):
        LlamaCppReranker(path, n_threads=1)
    with pytest.raises(ModelLoadError, match="no such label; it has no, so-so, yes"):
        LlamaCppReranker(path, n_threads=1, label="maybe")
    shares = []
    for label in ("no", "SO-SO", 2):
        reranker: Any = LlamaCppReranker(path, n_threads=1, label=label)
        (result,) = reranker.submit([RerankRequest(QUERY, ("a b", "c"))]).result(WAIT)
        reranker.close()
        shares.append(result.scores)
    np.testing.assert_allclose(np.sum(shares, axis=0), 1, atol=1e-3)


def test_a_language_model_answers_like_torch(tmp_path: Path) -> None:
    folder = write_judge(tmp_path)
    torch: Any = TorchJudge(folder, n_threads=1, dtype="float32")
    llama: Any = LlamaCppReranker(
        write_qwen3_gguf(folder, tmp_path / "model.gguf"), n_threads=1, style="yes_no"
    )
    documents = [text for text in TEXTS if len(text) < 300]
    expected = _logits(torch, QUERY, documents)
    logits = _logits(llama, QUERY, documents)
    torch.close()
    llama.close()
    np.testing.assert_allclose(logits, expected, atol=LOGITS)
    assert np.ptp(expected) > 1


def test_a_head_of_yes_and_no_answers_like_the_language_model(tmp_path: Path) -> None:
    """As llama.cpp's own conversion of Qwen3-Reranker: two rows of the vocabulary, softmaxed."""
    folder = write_judge(tmp_path)
    ids = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    path = write_qwen3_gguf(
        folder,
        tmp_path / "model.gguf",
        "rank",
        template=QWEN3_TEMPLATE.replace("{instruction}", QWEN3_INSTRUCTION),
        answers={"yes": ids["yes"], "no": ids["no"]},
    )
    torch: Any = TorchJudge(folder, n_threads=1, dtype="float32")
    llama: Any = LlamaCppReranker(path, n_threads=1)
    documents = [text for text in TEXTS if len(text) < 300]
    expected = _logits(torch, QUERY, documents)
    logits = _logits(llama, QUERY, documents)
    torch.close()
    llama.close()
    np.testing.assert_allclose(logits, expected, atol=LOGITS)


def test_the_files_own_template_is_used(tmp_path: Path) -> None:
    """The head of a template that comes with the file, and the text around query and document."""
    folder = write_judge(tmp_path)
    template = "<|im_start|>q {query} d {document}<|im_end|>"
    path = write_qwen3_gguf(folder, tmp_path / "model.gguf", template=template)
    reranker: Any = LlamaCppReranker(path, n_threads=1, style="yes_no")
    (result,) = reranker.submit([RerankRequest("one", ("two",))]).result(WAIT)
    torch: Any = TorchJudge(folder, n_threads=1, dtype="float32", template=template)
    (expected,) = torch.submit([RerankRequest("one", ("two",))]).result(WAIT)
    reranker.close()
    torch.close()
    assert result.usage == expected.usage
    np.testing.assert_allclose(result.logits, expected.logits, atol=LOGITS)


# --- the tokenizer --------------------------------------------------------------------------


def test_tokens_texts_and_pairs(tmp_path: Path) -> None:
    path = write_bert_gguf(write_encoder(tmp_path, "bert"), tmp_path / "model.gguf", "mean")
    model = NativeModel(path)
    tokenizer = GgufTokenizer(model)
    (ab, cde) = tokenizer.contents(["ab", "cde [SEP]"])
    assert tokenizer.single(ab).ids == [2, *ab, 3]
    assert tokenizer.single(ab, specials=False).ids == ab
    assert tokenizer.pair(ab, cde).ids == [2, *ab, 3, *cde, 3]
    assert (tokenizer.specials(pair=False), tokenizer.specials(pair=True)) == (2, 3)
    assert 3 not in cde, "the text of a control token is text"
    assert [token.special for token in tokenizer.tokens("ab")] == [True, False, False, True]
    assert tokenizer.text(ab).strip() == "ab"
    assert tokenizer.text([2], skip_specials=False) == "[CLS]"
    with pytest.raises(InvalidInputError):
        tokenizer.text([10_000])
    model.close()


@pytest.mark.parametrize(
    ("size", "overlap", "expected"),
    [(4, 0, [[0, 1, 2, 3], [4, 5, 6]]), (4, 2, [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6]])],
)
def test_windows_overlap(size: int, overlap: int, expected: Any, tmp_path: Path) -> None:
    path = write_bert_gguf(write_encoder(tmp_path, "bert"), tmp_path / "model.gguf", "mean")
    model = NativeModel(path)
    tokenizer = GgufTokenizer(model)
    assert tokenizer.windows(list(range(7)), size, overlap) == expected
    content = list(range(7))
    tokenizer.cut(content, 3, "left")
    assert content == [4, 5, 6]
    model.close()


# --- real weights ---------------------------------------------------------------------------


@pytest.mark.weights
def test_minilm_gives_the_vectors_of_torch(
    starter_weights: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = starter_weights("all-minilm-l6-v2")
    torch: Any = TorchEncoder(folder, n_threads=1, dtype="float32")
    llama: Any = LlamaCppEncoder(
        write_bert_gguf(folder, tmp_path / "model.gguf", "mean", half=True),
        n_threads=1,
        max_tokens=256,
    )
    assert llama.info.dtype == "F16"
    expected, vectors = _both(torch, llama, TEXTS)
    assert float((expected.vectors * vectors.vectors).sum(1).min()) > COSINE
