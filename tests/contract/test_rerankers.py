"""What every cross-encoder does: the weightless twin, tiny random models, the real ms-marco."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.encoders.cross_encoder import TorchReranker
from models.encoders.onnx_cross_encoder import OnnxReranker
from models.errors import (
    EngineDeadError,
    InputTooLongError,
    InvalidInputError,
    ModelError,
    ModelLoadError,
    OverloadedError,
)
from models.llama_cpp.reranker import LlamaCppReranker
from models.model_folder import ModelFolder
from models.toy.encoder import ToyReranker
from models.types.texts import RerankRequest, RerankResult
from tests.gguf_encoders import write_bert_gguf
from tests.jobs import cancelled
from tests.tiny_models import CONFIGS, UNPACKABLE, write_json, write_reranker
from tests.tiny_onnx import write_onnx_reranker

WAIT = 60.0
QUERY = "what is the capital of france?"
DOCUMENTS = (
    "paris is the capital of france",
    "a",
    "",
    "berlin has a population of many people. " * 3,
    " \t",
    "the metropolitan museum of art",
)
TOLERANCE = {"bert-bfloat16": 0.15, "llama_cpp": 0.05}
"""Logits of one pair alone and in company; tiny models have logits between about -20 and 20.

llama.cpp adds attention up in 16 bits, in blocks that depend on the batch.
"""

RerankerMaker = Callable[[Path], Any]
TINY: dict[str, RerankerMaker] = {
    "toy": lambda _: ToyReranker(max_tokens=256),
    "onnx": lambda path: OnnxReranker(write_onnx_reranker(path), n_threads=1),
    "onnx-dynamic": lambda path: OnnxReranker(write_onnx_reranker(path, dynamic=True), n_threads=2),
    "llama_cpp": lambda path: LlamaCppReranker(
        write_bert_gguf(write_reranker(path, "bert"), path / "model.gguf", "rank"), n_threads=1
    ),
    "bert": lambda path: _tiny(path, "bert"),
    "bert-bfloat16": lambda path: _tiny(path, "bert", dtype="bfloat16"),
    "distilbert": lambda path: _tiny(path, "distilbert"),
    "xlm-roberta": lambda path: _tiny(path, "xlm-roberta"),
    "mpnet": lambda path: _tiny(path, "mpnet"),
    "modernbert": lambda path: _tiny(path, "modernbert", classifier_pooling="mean"),
    "qwen3": lambda path: _tiny(path, "qwen3"),
    "two-labels": lambda path: TorchReranker(
        write_reranker(path, "bert", labels=2), n_threads=1, label=1, dtype="float32"
    ),
}


def _tiny(path: Path, family: str, dtype: Any = "float32", **options: Any) -> TorchReranker:
    return TorchReranker(write_reranker(path, family, **options), n_threads=1, dtype=dtype)


@pytest.fixture(scope="module", params=[*TINY, pytest.param("ms-marco", marks=pytest.mark.weights)])
def named(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[tuple[str, Any]]:
    if request.param == "ms-marco":
        folder = request.getfixturevalue("starter_weights")("ms-marco-minilm-l-12-v2")
        engine = OnnxReranker(folder, n_threads=1)
    else:
        engine = TINY[request.param](tmp_path_factory.mktemp(request.param))
    yield request.param, engine
    engine.close()


@pytest.fixture
def reranker(named: tuple[str, Any]) -> Any:
    return named[1]


@pytest.fixture
def tolerance(named: tuple[str, Any]) -> float:
    return TOLERANCE.get(named[0], 1e-3)


def _rank(reranker: Any, *documents: str, query: str = QUERY, **options: Any) -> Any:
    request = RerankRequest(query, documents, **options)
    (result,) = reranker.submit([request]).result(WAIT)
    assert isinstance(result, RerankResult | ModelError)
    return result


def _logits(reranker: Any, *documents: str, **options: Any) -> Any:
    result = _rank(reranker, *documents, **options)
    assert isinstance(result, RerankResult), result
    return np.array(result.logits)


def test_one_score_per_document_by_the_models_activation(reranker: Any) -> None:
    result = _rank(reranker, *DOCUMENTS)
    assert len(result.scores) == len(result.logits) == len(DOCUMENTS)
    assert all(map(math.isfinite, result.logits))
    expected = [1 / (1 + math.exp(-logit)) for logit in result.logits]
    np.testing.assert_allclose(result.scores, expected, rtol=1e-6)


def test_documents_differ(reranker: Any) -> None:
    assert np.ptp(_logits(reranker, *DOCUMENTS)) > 0.05


def test_the_query_matters(reranker: Any) -> None:
    one = _logits(reranker, *DOCUMENTS)
    other = _logits(reranker, *DOCUMENTS, query="x y z")
    assert np.abs(one - other).max() > 0.01


def test_the_order_of_documents_is_kept(reranker: Any, tolerance: float) -> None:
    forwards = _logits(reranker, *DOCUMENTS)
    backwards = _logits(reranker, *DOCUMENTS[::-1])
    np.testing.assert_allclose(forwards, backwards[::-1], atol=tolerance)


def test_a_document_scores_the_same_alone_and_in_company(reranker: Any, tolerance: float) -> None:
    together = _logits(reranker, *DOCUMENTS)
    alone = np.concatenate([_logits(reranker, document) for document in DOCUMENTS])
    np.testing.assert_allclose(together, alone, atol=tolerance)


def test_equal_documents_score_equally(reranker: Any) -> None:
    logits = _logits(reranker, "same", *DOCUMENTS, "same", *DOCUMENTS, "same")
    np.testing.assert_allclose(logits[[0, 7]], logits[14], atol=1e-5)


def test_requests_of_one_submission_keep_apart(reranker: Any, tolerance: float) -> None:
    queries = (QUERY, "x y z", "a")
    requests = [RerankRequest(query, DOCUMENTS[:3]) for query in queries]
    results = reranker.submit(requests).result(WAIT)
    for query, result in zip(queries, results, strict=True):
        expected = _logits(reranker, *DOCUMENTS[:3], query=query)
        np.testing.assert_allclose(result.logits, expected, atol=tolerance)


def test_no_requests_no_results(reranker: Any) -> None:
    assert reranker.submit([]).result(WAIT) == []


@pytest.mark.parametrize(
    ("query", "documents", "param"),
    [
        ("", ("a",), "query"),
        ("half \ud800 pair", ("a",), "query"),
        ("a", (), "documents"),
        ("a", ("b", "half \ud800 pair"), "documents"),
    ],
)
def test_what_cannot_be_read_is_refused(
    reranker: Any, query: str, documents: tuple[str, ...], param: str
) -> None:
    error = _rank(reranker, *documents, query=query)
    assert isinstance(error, InvalidInputError)
    assert error.param == param


def test_a_blank_query_is_scored(reranker: Any) -> None:
    assert np.isfinite(_logits(reranker, "a", "b", query="  ")).all()


def test_a_bad_request_does_not_spoil_its_neighbours(reranker: Any, tolerance: float) -> None:
    requests = [RerankRequest(query, DOCUMENTS) for query in (QUERY, "", QUERY)]
    one, bad, three = reranker.submit(requests).result(WAIT)
    assert isinstance(bad, InvalidInputError)
    np.testing.assert_allclose(one.logits, _logits(reranker, *DOCUMENTS), atol=tolerance)
    np.testing.assert_allclose(three.logits, one.logits, atol=tolerance)


def test_usage_counts_pairs_and_special_tokens(reranker: Any) -> None:
    assert (
        _rank(reranker, "b", "c", query="a").usage.prompt_tokens == 2 * 5
    )  # [CLS] a [SEP] b [SEP]


def test_long_documents_are_cut_at_the_limit(reranker: Any) -> None:
    result = _rank(reranker, "a " * 3000, "b", query="a")
    assert result.usage.prompt_tokens == reranker.max_tokens + 5


@pytest.mark.parametrize(
    ("query", "document", "param"),
    [("a", "b " * 3000, "documents"), ("a " * 3000, "b", "query")],
)
def test_without_truncation_too_long_is_refused_with_both_numbers(
    reranker: Any, query: str, document: str, param: str
) -> None:
    error = _rank(reranker, document, query=query, truncate=False)
    assert isinstance(error, InputTooLongError)
    assert error.limit == reranker.max_tokens
    assert error.tokens >= 3000
    assert error.param == param


@pytest.mark.parametrize("document", ["b", "b " * 3000])
def test_even_the_longest_query_is_served(reranker: Any, document: str) -> None:
    result = _rank(reranker, document, "c", query="a " * 3000)
    assert result.usage.prompt_tokens == 2 * reranker.max_tokens


def test_documents_can_be_cut_shorter(reranker: Any) -> None:
    result = _rank(reranker, "b c d e", query="a", max_tokens_per_document=2, truncate=False)
    assert result.usage.prompt_tokens == 3 + 1 + 2


@pytest.mark.parametrize("limit", [0, -1])
def test_documents_cannot_be_cut_to_nothing(reranker: Any, limit: int) -> None:
    error = _rank(reranker, "b", max_tokens_per_document=limit)
    assert isinstance(error, InvalidInputError)
    assert error.param == "max_tokens_per_doc"


def test_many_clients_get_their_own_scores(reranker: Any, tolerance: float) -> None:
    expected = _logits(reranker, *DOCUMENTS)
    scored: dict[int, float] = {}

    def client(index: int) -> None:
        (scored[index],) = _logits(reranker, DOCUMENTS[index % len(DOCUMENTS)])

    threads = [threading.Thread(target=client, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert len(scored) == 16
    for index, logit in scored.items():
        assert logit == pytest.approx(expected[index % len(DOCUMENTS)], abs=tolerance)


def test_a_cancelled_job_is_dropped(reranker: Any) -> None:
    job = cancelled(lambda: reranker.submit([RerankRequest(QUERY, ("a b c d e f",) * 500)]))
    with pytest.raises(CancelledError):
        job.result(WAIT)
    assert len(_logits(reranker, "still here")) == 1


@pytest.mark.parametrize("name", ["toy", "bert", "onnx-dynamic", "llama_cpp"])
def test_a_closed_engine_refuses(name: str, tmp_path: Path) -> None:
    reranker = TINY[name](tmp_path)
    reranker.close()
    reranker.close()
    with pytest.raises(EngineDeadError):
        reranker.submit([RerankRequest("a", ("b",))])
    assert not reranker.alive


def test_a_full_queue_refuses_at_once() -> None:
    entered, gate = threading.Event(), threading.Event()

    def hold(_: Any) -> None:
        entered.set()
        gate.wait(WAIT)

    reranker = ToyReranker(max_queued_tokens=100, on_batch=hold)
    first = reranker.submit([RerankRequest("a", ("a",))])
    assert entered.wait(WAIT)
    second = reranker.submit([RerankRequest("b", ("b" * 300,))])
    with pytest.raises(OverloadedError):
        reranker.submit([RerankRequest("c", ("c" * 300,))])
    gate.set()
    assert len(first.result(WAIT)) == len(second.result(WAIT)) == 1
    reranker.close()


def test_which_path_each_family_takes(tmp_path: Path) -> None:
    padded = {*UNPACKABLE, "albert"}  # its pooler is not part of its head
    for family in CONFIGS:
        reranker = _tiny(tmp_path / family, family)
        assert reranker.runner.packed is (family not in padded), family
        reranker.close()


def test_dynamically_quantised_models_score_in_no_company_at_all(tmp_path: Path) -> None:
    """The graph itself scores a document differently in a batch, or this would prove nothing."""
    reranker = OnnxReranker(write_onnx_reranker(tmp_path, dynamic=True), n_threads=1)
    together = _logits(reranker, *DOCUMENTS)
    alone = np.concatenate([_logits(reranker, document) for document in DOCUMENTS])
    reranker.close()
    assert (together == alone).all()
    assert np.abs(together - _in_one_batch(tmp_path)).max() > 0.01


def _in_one_batch(folder: Path) -> Any:
    import onnxruntime
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    pairs = tokenizer([QUERY] * len(DOCUMENTS), list(DOCUMENTS), padding=True, return_tensors="np")
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    return session.run(None, {name: ids.astype(np.int64) for name, ids in pairs.items()})[0][:, 0]


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        ("torch.nn.modules.linear.Identity", lambda logit: logit),
        ("torch.nn.modules.activation.Sigmoid", lambda logit: 1 / (1 + math.exp(-logit))),
    ],
)
@pytest.mark.parametrize(
    ("file", "path"),
    [
        ("config_sentence_transformers.json", ("activation_fn",)),
        ("config.json", ("sentence_transformers", "activation_fn")),
        ("config.json", ("sbert_ce_default_activation_function",)),
    ],
    ids=["newest", "newer", "oldest"],
)
@pytest.mark.parametrize("engine", [TorchReranker, OnnxReranker])
def test_the_activation_is_the_models_own(
    tmp_path: Path,
    engine: Any,
    file: str,
    path: tuple[str, ...],
    activation: str,
    expected: Callable[[float], float],
) -> None:
    torch_like = engine is TorchReranker
    folder = write_reranker(tmp_path, "bert") if torch_like else write_onnx_reranker(tmp_path)
    content = ModelFolder(folder).read_object(file)
    named: Any = activation
    for key in reversed(path):
        named = {key: named}
    write_json(folder / file, content | named)
    reranker = engine(folder, n_threads=1)
    result = _rank(reranker, "a", "b")
    reranker.close()
    np.testing.assert_allclose(result.scores, [expected(logit) for logit in result.logits])


def test_a_torch_folder_that_cannot_be_served_is_refused(tmp_path: Path) -> None:
    two_labels = write_reranker(tmp_path / "labels", "bert", labels=2)
    with pytest.raises(ModelLoadError, match="several labels"):
        TorchReranker(two_labels, n_threads=1)
    odd = write_reranker(tmp_path / "odd", "bert")
    write_json(odd / "config_sentence_transformers.json", {"activation_fn": "torch.nn.Tanhshrink"})
    with pytest.raises(ModelLoadError, match="activation"):
        TorchReranker(odd, n_threads=1)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "no model.onnx"), (b"", "no model.onnx"), (b"not a graph", "cannot be loaded")],
)
def test_an_onnx_folder_that_cannot_be_served_is_refused(
    tmp_path: Path, content: bytes | None, reason: str
) -> None:
    folder = write_onnx_reranker(tmp_path)
    (folder / "model.onnx").unlink()
    if content is not None:
        (folder / "model.onnx").write_bytes(content)
    with pytest.raises(ModelLoadError, match=reason) as raised:
        OnnxReranker(folder, n_threads=1)
    assert str(tmp_path) not in raised.value.message


def test_an_onnx_graph_with_more_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="one label"):
        OnnxReranker(write_onnx_reranker(tmp_path, labels=3), n_threads=1)


def test_a_missing_tokenizer_is_refused(tmp_path: Path) -> None:
    folder = write_onnx_reranker(tmp_path)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelLoadError, match=r"tokenizer\.json"):
        OnnxReranker(folder, n_threads=1)
