"""The ONNX bi-encoder: what it computes against plain formulas and plain ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from transformers import AutoTokenizer

from models.encoders.onnx_cross_encoder import OnnxReranker
from models.encoders.onnx_encoder import OnnxEncoder
from models.encoders.pooling import pool
from models.encoders.row_pooling import POOLINGS, pooled_row
from models.encoders.tokenization import TokenSequence
from models.errors import ModelLoadError
from models.types.texts import EmbeddingRequest
from tests.contract.test_encoder_fidelity import TEXTS
from tests.tiny_models import tokenizer, write_json
from tests.tiny_onnx import token_table, write_onnx_encoder, write_onnx_reranker

WAIT = 60.0


def _vectors(encoder: Any, *texts: str, **options: Any) -> Any:
    (result,) = encoder.submit([EmbeddingRequest(texts, truncate=True, **options)]).result(WAIT)
    return result.vectors


def _opened(path: Path, **options: Any) -> Any:
    return OnnxEncoder(path, n_threads=1, **options)


def _expected(texts: list[str], pooling: str) -> Any:
    """What the tiny graph and the pooling should give for each text by itself."""
    plain = tokenizer(typed=True, limit=256)
    rows = []
    for text in texts:
        ids = plain(text, truncation=True)["input_ids"]
        states = token_table()[ids] + token_table()[ids].mean(axis=0)
        rows.append(pool(torch.from_numpy(states), [len(ids)], (pooling,))[0].numpy())
    return np.stack(rows)


@pytest.mark.parametrize("pooling", sorted(POOLINGS))
def test_hidden_states_are_pooled_as_in_torch(pooling: str, tmp_path: Path) -> None:
    encoder = _opened(write_onnx_encoder(tmp_path), pooling=pooling)
    vectors = _vectors(encoder, *TEXTS)
    alone = np.concatenate([_vectors(encoder, text) for text in TEXTS])
    encoder.close()
    np.testing.assert_allclose(vectors, _expected(TEXTS, pooling), atol=1e-4)
    np.testing.assert_allclose(alone, vectors, atol=1e-4)


def test_several_modes_and_spans_make_one_row() -> None:
    states = np.arange(12, dtype=np.float32).reshape(4, 3)
    both = pooled_row(states, TokenSequence((1, 2, 3)), ("cls", "max"))
    assert both.tolist() == [0, 1, 2, 6, 7, 8]  # the fourth token is padding
    spans = pooled_row(states, TokenSequence((1, 2, 3), spans=((0, 1), (1, 3))), ("mean",))
    assert spans.tolist() == [[0, 1, 2], [4.5, 5.5, 6.5]]


def test_a_graph_that_pools_is_taken_at_its_word(tmp_path: Path) -> None:
    encoder = _opened(write_onnx_encoder(tmp_path, pooled=True), pooling="cls")
    vectors = _vectors(encoder, *TEXTS)
    encoder.close()
    np.testing.assert_allclose(vectors, _expected(TEXTS, "mean") / 2, atol=1e-4)


def test_the_recipe_of_the_folder_is_followed(tmp_path: Path) -> None:
    folder = write_onnx_encoder(tmp_path, file="onnx/model.onnx")
    kinds = ("Transformer", "Pooling", "Normalize")
    paths = ("", "1_Pooling", "2_Normalize")
    write_json(
        folder / "modules.json",
        [
            {"type": f"sentence_transformers.models.{kind}", "path": path}
            for kind, path in zip(kinds, paths, strict=True)
        ],
    )
    write_json(folder / "1_Pooling" / "config.json", {"pooling_mode": "cls"})
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 9, "do_lower_case": False})
    write_json(folder / "config_sentence_transformers.json", {"prompts": {"query": "ask: "}})
    encoder = _opened(folder)
    vectors = _vectors(encoder, "paris", prompt_name="query")
    info = encoder.info
    encoder.close()
    expected = _expected(["ask: paris"[:9]], "cls")
    assert (info.pooling, info.max_tokens, info.prompts) == ("cls", 9, ("query",))
    assert np.linalg.norm(vectors) == pytest.approx(1)
    # Seven tokens of the text stay; the mean in every state is theirs and that of [CLS], [SEP].
    plain = tokenizer(typed=True, limit=9)("ask: paris", truncation=True)["input_ids"]
    states = token_table()[plain] + token_table()[plain].mean(axis=0)
    np.testing.assert_allclose(vectors[0], states[0] / np.linalg.norm(states[0]), atol=1e-5)
    assert expected.shape == vectors.shape


def test_positions_bound_the_length(tmp_path: Path) -> None:
    folder = write_onnx_encoder(tmp_path)
    roberta = {"model_type": "roberta", "max_position_embeddings": 130, "pad_token_id": 1}
    write_json(folder / "config.json", roberta)
    encoder = _opened(folder)
    assert encoder.max_tokens == 128
    encoder.close()
    shorter = _opened(folder, max_tokens=16)
    assert shorter.max_tokens == 16
    shorter.close()


def test_positions_bound_the_length_of_pairs(tmp_path: Path) -> None:
    folder = write_onnx_reranker(tmp_path)
    write_json(folder / "config.json", {"model_type": "bert", "max_position_embeddings": 130})
    model = OnnxReranker(folder, n_threads=1)
    model.close()
    assert model.max_tokens == 130


def test_dynamically_quantised_models_see_one_text_at_a_time(tmp_path: Path) -> None:
    """The graph itself gives a text another vector in a batch, or this would prove nothing."""
    encoder = _opened(write_onnx_encoder(tmp_path, dynamic=True))
    together = _vectors(encoder, *TEXTS)
    alone = np.concatenate([_vectors(encoder, text) for text in TEXTS])
    encoder.close()
    assert encoder.info.dtype == "int8"
    assert (together == alone).all()
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    inputs = tokenizer(typed=True, limit=256)(
        TEXTS, padding=True, truncation=True, return_tensors="np"
    )
    (states,) = session.run(None, {name: ids.astype(np.int64) for name, ids in inputs.items()})
    mask = inputs["attention_mask"][..., None]
    batched = (states * mask).sum(1) / mask.sum(1)
    assert np.abs(batched - together).max() > 0.01


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"pooling": "median"}, "no such pooling"),
        ({"file": "other.onnx"}, "no other.onnx"),
        ({"file": "../model.onnx"}, "no ../model.onnx"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    tmp_path: Path, options: dict[str, str], reason: str
) -> None:
    folder = write_onnx_encoder(tmp_path / "inner")
    write_onnx_encoder(tmp_path)
    with pytest.raises(ModelLoadError, match=reason):
        _opened(folder, **options)


def test_layers_after_pooling_must_be_in_the_graph(tmp_path: Path) -> None:
    folder = write_onnx_encoder(tmp_path)
    kinds = {"Transformer": "", "Pooling": "1_Pooling", "Dense": "2_Dense"}
    modules = [
        {"type": f"sentence_transformers.models.{kind}", "path": path}
        for kind, path in kinds.items()
    ]
    write_json(folder / "modules.json", modules)
    write_json(folder / "2_Dense" / "config.json", {"in_features": 16, "out_features": 8})
    with pytest.raises(ModelLoadError, match="layers that follow"):
        _opened(folder)


@pytest.mark.weights
def test_bge_int8_is_onnxruntimes_own_unbatched(starter_weights: Callable[[str], Path]) -> None:
    folder = starter_weights("bge-small-en-v1.5-int8")
    plain = AutoTokenizer.from_pretrained(folder)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(folder / "model.onnx", options)
    expected = []
    for text in TEXTS:
        inputs = plain(text, truncation=True, max_length=512, return_tensors="np")
        feeds = {name: ids.astype(np.int64) for name, ids in inputs.items()}
        first = session.run(None, feeds)[0][0, 0]
        expected.append(first / np.linalg.norm(first))
    encoder = OnnxEncoder(folder, n_threads=2, pooling="cls", normalize=True)
    vectors = _vectors(encoder, *TEXTS)
    encoder.close()
    assert float((vectors * np.stack(expected)).sum(1).min()) > 0.99999


@pytest.mark.weights
def test_bge_knows_what_belongs_together(starter_weights: Callable[[str], Path]) -> None:
    folder = starter_weights("bge-small-en-v1.5-int8")
    encoder = OnnxEncoder(folder, n_threads=1, pooling="cls", normalize=True)
    cat, feline, tax = _vectors(
        encoder, "A cat sits on the mat.", "A feline rests on a rug.", "Taxes rise in spring."
    )
    encoder.close()
    assert cat @ feline > 0.75
    assert cat @ tax < 0.6
