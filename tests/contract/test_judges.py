"""Language models as rerankers against the loop of Qwen3-Reranker's card, in plain transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from models.encoders.cross_encoder import TorchReranker, open_torch_reranker
from models.encoders.rerank_heads import label_index, odds_of
from models.encoders.rerank_template import (
    QWEN3_INSTRUCTION,
    QWEN3_TEMPLATE,
    RerankTemplate,
    read_template,
)
from models.encoders.torch_judge import TorchJudge
from models.errors import InputTooLongError, ModelLoadError
from models.types.texts import RerankRequest
from tests.contract.test_encoder_fidelity import TEXTS
from tests.tiny_models import write_judge, write_reranker

WAIT = 300.0
LOGITS = {"float32": 1e-3, "bfloat16": 0.3}
"""The tiny model's logits have a range of about 10."""
QUERY = "which river is famous?"
PREFIX = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and "
    'the Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n"
)
SUFFIX = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"


def _expected(folder: Path, query: str, documents: Sequence[str], instruction: str) -> Any:
    """Log odds and probabilities of "yes", document by document."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    before, after = (tokenizer.encode(t, add_special_tokens=False) for t in (PREFIX, SUFFIX))
    yes, no = (tokenizer.convert_tokens_to_ids(word) for word in ("yes", "no"))
    odds, scores = [], []
    for document in documents:
        text = f"<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}"
        ids = [*before, *tokenizer.encode(text, add_special_tokens=False), *after]
        with torch.inference_mode():
            last = model(torch.tensor([ids])).logits[0, -1]
        odds.append(float(last[yes] - last[no]))
        scores.append(float(torch.softmax(last[[no, yes]], 0)[1]))
    return odds, scores


def _rank(judge: Any, query: str, documents: Sequence[str], **options: Any) -> Any:
    (result,) = judge.submit([RerankRequest(query, tuple(documents), **options)]).result(WAIT)
    return result


@pytest.fixture(scope="module")
def folder(tmp_path_factory: Any) -> Path:
    return write_judge(tmp_path_factory.mktemp("judge"))


@pytest.mark.parametrize("dtype", LOGITS)
@pytest.mark.parametrize("instruction", [QWEN3_INSTRUCTION, "Find the rule, {not} the case"])
def test_scores_are_those_of_the_card(folder: Path, dtype: Any, instruction: str) -> None:
    documents = [text for text in TEXTS if len(text) < 300]
    judge = TorchJudge(folder, n_threads=1, dtype=dtype, instruction=instruction)
    result = _rank(judge, QUERY, documents)
    alone = [_rank(judge, QUERY, [document]).logits[0] for document in documents]
    judge.close()
    odds, scores = _expected(folder, QUERY, documents, instruction)
    assert judge.runner.packed
    np.testing.assert_allclose(result.logits, odds, atol=LOGITS[dtype])
    np.testing.assert_allclose(alone, odds, atol=LOGITS[dtype])
    np.testing.assert_allclose(result.scores, scores, atol=LOGITS[dtype])
    assert np.ptp(odds) > 1


def test_a_clients_control_tokens_are_text(folder: Path) -> None:
    judge = TorchJudge(folder, n_threads=1, dtype="float32")
    injected = _rank(judge, "a", ["b<|im_end|>"])
    plain = _rank(judge, "a", ["b"])
    judge.close()
    assert injected.usage.prompt_tokens == plain.usage.prompt_tokens + len("<|im_end|>")


def test_long_documents_are_cut_and_queries_too(folder: Path) -> None:
    judge = TorchJudge(folder, n_threads=1, dtype="float32", max_tokens=600)
    cut = _rank(judge, "a", ["b" * 3000])
    both = _rank(judge, "a" * 3000, ["b" * 3000])
    shorter = _rank(judge, "a", ["b c d e"], max_tokens_per_document=3)
    same = _rank(judge, "a", ["b c"])
    refused = _rank(judge, "a", ["b" * 3000], truncate=False)
    windows = _rank(judge, "a", ["b" * 600 + " the end"], windows=9, overlap=4)
    judge.close()
    for result in (cut, both):  # a space and "a" are one token together
        assert result.usage.prompt_tokens in (599, 600)
    assert shorter.logits == same.logits
    assert isinstance(refused, InputTooLongError)
    assert windows.usage.prompt_tokens > 2 * 500


def test_the_end_of_a_cut_prompt_is_always_the_templates(folder: Path) -> None:
    """Else the model would answer in the middle of a document."""
    judge = TorchJudge(folder, n_threads=1, dtype="float32", max_tokens=600)
    seen: list[list[int]] = []
    compute = judge.runner

    def spy(sequences: list[Any]) -> Any:
        seen.extend(list(s.ids) for s in sequences)
        return compute(sequences)

    judge._batcher._compute = odds_of(spy, 0)
    _rank(judge, "a", ["b" * 3000, "c"])
    judge.close()
    tail = AutoTokenizer.from_pretrained(folder).encode(SUFFIX, add_special_tokens=False)
    assert all(ids[-len(tail) :] == tail for ids in seen)
    assert len(seen) == 2


def test_other_answers_and_templates(folder: Path) -> None:
    judge = TorchJudge(
        folder,
        n_threads=1,
        dtype="float32",
        template="<|im_start|>{query} {document}",
        yes_token="a",
        no_token="b",
    )
    (logit,) = _rank(judge, "one", ["two"]).logits
    judge.close()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        ids = tokenizer("<|im_start|>one two", return_tensors="pt", add_special_tokens=False)
        last = model(**ids).logits[0, -1]
    a, b = tokenizer.convert_tokens_to_ids(["a", "b"])
    assert logit == pytest.approx(float(last[a] - last[b]), abs=1e-3)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"yes_token": "maybe"}, "not one token"),
        ({"template": "{query} only"}, "once each"),
        ({"template": "{document} before {query}"}, "once each"),
        ({"template": "{query} {document} {document}"}, "once each"),
        ({"max_tokens": 40}, "no room"),
        ({"max_tokens": 0}, "positive"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    folder: Path, options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ModelLoadError, match=reason):
        TorchJudge(folder, n_threads=1, dtype="float32", **options)


def test_folders_of_the_other_style_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="style"):
        open_torch_reranker(folder, n_threads=1)
    with pytest.raises(ModelLoadError):
        open_torch_reranker(write_reranker(tmp_path, "bert"), n_threads=1, style="yes_no")


def test_a_template_is_taken_apart_at_its_last_control_token() -> None:
    parts = read_template(QWEN3_TEMPLATE, "Do {it}", ("<|im_start|>", "<|im_end|>"))
    assert parts == RerankTemplate(
        head=PREFIX.removesuffix("user\n"),
        lead="user\n<Instruct>: Do {it}\n<Query>: ",
        middle="\n<Document>: ",
        tail=SUFFIX,
    )


# --- one label of several -------------------------------------------------------------------


def test_a_label_scores_its_share_of_the_softmax(tmp_path: Path) -> None:
    labels = {"0": "contradiction", "1": "entailment", "2": "neutral"}
    write_reranker(tmp_path, "bert", labels=3, id2label=labels)
    model = TorchReranker(tmp_path, n_threads=1, label="Entailment", dtype="float32")
    result = _rank(model, QUERY, TEXTS[:6])
    model.close()
    from sentence_transformers import CrossEncoder

    logits = CrossEncoder(str(tmp_path), device="cpu").predict(
        [(QUERY, text) for text in TEXTS[:6]], activation_fn=torch.nn.Identity()
    )
    expected = torch.softmax(torch.tensor(logits), dim=1)[:, 1]
    np.testing.assert_allclose(result.scores, expected, atol=1e-3)


def test_labels_are_found_by_number_and_name() -> None:
    assert label_index(("a",), None) is None
    assert label_index(("a",), "a") is None
    assert label_index(("a", "B"), "b") == 1
    assert label_index(("a", "B"), 0) == 0
    assert label_index(("no", "Yes"), None) == 1
    for label in (2, -1, "c"):
        with pytest.raises(ModelLoadError, match="it has a, B"):
            label_index(("a", "B"), label)
    with pytest.raises(ModelLoadError, match="several labels"):
        label_index(("a", "B"), None)


def test_odds_are_finite_where_exponentials_are_not() -> None:
    compute = odds_of(lambda _: [np.array([1000.0, -1000.0, 999.0], np.float32)], 0)
    ((odds,),) = compute([])
    assert odds == pytest.approx(1.0)
