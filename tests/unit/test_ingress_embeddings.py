"""The embedding shapes of OpenAI, Jina, vLLM and Cohere over HTTP: what reaches the model, what
comes back, what is refused by name."""

from __future__ import annotations

import base64
from typing import Any

import cohere
import numpy as np
import pytest
from openai import OpenAI

from config.catalog import BuiltinSource, Catalog, ModelSpec
from models.types.common import Usage
from models.types.texts import EmbeddingRequest, EmbeddingResult, SparseVector
from tests.fakes import FakeReplicas, make_client

ROW = np.array([0.6, -0.8, 0.0], dtype=np.float32)


async def embed(model_id: str, requests: list[EmbeddingRequest]) -> list[Any]:
    return [_result(request) for request in requests]


def _result(request: EmbeddingRequest) -> EmbeddingResult:
    n = len(request.inputs)
    vectors = np.stack([ROW] * n) if "dense" in request.kinds else np.zeros((0, 3), np.float32)
    states = np.array([[1, 2], [3, 4]], dtype=np.float32)
    weights = SparseVector(np.array([7], np.int32), np.array([0.5], np.float32))
    return EmbeddingResult(
        vectors,
        Usage(5 * n),
        token_vectors=(states,) * n if "tokens" in request.kinds else (),
        sparse=(weights,) * n if "sparse" in request.kinds else (),
    )


@pytest.fixture
def replicas() -> FakeReplicas:
    return FakeReplicas({"embed": embed})


def post(replicas: FakeReplicas, path: str, body: dict[str, Any]) -> Any:
    return make_client({"embedding": replicas}).post(path, json=body)


def request_of(replicas: FakeReplicas) -> EmbeddingRequest:
    """The one request that reached the model."""
    ((_, (model_id, (request,))),) = replicas.calls
    assert model_id == "embedding-model"
    return request  # type: ignore[no-any-return]


OPENAI = {"model": "embedding-model", "input": ["a"]}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {}),
        ({"dimensions": 2, "truncate": True}, {"dimensions": 2, "truncate": True}),
        ({"truncate": "left"}, {"truncate": True, "truncation_side": "left"}),
        ({"truncate": "START"}, {"truncate": True, "truncation_side": "left"}),
        ({"truncate": "END"}, {"truncate": True, "truncation_side": "right"}),
        ({"truncate": "NONE"}, {}),
        ({"input_type": "query"}, {"purpose": "query"}),
        ({"input_type": "passage"}, {"purpose": "document"}),
        ({"input_type": "search_document"}, {"purpose": "document"}),
        ({"prompt_name": "s2p"}, {"prompt_name": "s2p"}),
        ({"task": "retrieval.query"}, {"purpose": "query"}),
        ({"task": "retrieval.passage"}, {"purpose": "document"}),
        ({"task": "text-matching"}, {"purpose": "similarity"}),
        ({"task": "separation"}, {"purpose": "clustering"}),
        ({"late_chunking": True}, {"late_chunking": True}),
        ({"output": ["multi", "dense", "multi"]}, {"kinds": ("tokens", "dense")}),
        ({"truncate_prompt_tokens": 7}, {"truncate": True, "max_tokens": 7}),
        ({"truncate_prompt_tokens": -1}, {"truncate": True}),
        (
            {"truncate_prompt_tokens": 7, "truncation_side": "left"},
            {"truncate": True, "max_tokens": 7, "truncation_side": "left"},
        ),
        ({"add_special_tokens": False}, {"add_special_tokens": False}),
        ({"normalize": False}, {"normalize": False}),
        ({"embed_dtype": "float32", "endianness": "little", "user": "me"}, {}),
        ({"dimensions": None, "task": None, "messages": None, "truncate": None}, {}),
        ({"input": [{"text": "a"}, "b"]}, {"inputs": ("a", "b")}),
        ({"input": [[5, 6], [7]]}, {"inputs": ((5, 6), (7,)), "vocabulary": "cl100k"}),
    ],
    ids=str,
)
def test_fields_of_v1_embeddings(
    replicas: FakeReplicas, fields: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert post(replicas, "/v1/embeddings", OPENAI | fields).status_code == 200
    assert request_of(replicas) == EmbeddingRequest(**({"inputs": ("a",)} | expected))


def test_a_model_may_take_its_own_token_ids(replicas: FakeReplicas) -> None:
    spec = ModelSpec(
        id="embedding-model", task="embedding", engine="toy",
        source=BuiltinSource(kind="builtin"), input_vocabulary="native",
    )  # fmt: skip
    client = make_client({"embedding": replicas}, catalog=Catalog(models=(spec,)))
    assert client.post("/v1/embeddings", json=OPENAI | {"input": [5, 6]}).status_code == 200
    assert request_of(replicas) == EmbeddingRequest(((5, 6),))


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": [{"role": "user", "content": "a"}]}, "messages"),
        ({"embed_dtype": "float16"}, "embed_dtype"),
        ({"endianness": "big"}, "endianness"),
        ({"encoding_format": "bytes"}, "encoding_format"),
        ({"embedding_type": "int4"}, "embedding_type"),
        ({"input_type": "image"}, "input_type"),
        ({"task": "code"}, "task"),
        ({"task": "separation", "prompt_name": "x"}, "prompt_name"),
        ({"task": "separation", "input_type": "query"}, "task"),
        ({"truncate": "middle"}, "truncate"),
        ({"truncate_prompt_tokens": 0}, "truncate_prompt_tokens"),
        ({"truncate_prompt_tokens": -2}, "truncate_prompt_tokens"),
        ({"late_chunking": "yes"}, "late_chunking"),
        ({"output": []}, "output"),
        ({"output": ["colbert"]}, "output"),
        ({"output": "dense"}, "output"),
        ({"dimensions": 0}, "dimensions"),
        ({"dimensions": True}, "dimensions"),
        ({"input": [{"image": "data:"}]}, "input"),
        ({"input": [{"text": "a", "image": "data:"}]}, "input"),
        ({"input": [{"text": ""}]}, "input"),
        ({"input": ["a", 5]}, "input"),
        ({"input": ["a"] * 100_000}, "input"),
        ({"input": [[2**31]]}, "input"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_v1_embeddings_refuses(
    replicas: FakeReplicas, fields: dict[str, Any], param: str
) -> None:
    response = post(replicas, "/v1/embeddings", OPENAI | fields)
    assert response.status_code == 400
    assert response.json()["error"]["param"].partition(".")[0] == param
    assert not replicas.calls


@pytest.mark.parametrize(
    ("kind", "embedding"),
    [
        ("int8", [76, -102, 0]),
        ("uint8", [204, 26, 128]),
        ("ubinary", [128]),
        ("binary", [0]),
        ("float", pytest.approx(ROW.tolist())),
        ("base64", base64.b64encode(ROW.tobytes()).decode()),
    ],
)
def test_jinas_number_formats(replicas: FakeReplicas, kind: str, embedding: Any) -> None:
    """Also where OpenAI's client adds its own format."""
    body = OPENAI | {"embedding_type": kind, "encoding_format": "base64"}
    reply = post(replicas, "/v1/embeddings", body).json()
    assert reply["data"][0]["embedding"] == embedding
    assert reply["usage"] == {"prompt_tokens": 5, "total_tokens": 5}


def test_several_outputs_of_one_pass(replicas: FakeReplicas) -> None:
    body = OPENAI | {"input": ["a", "b"], "output": ["dense", "multi", "sparse"]}
    (_, entry) = post(replicas, "/embeddings", body).json()["data"]
    assert entry == {
        "object": "embedding",
        "index": 1,
        "embedding": pytest.approx(ROW.tolist()),
        "multi": [[1, 2], [3, 4]],
        "sparse": [{"index": 7, "value": 0.5}],
    }
    (entry,) = post(replicas, "/embeddings", OPENAI | {"output": ["sparse"]}).json()["data"]
    assert entry["embedding"] == []
    assert set(entry) == {"object", "index", "embedding", "sparse"}


def test_openais_client_reads_our_numbers(replicas: FakeReplicas) -> None:
    """It asks for base64 without being told to."""
    client = OpenAI(
        api_key="unused",
        base_url="http://testserver/v1",
        http_client=make_client({"embedding": replicas}),  # type: ignore[arg-type]
    )
    reply = client.embeddings.create(
        model="embedding-model", input="a", extra_body={"input_type": "query"}
    )
    assert np.allclose(reply.data[0].embedding, ROW)
    assert request_of(replicas).purpose == "query"


COHERE_V2 = {"model": "embedding-model", "texts": ["a", "b"], "input_type": "search_query"}


def test_cohere_v2(replicas: FakeReplicas) -> None:
    types = ["float", "int8", "uint8", "binary", "ubinary", "base64"]
    fields = {"embedding_types": types, "output_dimension": 3, "max_tokens": 9, "priority": 1}
    reply = post(replicas, "/v2/embed", COHERE_V2 | fields).json()
    assert reply["response_type"] == "embeddings_by_type"
    assert reply["embeddings"] == {
        "float": [pytest.approx(ROW.tolist())] * 2,
        "int8": [[76, -102, 0]] * 2,
        "uint8": [[204, 26, 128]] * 2,
        "binary": [[0]] * 2,
        "ubinary": [[128]] * 2,
        "base64": [base64.b64encode(ROW.tobytes()).decode()] * 2,
    }
    assert reply["texts"] == ["a", "b"]
    assert reply["meta"] == {"api_version": {"version": "2"}, "billed_units": {"input_tokens": 10}}
    assert request_of(replicas) == EmbeddingRequest(
        ("a", "b"), dimensions=3, truncate=True, truncation_side="right", purpose="query",
        max_tokens=9,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("truncate", "expected"),
    [("NONE", (False, None)), ("START", (True, "left")), ("END", (True, "right"))],
)
def test_coheres_truncation(replicas: FakeReplicas, truncate: str, expected: Any) -> None:
    assert post(replicas, "/v2/embed", COHERE_V2 | {"truncate": truncate}).status_code == 200
    request = request_of(replicas)
    assert (request.truncate, request.truncation_side) == expected


def test_cohere_v2_inputs_in_parts(replicas: FakeReplicas) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    body = {"model": "embedding-model", "input_type": "clustering"}
    reply = post(replicas, "/v2/embed", body | {"inputs": [{"content": parts}]}).json()
    assert request_of(replicas).inputs == ("a\nb",)
    assert request_of(replicas).purpose == "clustering"
    assert list(reply["embeddings"]) == ["float"]


def test_cohere_v1_answers_in_two_shapes(replicas: FakeReplicas) -> None:
    """No model and no input type are needed there."""
    reply = post(replicas, "/v1/embed", {"texts": ["a"]}).json()
    assert reply["response_type"] == "embeddings_floats"
    assert reply["embeddings"] == [pytest.approx(ROW.tolist())]
    assert reply["meta"]["api_version"] == {"version": "1"}
    assert request_of(replicas).purpose is None
    body = {"texts": ["a"], "embedding_types": ["int8"]}
    reply = post(replicas, "/v1/embed", body).json()
    assert reply["response_type"] == "embeddings_by_type"
    assert reply["embeddings"] == {"int8": [[76, -102, 0]]}


IMAGE = [{"content": [{"type": "image_url", "image_url": {"url": "data:"}}]}]


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v2/embed", {"model": "embedding-model", "texts": ["a"]}, "input_type"),
        ("/v2/embed", {"texts": ["a"], "input_type": "query"}, "model"),
        ("/v2/embed", COHERE_V2 | {"input_type": "image"}, "input_type"),
        ("/v2/embed", COHERE_V2 | {"images": ["data:"]}, "images"),
        ("/v2/embed", COHERE_V2 | {"texts": None}, "texts"),
        ("/v2/embed", COHERE_V2 | {"texts": [""]}, "texts"),
        ("/v2/embed", COHERE_V2 | {"texts": []}, "texts"),
        ("/v2/embed", COHERE_V2 | {"texts": ["a"] * 3000}, "texts"),
        ("/v2/embed", COHERE_V2 | {"texts": None, "inputs": IMAGE}, "inputs"),
        ("/v2/embed", COHERE_V2 | {"inputs": [{"content": []}]}, "inputs"),
        ("/v2/embed", COHERE_V2 | {"embedding_types": ["float16"]}, "embedding_types"),
        ("/v2/embed", COHERE_V2 | {"truncate": "MIDDLE"}, "truncate"),
        ("/v2/embed", COHERE_V2 | {"output_dimension": 0}, "output_dimension"),
        ("/v1/embed", {"images": ["data:"]}, "images"),
        ("/v1/embed", {}, "texts"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_cohere_embed_refuses(
    replicas: FakeReplicas, path: str, body: dict[str, Any], param: str
) -> None:
    response = post(replicas, path, body)
    assert response.status_code == 400
    assert response.json()["error"]["param"].partition(".")[0] == param
    assert not replicas.calls


@pytest.mark.filterwarnings("ignore:You should not use the .timeout. argument")
def test_coheres_clients_read_our_numbers(replicas: FakeReplicas) -> None:
    http: Any = make_client({"embedding": replicas})
    options: Any = {"api_key": "unused", "base_url": "http://testserver", "httpx_client": http}
    by_type = cohere.ClientV2(**options).embed(
        model="embedding-model", input_type="search_document", texts=["a"],
        embedding_types=["float", "ubinary"],
    ).embeddings  # fmt: skip
    assert by_type.ubinary == [[128]]
    assert np.allclose(by_type.float_, [ROW])
    old = cohere.Client(**options).embed(model="embedding-model", texts=["a"])
    assert np.allclose(old.embeddings, [ROW])
