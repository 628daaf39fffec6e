"""What every bi-encoder does: the weightless twin, tiny random models, and the real MiniLM."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from models.encoders.encoder import TorchEncoder
from models.encoders.onnx_encoder import OnnxEncoder
from models.errors import (
    EngineDeadError,
    InputTooLongError,
    InvalidInputError,
    ModelError,
    ModelLoadError,
    OverloadedError,
)
from models.llama_cpp.encoder import LlamaCppEncoder
from models.toy.encoder import ToyEncoder
from models.types.common import FloatArray
from models.types.texts import EmbeddingRequest, EmbeddingResult
from tests.gguf_encoders import write_bert_gguf
from tests.jobs import cancelled
from tests.tiny_models import EMBEDDERS, UNPACKABLE, write_encoder, write_json
from tests.tiny_onnx import write_onnx_encoder

WAIT = 60.0
TEXTS = ("hello world", "a", "what is the capital of france? " * 3, "hello world", "x y z" * 9)
COSINE = {"float32": 0.99999, "bfloat16": 0.9998}

EncoderMaker = Callable[[Path], Any]
TINY: dict[str, EncoderMaker] = {
    "toy": lambda _: ToyEncoder(max_tokens=256),
    "onnx": lambda path: OnnxEncoder(write_onnx_encoder(path), n_threads=1, normalize=True),
    "onnx-dynamic": lambda path: OnnxEncoder(
        write_onnx_encoder(path, dynamic=True), n_threads=2, normalize=True
    ),
    "llama_cpp": lambda path: LlamaCppEncoder(
        write_bert_gguf(write_encoder(path, "bert"), path / "model.gguf", "mean"), n_threads=1
    ),
    "bert": lambda path: _tiny(path, "bert"),
    "bert-bfloat16": lambda path: _tiny(path, "bert", dtype="bfloat16"),
    "distilbert": lambda path: _tiny(path, "distilbert", "cls"),
    "roberta": lambda path: _tiny(path, "roberta", "weightedmean"),
    "mpnet": lambda path: _tiny(path, "mpnet"),
    "modernbert": lambda path: _tiny(path, "modernbert", "max"),
    "qwen3": lambda path: _tiny(path, "qwen3", "lasttoken"),
}


def _tiny(path: Path, family: str, pooling: str = "mean", dtype: Any = "float32") -> TorchEncoder:
    return TorchEncoder(write_encoder(path, family, pooling), n_threads=1, dtype=dtype)


@pytest.fixture(scope="module", params=[*TINY, pytest.param("minilm", marks=pytest.mark.weights)])
def encoder(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[Any]:
    if request.param == "minilm":
        folder = request.getfixturevalue("starter_weights")("all-minilm-l6-v2")
        engine = TorchEncoder(folder, n_threads=1)
    else:
        engine = TINY[request.param](tmp_path_factory.mktemp(request.param))
    yield engine
    engine.close()


def _embed(encoder: Any, *texts: Any, **options: Any) -> EmbeddingResult | ModelError:
    request = EmbeddingRequest(tuple(texts), **options)
    (result,) = encoder.submit([request]).result(WAIT)
    assert isinstance(result, EmbeddingResult | ModelError)
    return result


def _vectors(encoder: Any, *texts: Any, **options: Any) -> FloatArray:
    result = _embed(encoder, *texts, **options)
    assert isinstance(result, EmbeddingResult), result
    return result.vectors


def _cosines(a: FloatArray, b: FloatArray) -> FloatArray:
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.asarray((a * b).sum(axis=1) / norms, dtype=np.float32)


def test_vectors_are_float32_of_the_models_dimensions(encoder: Any) -> None:
    vectors = _vectors(encoder, *TEXTS)
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(TEXTS), encoder.dimensions)
    assert np.isfinite(vectors).all()
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)


def test_the_order_of_texts_is_kept(encoder: Any) -> None:
    vectors = _vectors(encoder, *TEXTS)
    np.testing.assert_allclose(vectors[0], vectors[3], atol=1e-4)
    turned = _vectors(encoder, *TEXTS[::-1])
    assert _cosines(vectors, turned[::-1]).min() > COSINE["bfloat16"]


def test_a_text_is_the_same_alone_and_in_a_batch(encoder: Any) -> None:
    together = _vectors(encoder, *TEXTS)
    alone = np.concatenate([_vectors(encoder, text) for text in TEXTS])
    assert _cosines(together, alone).min() > COSINE["bfloat16"]


def test_different_texts_differ(encoder: Any) -> None:
    one, other = _vectors(encoder, "hello world", "quite another thing")
    assert one @ other < 0.9999


def test_requests_of_one_submission_keep_apart(encoder: Any) -> None:
    requests = [EmbeddingRequest((text,)) for text in TEXTS]
    results = encoder.submit(requests).result(WAIT)
    together = _vectors(encoder, *TEXTS)
    assert _cosines(np.concatenate([r.vectors for r in results]), together).min() > 0.9998


def test_no_requests_no_results(encoder: Any) -> None:
    assert encoder.submit([]).result(WAIT) == []


def test_dimensions_truncate_and_renormalise(encoder: Any) -> None:
    whole = _vectors(encoder, "hello world")[:, :7]
    short = _vectors(encoder, "hello world", dimensions=7)
    assert short.shape == (1, 7)
    np.testing.assert_allclose(short, whole / np.linalg.norm(whole), atol=1e-5)


@pytest.mark.parametrize("dimensions", [0, -1, 100_000])
def test_impossible_dimensions_are_refused(encoder: Any, dimensions: int) -> None:
    error = _embed(encoder, "hello", dimensions=dimensions)
    assert isinstance(error, InvalidInputError)
    assert error.param == "dimensions"


@pytest.mark.parametrize("text", [" ", "\t\n", "\u3000", "\x00"])
def test_blank_texts_are_embedded(encoder: Any, text: str) -> None:
    vectors = _vectors(encoder, text, "a")
    assert np.isfinite(vectors).all()
    assert vectors.shape[0] == 2


@pytest.mark.parametrize("inputs", [(), ("",), ((),), ("fine", ""), ("half \ud800 pair",)])
def test_what_has_no_tokens_is_refused(encoder: Any, inputs: tuple[Any, ...]) -> None:
    error = _embed(encoder, *inputs)
    assert isinstance(error, InvalidInputError)
    assert error.param == "input"


@pytest.mark.parametrize("token", [-1, 10_000_000])
def test_tokens_outside_the_vocabulary_are_refused(encoder: Any, token: int) -> None:
    error = _embed(encoder, (5, token))
    assert isinstance(error, InvalidInputError)
    assert error.param == "input"


def test_ids_without_a_row_of_the_embeddings_are_refused(tmp_path: Path) -> None:
    """transformers gives some tokenizers more tokens than the model has."""
    encoder = _tiny(tmp_path, "qwen2", "lasttoken")
    rows = EMBEDDERS["qwen2"]().vocab_size
    error = _embed(encoder, (rows,))
    last = _embed(encoder, (rows - 1,))
    encoder.close()
    assert isinstance(error, InvalidInputError)
    assert isinstance(last, EmbeddingResult)


def test_token_ids_are_used_as_they_are(encoder: Any) -> None:
    result = _embed(encoder, (5, 6, 7, 8))
    assert isinstance(result, EmbeddingResult)
    assert result.usage.prompt_tokens == 4


def test_a_bad_request_does_not_spoil_its_neighbours(encoder: Any) -> None:
    requests = [EmbeddingRequest((text,)) for text in ("one", "", "three")]
    one, bad, three = encoder.submit(requests).result(WAIT)
    assert isinstance(bad, InvalidInputError)
    expected = _vectors(encoder, "one", "three")
    assert _cosines(np.concatenate([one.vectors, three.vectors]), expected).min() > 0.9998


def test_too_long_a_text_is_refused_with_both_numbers(encoder: Any) -> None:
    error = _embed(encoder, "a", "a " * 3000)
    assert isinstance(error, InputTooLongError)
    assert error.limit == encoder.max_tokens
    assert error.tokens > error.limit
    assert error.param == "input"


def test_truncate_cuts_at_the_limit(encoder: Any) -> None:
    result = _embed(encoder, "a", "a " * 3000, truncate=True)
    assert isinstance(result, EmbeddingResult)
    short = _embed(encoder, "a")
    assert isinstance(short, EmbeddingResult)
    assert result.usage.prompt_tokens == encoder.max_tokens + short.usage.prompt_tokens


def test_truncated_token_ids_keep_the_first(encoder: Any) -> None:
    ids = tuple(5 + n % 20 for n in range(encoder.max_tokens + 10))
    cut = _vectors(encoder, ids, truncate=True)
    whole = _vectors(encoder, ids[: encoder.max_tokens])
    assert _cosines(cut, whole).min() > 0.9998


def test_usage_counts_special_tokens(encoder: Any) -> None:
    result = _embed(encoder, "a", "a")
    assert isinstance(result, EmbeddingResult)
    assert result.usage.prompt_tokens == 2 * 3  # [CLS] a [SEP]


def test_vectors_of_tokens_come_with_the_dense_one_and_alone(encoder: Any) -> None:
    both = _embed(encoder, *TEXTS, kinds=("dense", "tokens"))
    if "tokens" not in encoder.info.kinds:
        assert isinstance(both, InvalidInputError)
        return
    alone = _embed(encoder, *TEXTS, kinds=("tokens",))
    assert isinstance(both, EmbeddingResult)
    assert isinstance(alone, EmbeddingResult)
    assert _cosines(both.vectors, _vectors(encoder, *TEXTS)).min() > COSINE["bfloat16"]
    assert alone.vectors.shape == (0, encoder.dimensions)
    assert both.input_tokens == alone.input_tokens == tuple(map(len, both.token_vectors))
    for one, other in zip(both.token_vectors, alone.token_vectors, strict=True):
        assert _cosines(one, other).min() > COSINE["bfloat16"]
    assert both.usage == alone.usage


def test_what_a_model_does_not_give_is_refused(encoder: Any) -> None:
    error = _embed(encoder, "a", kinds=("sparse",))
    assert isinstance(error, InvalidInputError)
    assert error.param == "model"
    shortened = _embed(encoder, "a", kinds=("tokens",), dimensions=4)
    assert isinstance(shortened, InvalidInputError)
    assert shortened.param == ("dimensions" if "tokens" in encoder.info.kinds else "model")


def test_an_unknown_prompt_is_refused(encoder: Any) -> None:
    error = _embed(encoder, "a", prompt_name="no such prompt")
    assert isinstance(error, InvalidInputError)
    assert error.param == "prompt_name"


def test_sparse_vectors_have_what_is_not_zero() -> None:
    encoder = ToyEncoder(sparse=True)
    result = _embed(encoder, "abba", "c", kinds=("sparse",))
    dense = _embed(encoder, "a")
    encoder.close()
    assert isinstance(result, EmbeddingResult)
    abba, c = result.sparse
    assert abba.values.tolist() == [1, 1, 2, 2]  # [CLS], [SEP], two of each letter
    assert c.values.tolist() == [1, 1, 1]
    assert len(set(abba.indices.tolist()) & set(c.indices.tolist())) == 2
    assert abba.indices.dtype == np.int32
    assert isinstance(dense, InvalidInputError)


def test_many_clients_get_their_own_vectors(encoder: Any) -> None:
    expected = _vectors(encoder, *TEXTS)
    closest: dict[int, float] = {}

    def client(index: int) -> None:
        vectors = _vectors(encoder, TEXTS[index % len(TEXTS)])
        closest[index] = float(_cosines(vectors, expected[index % len(TEXTS)][None])[0])

    threads = [threading.Thread(target=client, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert len(closest) == 16
    assert min(closest.values()) > 0.9998


def test_a_cancelled_job_is_dropped(encoder: Any) -> None:
    job = cancelled(lambda: encoder.submit([EmbeddingRequest(("a b c d e f",) * 500)]))
    with pytest.raises(CancelledError):
        job.result(WAIT)
    assert _vectors(encoder, "still here").shape[0] == 1


@pytest.mark.parametrize("name", ["toy", "bert", "onnx-dynamic", "llama_cpp"])
def test_a_closed_engine_refuses(name: str, tmp_path: Path) -> None:
    encoder = TINY[name](tmp_path)
    encoder.close()
    encoder.close()
    with pytest.raises(EngineDeadError):
        encoder.submit([EmbeddingRequest(("a",))])
    assert not encoder.alive


def test_a_full_queue_refuses_at_once() -> None:
    entered, gate = threading.Event(), threading.Event()

    def hold(_: Any) -> None:
        entered.set()
        gate.wait(WAIT)

    encoder = ToyEncoder(max_queued_tokens=100, on_batch=hold)
    first = encoder.submit([EmbeddingRequest(("a",))])
    assert entered.wait(WAIT)
    second = encoder.submit([EmbeddingRequest(("b" * 200,))])
    with pytest.raises(OverloadedError):
        encoder.submit([EmbeddingRequest(("c" * 200,))])
    gate.set()
    assert len(first.result(WAIT)) == len(second.result(WAIT)) == 1
    encoder.close()


def test_which_path_each_family_takes(tmp_path: Path) -> None:
    for family in EMBEDDERS:
        encoder = _tiny(tmp_path / family, family)
        assert encoder.runner.packed is (family not in UNPACKABLE), family
        encoder.close()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", {}),
        ("config.json", {"model_type": "bert", "auto_map": {"AutoModel": "code.Model"}}),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["code.T", None]}}),
        ("config.json", {"model_type": "no-such-family"}),
        ("config.json", {"model_type": "t5", "is_encoder_decoder": True}),
        ("adapter_config.json", {"base_model_name_or_path": "x"}),
        ("modules.json", [{"type": "evil.Module", "path": ""}]),
        ("modules.json", [{"type": "sentence_transformers.Pooling", "path": ""}]),
        ("modules.json", {"not": "a list"}),
        ("sentence_bert_config.json", ["not an object"]),
        ("sentence_bert_config.json", {"max_seq_length": "long"}),
        ("1_Pooling/config.json", {"pooling_mode": "median"}),
        ("1_Pooling/config.json", {"pooling_mode": "mean", "include_prompt": False}),
        ("model.safetensors", {"not": "safetensors"}),
    ],
)
def test_a_folder_that_cannot_be_served_is_refused(
    tmp_path: Path, name: str, content: object
) -> None:
    folder = write_encoder(tmp_path, "bert")
    write_json(folder / name, content)
    with pytest.raises(ModelLoadError) as raised:
        TorchEncoder(folder, n_threads=1)
    assert str(tmp_path) not in raised.value.message


@pytest.mark.parametrize(
    ("kinds", "named"),
    [
        (["CLIPModel"], "CLIPModel"),
        (["Transformer", "WeightedLayerPooling", "Pooling"], "WeightedLayerPooling"),
        (["Transformer", "Pooling", "LSTM"], "LSTM"),
        (["Transformer", "Pooling", "SpladePooling"], "SpladePooling"),
    ],
)
def test_modules_that_are_not_supported_are_named(
    tmp_path: Path, kinds: list[str], named: str
) -> None:
    folder = write_encoder(tmp_path, "bert")
    paths = ["", "1_Pooling", "2_Other"]
    modules = [
        {"type": f"sentence_transformers.models.{kind}", "path": path}
        for kind, path in zip(kinds, paths, strict=False)
    ]
    write_json(folder / "modules.json", modules)
    with pytest.raises(ModelLoadError, match=f"module {named} of modules.json"):
        TorchEncoder(folder, n_threads=1)


def test_steps_that_read_something_else_are_refused(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path, "bert")
    write_json(folder / "2_Normalize" / "config.json", {"module_input_name": "token_embeddings"})
    with pytest.raises(ModelLoadError, match="reads token_embeddings"):
        TorchEncoder(folder, n_threads=1)


def test_a_colbert_folder_without_its_projection_is_refused(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path, "bert")
    (folder / "modules.json").unlink()
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", config | {"architectures": ["HF_ColBERT"]})
    with pytest.raises(ModelLoadError, match=r"linear\.weight"):
        TorchEncoder(folder, n_threads=1)


def test_a_transformer_outside_the_folder_is_refused(tmp_path: Path) -> None:
    outer = write_encoder(tmp_path, "bert")
    modules = json.loads((outer / "modules.json").read_text())
    modules[0]["path"] = ".."
    write_json(outer / "inner" / "modules.json", modules)
    with pytest.raises(ModelLoadError, match="outside"):
        TorchEncoder(outer / "inner", n_threads=1)


@pytest.mark.parametrize(
    "config",
    [
        {"in_features": 32},
        {"in_features": 32, "out_features": 16, "activation_function": "os.system"},
        {"in_features": 32, "out_features": 16, "use_residual": True},
        {"in_features": 32, "out_features": 16},  # without weights
        {"in_features": 32, "out_features": 8},  # with others
    ],
)
def test_a_dense_layer_that_does_not_fit_is_refused(
    tmp_path: Path, config: dict[str, object]
) -> None:
    folder = write_encoder(tmp_path, "bert")
    modules = json.loads((folder / "modules.json").read_text())
    modules.append({"type": "sentence_transformers.models.Dense", "path": "3_Dense"})
    write_json(folder / "modules.json", modules)
    write_json(folder / "3_Dense" / "config.json", config)
    if config.get("out_features") == 8:
        save_file({"linear.weight": torch.zeros(16, 32)}, folder / "3_Dense" / "model.safetensors")
    with pytest.raises(ModelLoadError, match="dense"):
        TorchEncoder(folder, n_threads=1)


def test_pickles_are_refused(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path, "bert")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelLoadError, match="safetensors"):
        TorchEncoder(folder, n_threads=1)


def test_missing_tensors_are_refused(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path, "bert")
    tensors = load_file(folder / "model.safetensors")
    del tensors["encoder.layer.1.output.dense.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelLoadError, match="1 of the model's tensors"):
        TorchEncoder(folder, n_threads=1)
