"""Vectors and scores against the reference library, sentence-transformers, at every length."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sentence_transformers import (
    CrossEncoder,
    MultiVectorEncoder,
    SentenceTransformer,
    SparseEncoder,
)
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from sentence_transformers.sentence_transformer import modules as st_modules
from sentence_transformers.sparse_encoder.modules import SpladePooling
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from models.encoders.cross_encoder import TorchReranker
from models.encoders.encoder import TorchEncoder
from models.encoders.onnx_cross_encoder import OnnxReranker
from models.errors import InvalidInputError
from models.types.texts import EmbeddingRequest, RerankRequest
from tests.tiny_models import (
    CONFIGS,
    DECODERS,
    EMBEDDERS,
    write_encoder,
    write_json,
    write_masked_lm,
    write_reranker,
)

WAIT = 300.0
COSINE = {"float32": 0.99999, "bfloat16": 0.9998}
WIDE_COSINE = 0.995
"""Of tiny models in bfloat16, whose weights are drawn 15 times as wide as those of trained ones."""
LOGITS = {"float32": 2e-4, "bfloat16": 0.1}
LENGTHS = (1, 2, 3, 5, 8, 13, 13, 21, 40, 79, 150, 251, 254, 255, 300)
WORDS = (
    *("berlin", "paris", "the", "a", "capital", "river", "of", "museum", "energy,", "city", "is"),
    *("water.", "people", "famous", "bank", "money", "population?", "don't", "1984", "light-year"),
)
POOLINGS = ("mean", "cls", "max", "lasttoken", "weightedmean", "mean_sqrt_len_tokens")


def texts_of(lengths: Sequence[int], seed: int = 0) -> list[str]:
    generator = random.Random(seed)
    return [" ".join(generator.choices(WORDS, k=length)) for length in lengths]


TEXTS = [*texts_of(LENGTHS), " ", "?", "BIG Letters", "naïve Ünïcode 漢字 🎉"]


def _alone_and_together(encoder: Any, texts: Sequence[str], **options: Any) -> Any:
    """Both ways, [2, texts, dimensions]; alone means one request after another."""
    (together,) = encoder.submit([EmbeddingRequest(tuple(texts), **options)]).result(WAIT)
    alone = [
        encoder.submit([EmbeddingRequest((text,), **options)]).result(WAIT)[0] for text in texts
    ]
    return np.stack([together.vectors, np.concatenate([result.vectors for result in alone])])


def _worst_cosine(vectors: Any, expected: Any) -> float:
    norms = np.linalg.norm(vectors, axis=-1) * np.linalg.norm(expected, axis=-1)
    return float(((vectors * expected).sum(-1) / norms).min())


def _compare(folder: Path, dtype: Any, **encode: Any) -> float:
    reference = SentenceTransformer(str(folder), device="cpu")
    expected = reference.encode(TEXTS, batch_size=4, **encode)
    encoder = TorchEncoder(folder, n_threads=1, dtype=dtype)
    try:
        assert encoder.max_tokens == reference.max_seq_length
        return _worst_cosine(_alone_and_together(encoder, TEXTS, truncate=True), expected)
    finally:
        encoder.close()


@pytest.mark.parametrize("family", EMBEDDERS)
def test_every_family_gives_the_reference_vectors(family: str, tmp_path: Path) -> None:
    folder = write_encoder(tmp_path, family, "lasttoken" if family in DECODERS else "mean")
    assert _compare(folder, "float32") > COSINE["float32"]
    assert _compare(folder, "bfloat16") > WIDE_COSINE


@pytest.mark.parametrize("pooling", POOLINGS)
def test_every_pooling_gives_the_reference_vectors(pooling: str, tmp_path: Path) -> None:
    assert _compare(write_encoder(tmp_path, "bert", pooling), "float32") > COSINE["float32"]


def test_a_folder_of_plain_transformers_is_mean_pooled(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path, "bert")
    for name in ("modules.json", "sentence_bert_config.json"):
        (folder / name).unlink()
    encoder = TorchEncoder(folder, n_threads=1, dtype="float32")
    reference = SentenceTransformer(str(folder), device="cpu")
    vectors = _alone_and_together(encoder, TEXTS, truncate=True)
    encoder.close()
    np.testing.assert_allclose(vectors[0], reference.encode(TEXTS), atol=1e-4)


def test_dense_layers_and_folders_saved_anew(tmp_path: Path) -> None:
    """What the present version of sentence-transformers writes, with a module after pooling."""
    torch.manual_seed(0)
    reference = SentenceTransformer(str(write_encoder(tmp_path / "old", "bert")), device="cpu")
    dense = st_modules.Dense(32, 16, activation_function=torch.nn.Tanh())
    reference.insert(2, dense)
    reference.save_pretrained(str(tmp_path / "new"))
    assert _compare(tmp_path / "new", "float32") > COSINE["float32"]


def test_residual_dense_and_norm_layers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    reference = SentenceTransformer(str(write_encoder(tmp_path / "old", "bert")), device="cpu")
    reference.insert(2, st_modules.Dense(32, 32, use_residual=True))
    reference.insert(3, st_modules.Dropout(0.5))
    reference.insert(4, st_modules.Dense(32, 16, use_residual=True, bias=False))
    norm = st_modules.LayerNorm(16)
    torch.nn.init.normal_(norm.norm.weight)
    reference.insert(5, norm)
    reference.save_pretrained(str(tmp_path / "new"))
    assert _compare(tmp_path / "new", "float32") > COSINE["float32"]


def test_options_stand_in_for_missing_files(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path, "bert", "cls")
    expected = SentenceTransformer(str(folder), device="cpu").encode(["ask: paris"])
    (folder / "modules.json").unlink()
    encoder = TorchEncoder(
        folder,
        n_threads=1,
        dtype="float32",
        pooling="cls",
        normalize=True,
        prompts={"query": "ask: "},
    )
    vectors = _alone_and_together(encoder, ["paris"], prompt_name="query")
    encoder.close()
    np.testing.assert_allclose(vectors[0], expected, atol=1e-4)


# --- sparse vectors and vectors of tokens ---------------------------------------------------


def _write_splade(path: Path, family: str, **pooling: Any) -> Path:
    folder = write_masked_lm(path / "lm", family)
    model = SparseEncoder(
        modules=[
            st_modules.Transformer(str(folder), transformer_task="fill-mask", max_seq_length=256),
            SpladePooling(**pooling),
        ],
        device="cpu",
    )
    model.save_pretrained(str(path / "splade"))
    return path / "splade"


def _sparse(encoder: Any, texts: Sequence[str]) -> Any:
    """All texts together and one by one: [2, texts, vocabulary]."""
    options: dict[str, Any] = {"truncate": True, "kinds": ("sparse",)}
    requests = [EmbeddingRequest(tuple(texts), **options)]
    requests += [EmbeddingRequest((text,), **options) for text in texts]
    together, *alone = encoder.submit(requests).result(WAIT)
    dense = np.zeros((2, len(texts), encoder.dimensions), np.float32)
    for place, text in enumerate(texts):
        assert text is not None
        for row, vector in enumerate((together.sparse[place], alone[place].sparse[0])):
            assert (vector.values > 0).all()
            dense[row, place, vector.indices] = vector.values
    return dense


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta", "modernbert", "mpnet"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_splade_gives_the_reference_weights(family: str, dtype: Any, tmp_path: Path) -> None:
    folder = _write_splade(tmp_path, family)
    expected = SparseEncoder(str(folder), device="cpu").encode(TEXTS).to_dense().numpy()
    encoder = TorchEncoder(folder, n_threads=1, dtype=dtype)
    weights = _sparse(encoder, TEXTS)
    encoder.close()
    assert encoder.runner.packed is (family != "mpnet")
    assert encoder.info.kinds == ("sparse",)
    assert expected.max() > 1
    tolerance = {"float32": 1e-3, "bfloat16": 0.1}[dtype]
    np.testing.assert_allclose(weights, np.stack([expected] * 2), atol=tolerance)


@pytest.mark.parametrize(
    "options", [{"pooling_strategy": "sum"}, {"activation_function": "log1p_relu"}]
)
def test_other_ways_of_splade(options: dict[str, str], tmp_path: Path) -> None:
    folder = _write_splade(tmp_path, "bert", **options)
    expected = SparseEncoder(str(folder), device="cpu").encode(TEXTS).to_dense().numpy()
    encoder = TorchEncoder(folder, n_threads=1, dtype="float32")
    weights = _sparse(encoder, TEXTS)
    encoder.close()
    np.testing.assert_allclose(weights[0], expected, rtol=1e-3, atol=1e-3)


def test_a_plain_language_model_is_splade_by_option(tmp_path: Path) -> None:
    folder = write_masked_lm(tmp_path, "bert")
    plain = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForMaskedLM.from_pretrained(folder).eval()
    with torch.inference_mode():
        logits = model(**plain("paris", return_tensors="pt")).logits[0]
    expected = torch.log1p(torch.relu(logits)).max(dim=0).values
    encoder = TorchEncoder(folder, n_threads=1, dtype="float32", pooling="splade")
    weights = _sparse(encoder, ["paris"])
    encoder.close()
    np.testing.assert_allclose(weights[0, 0], expected, atol=1e-4)


def _token_vectors(encoder: Any, texts: Sequence[str]) -> list[list[Any]]:
    options: dict[str, Any] = {"truncate": True, "kinds": ("tokens",)}
    requests = [EmbeddingRequest(tuple(texts), **options)]
    requests += [EmbeddingRequest((text,), **options) for text in texts]
    together, *alone = encoder.submit(requests).result(WAIT)
    return [list(together.token_vectors), [result.token_vectors[0] for result in alone]]


def test_vectors_of_tokens_are_the_reference_hidden_states(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path, "bert")
    reference = SentenceTransformer(str(folder), device="cpu")
    expected = reference.encode(TEXTS, output_value="token_embeddings")
    encoder = TorchEncoder(folder, n_threads=1, dtype="float32")
    for vectors in _token_vectors(encoder, TEXTS):
        for own, theirs in zip(vectors, expected, strict=True):
            np.testing.assert_allclose(own, theirs, atol=1e-3)
    encoder.close()


def test_colbert_projects_and_normalises_every_token(tmp_path: Path) -> None:
    """As its authors save it: the projection lies among the weights of the transformer."""
    folder = write_encoder(tmp_path, "bert")
    (folder / "modules.json").unlink()
    projection = torch.randn(8, 32, generator=torch.Generator().manual_seed(0))
    model = AutoModel.from_pretrained(folder).eval()
    tensors = {f"bert.{name}": tensor for name, tensor in model.state_dict().items()}
    tensors["linear.weight"] = projection
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", config | {"architectures": ["HF_ColBERT"]})
    encoder = TorchEncoder(folder, n_threads=1, dtype="float32")
    plain = AutoTokenizer.from_pretrained(folder)
    for vectors in _token_vectors(encoder, TEXTS):
        for own, text in zip(vectors, TEXTS, strict=True):
            inputs = plain(text, return_tensors="pt", truncation=True, max_length=256)
            with torch.inference_mode():
                states = model(**inputs).last_hidden_state[0] @ projection.T
            expected = torch.nn.functional.normalize(states, dim=-1)
            np.testing.assert_allclose(own, expected, atol=1e-3)
    assert (encoder.info.kinds, encoder.dimensions) == (("tokens",), 8)
    (refused,) = encoder.submit([EmbeddingRequest(("a",))]).result(WAIT)
    encoder.close()
    assert isinstance(refused, InvalidInputError)


def test_multi_vector_encoders_of_the_reference_library(tmp_path: Path) -> None:
    torch.manual_seed(0)
    folder = write_encoder(tmp_path / "old", "bert")
    (folder / "modules.json").unlink()
    dense = st_modules.Dense(
        32, 8, bias=False, activation_function=None, module_input_name="token_embeddings"
    )
    reference = MultiVectorEncoder(
        modules=[
            st_modules.Transformer(str(folder), max_seq_length=256),
            dense,
            MultiVectorMask(),
            st_modules.Normalize(module_input_name="token_embeddings"),
        ],
        device="cpu",
    )
    reference.save_pretrained(str(tmp_path / "new"))
    expected = reference.encode_document(TEXTS)
    encoder = TorchEncoder(tmp_path / "new", n_threads=1, dtype="float32")
    for vectors in _token_vectors(encoder, TEXTS):
        for own, theirs in zip(vectors, expected, strict=True):
            np.testing.assert_allclose(own, np.asarray(theirs), atol=1e-3)
    encoder.close()


def test_lower_casing_of_the_model_is_applied(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path, "bert")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    write_json(folder / "tokenizer.json", tokenizer | {"normalizer": None})
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 9, "do_lower_case": True})
    assert _compare(folder, "float32") > COSINE["float32"]


def test_prompts_are_put_before_texts(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path, "bert")
    prompts = {"query": "search: ", "passage": "text: "}
    settings = {"prompts": prompts, "default_prompt_name": "passage"}
    write_json(folder / "config_sentence_transformers.json", settings)
    reference = SentenceTransformer(str(folder), device="cpu")
    encoder = TorchEncoder(folder, n_threads=1, dtype="float32")
    by_default = _alone_and_together(encoder, TEXTS[:4])
    as_query = _alone_and_together(encoder, TEXTS[:4], prompt_name="query")
    encoder.close()
    assert _worst_cosine(by_default, reference.encode(TEXTS[:4])) > COSINE["float32"]
    expected = reference.encode(TEXTS[:4], prompt_name="query")
    assert _worst_cosine(as_query, expected) > COSINE["float32"]
    assert _worst_cosine(by_default, expected) < 0.999


def test_the_tokenizers_own_side_is_cut(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path, "bert")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    write_json(folder / "tokenizer_config.json", settings | {"truncation_side": "left"})
    assert _compare(folder, "float32") > COSINE["float32"]


# --- cross-encoders -------------------------------------------------------------------------

QUERIES = ("paris?", "which river is famous", *texts_of([130, 400], seed=1))


def _compare_scores(folder: Path, dtype: Any, queries: Sequence[str]) -> float:
    """The largest difference of logits, for every query against `TEXTS`, alone and together."""
    reference = CrossEncoder(str(folder), device="cpu")
    reranker: Any = TorchReranker(folder, n_threads=1, dtype=dtype)
    reference.max_seq_length = reranker.max_tokens
    worst = 0.0
    for query in queries:
        expected = reference.predict(
            [(query, text) for text in TEXTS], activation_fn=torch.nn.Identity(), batch_size=4
        )
        together, *alone = reranker.submit(
            [RerankRequest(query, tuple(TEXTS)), *(RerankRequest(query, (t,)) for t in TEXTS)]
        ).result(WAIT)
        for logits in (together.logits, [result.logits[0] for result in alone]):
            worst = max(worst, float(np.abs(np.array(logits) - expected).max()))
    reranker.close()
    return worst


@pytest.mark.parametrize("family", CONFIGS)
def test_every_family_gives_the_reference_scores(family: str, tmp_path: Path) -> None:
    folder = write_reranker(tmp_path, family)
    assert _compare_scores(folder, "float32", QUERIES) < 1e-3


def test_scores_are_those_of_the_reference(tmp_path: Path) -> None:
    """After the model's own activation, which is sigmoid unless the folder says otherwise."""
    folder = write_reranker(tmp_path, "bert")
    expected = CrossEncoder(str(folder), device="cpu").predict([("a", "b c"), ("a", "d")])
    reranker: Any = TorchReranker(folder, n_threads=1, dtype="float32")
    (result,) = reranker.submit([RerankRequest("a", ("b c", "d"))]).result(WAIT)
    reranker.close()
    np.testing.assert_allclose(result.scores, expected, atol=1e-4)


# --- real weights ---------------------------------------------------------------------------


@pytest.mark.weights
@pytest.mark.parametrize("dtype", COSINE)
def test_minilm_gives_the_reference_vectors(
    dtype: str, starter_weights: Callable[[str], Path]
) -> None:
    assert _compare(starter_weights("all-minilm-l6-v2"), dtype) > COSINE[dtype]


@pytest.mark.weights
@pytest.mark.parametrize("dtype", LOGITS)
def test_a_real_trunk_gives_the_reference_scores(
    dtype: str, starter_weights: Callable[[str], Path], tmp_path: Path
) -> None:
    """MiniLM under a random head: a trained cross-encoder in torch is not among the weights."""
    torch.manual_seed(0)
    folder = starter_weights("all-minilm-l6-v2")
    model = AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=1, initializer_range=0.3
    )
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path)
    assert _compare_scores(tmp_path, dtype, QUERIES[:2]) < LOGITS[dtype]


@pytest.mark.weights
def test_int8_scores_are_onnxruntimes_own_unbatched(
    starter_weights: Callable[[str], Path],
) -> None:
    import onnxruntime

    folder = starter_weights("ms-marco-minilm-l-12-v2")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(folder / "model.onnx", options)
    expected = []
    for text in TEXTS:
        pair = tokenizer(QUERIES[1], text, truncation=True, max_length=512, return_tensors="np")
        feeds = {name: ids.astype(np.int64) for name, ids in pair.items()}
        expected.append(float(session.run(None, feeds)[0][0, 0]))
    reranker: Any = OnnxReranker(folder, n_threads=2)
    request = RerankRequest(QUERIES[1], tuple(TEXTS))
    first, second = reranker.submit([request, request]).result(WAIT)
    reranker.close()
    np.testing.assert_allclose(first.logits, expected, atol=1e-4)
    assert first.logits == second.logits


@pytest.mark.weights
def test_ms_marco_finds_the_answer(starter_weights: Callable[[str], Path]) -> None:
    """The example of the model's own card; the original gives about 9.2, -11.3, -4.2."""
    documents = (
        "Berlin has a population of 3,520,031 registered inhabitants in an area of 891.82 square "
        "kilometers.",
        "New York City is famous for the Metropolitan Museum of Art.",
        "Berlin is well known for its museums.",
    )
    reranker: Any = OnnxReranker(starter_weights("ms-marco-minilm-l-12-v2"), n_threads=1)
    request = RerankRequest("How many people live in Berlin?", documents)
    (result,) = reranker.submit([request]).result(WAIT)
    reranker.close()
    np.testing.assert_allclose(result.logits, [9.2, -11.3, -4.2], atol=0.3)
