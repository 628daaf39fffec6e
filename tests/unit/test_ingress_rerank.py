"""One scorer in the shapes of Cohere, Jina, infinity, TEI and vLLM."""

from __future__ import annotations

from typing import Any

import cohere
import pytest

from models.errors import DeadlineExceededError, InvalidInputError
from models.types.common import Usage
from models.types.texts import RerankRequest, RerankResult
from tests.fakes import FakeReplicas, make_client


async def rank(model_id: str, requests: list[RerankRequest]) -> list[Any]:
    """The logit of a document is the number that it says; its score a hundredth of that."""
    return [_ranked(request) for request in requests]


def _ranked(request: RerankRequest) -> Any:
    if request.query == "slow":
        return DeadlineExceededError("too slow")
    if request.query in ("query", "documents"):
        return InvalidInputError(f"'{request.query}' is bad.", request.query)
    logits = tuple(float(document) for document in request.documents)
    scores = tuple(logit / 100 for logit in logits)
    return RerankResult(logits, scores, Usage(10 * len(logits)))


@pytest.fixture
def replicas() -> FakeReplicas:
    return FakeReplicas({"rank": rank})


def post(replicas: FakeReplicas, path: str, body: dict[str, Any]) -> Any:
    return make_client({"rerank": replicas}).post(path, json=body)


def request_of(replicas: FakeReplicas) -> RerankRequest:
    ((_, (model_id, (request,))),) = replicas.calls
    assert model_id == "rerank-model"
    return request  # type: ignore[no-any-return]


BODY = {"model": "rerank-model", "query": "q", "documents": ["10", "30", "20"]}
OVERLAP = {"overlap": 32}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {}),
        ({"model": None}, {}),
        ({"truncate": False}, {"truncate": False}),
        ({"truncation": False}, {"truncate": False}),
        ({"truncation": True}, {}),
        ({"truncation": "windowed"}, {"windows": 64}),
        ({"truncation": "windowed", "overlap": 5}, {"windows": 64, "overlap": 5}),
        ({"max_chunks_per_doc": 10}, {"windows": 10}),
        ({"max_chunks_per_doc": 1}, {}),
        ({"max_chunks_per_doc": 1000}, {"windows": 64}),
        ({"max_tokens_per_doc": 40}, {"max_tokens_per_document": 40}),
        ({"truncation_direction": "Left"}, {"truncation_side": "left"}),
        ({"rank_fields": ["text"], "priority": 3, "truncate_prompt_tokens": -1}, {}),
        ({"top_n": None, "relevant_spans": None}, {}),
    ],
    ids=str,
)
def test_fields(replicas: FakeReplicas, fields: dict[str, Any], expected: dict[str, Any]) -> None:
    assert post(replicas, "/v1/rerank", BODY | fields).status_code == 200
    documents = tuple(BODY["documents"])
    assert request_of(replicas) == RerankRequest("q", documents, **(OVERLAP | expected))


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"relevant_spans": {"mode": "enabled"}}, "relevant_spans"),
        ({"rank_fields": ["title"]}, "rank_fields"),
        ({"truncate_prompt_tokens": 9}, "truncate_prompt_tokens"),
        ({"truncation": "middle"}, "truncation"),
        ({"top_n": 0}, "top_n"),
        ({"overlap": -1}, "overlap"),
        ({"max_tokens_per_doc": 0}, "max_tokens_per_doc"),
        ({"query": ""}, "query"),
        ({"documents": None}, "documents"),
        ({"texts": ["1"]}, "documents"),
        ({"documents": None, "texts": [""]}, "texts"),
        ({"documents": None, "texts": ["1"] * 1001}, "texts"),
        ({"documents": ["1"] * 100_000}, "documents"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_is_refused(replicas: FakeReplicas, fields: dict[str, Any], param: str) -> None:
    response = post(replicas, "/v1/rerank", BODY | fields)
    assert response.status_code == 400
    assert response.json()["error"]["param"].partition(".")[0] == param
    assert not replicas.calls


def test_cohere_and_jina(replicas: FakeReplicas) -> None:
    reply = post(replicas, "/v1/rerank", BODY | {"return_documents": True, "top_n": 2}).json()
    assert reply["results"] == [
        {"index": 1, "relevance_score": 0.3, "document": {"text": "30"}},
        {"index": 2, "relevance_score": 0.2, "document": {"text": "20"}},
    ]
    assert reply["object"] == "list"
    assert reply["usage"] == {"prompt_tokens": 30, "total_tokens": 30}
    assert "data" not in reply
    many = post(replicas, "/v2/rerank", BODY | {"documents": ["1"] * 101}).json()
    assert [result["index"] for result in many["results"]] == list(range(101))
    assert many["meta"] == {"api_version": {"version": "2"}, "billed_units": {"search_units": 2}}


def test_top_k_also_puts_the_results_where_its_clients_look(replicas: FakeReplicas) -> None:
    reply = post(replicas, "/v1/rerank", BODY | {"top_k": 1}).json()
    assert reply["data"] == reply["results"] == [{"index": 1, "relevance_score": 0.3}]


@pytest.mark.parametrize("fields", [{"raw_scores": True}, {"use_activation": False}], ids=str)
def test_raw_scores(replicas: FakeReplicas, fields: dict[str, Any]) -> None:
    results = post(replicas, "/v1/rerank", BODY | fields).json()["results"]
    assert [result["relevance_score"] for result in results] == [30, 20, 10]


def test_infinity(replicas: FakeReplicas) -> None:
    """Its client always sends `raw_scores`, and a name that means none."""
    fields = {"model": "default/not-specified", "raw_scores": False, "return_documents": True}
    reply = post(replicas, "/rerank", BODY | fields).json()
    assert reply["object"] == "rerank"
    assert reply["results"][0] == {"index": 1, "relevance_score": 0.3, "document": "30"}
    assert set(reply) == {"object", "id", "model", "created", "results", "usage"}
    fields |= {"return_documents": False}
    assert set(post(replicas, "/rerank", BODY | fields).json()["results"][0]) == {
        "index", "relevance_score",
    }  # fmt: skip


def test_without_raw_scores_the_bare_path_has_jinas_shape(replicas: FakeReplicas) -> None:
    reply = post(replicas, "/rerank", BODY | {"return_documents": True}).json()
    assert reply["object"] == "list"
    assert reply["results"][0]["document"] == {"text": "30"}


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank"])
def test_tei(replicas: FakeReplicas, path: str) -> None:
    body = {"query": "q", "texts": ["10", "30"], "truncate": True, "raw_scores": False}
    assert post(replicas, path, body).json() == [
        {"index": 1, "score": 0.3}, {"index": 0, "score": 0.1},
    ]  # fmt: skip
    reply = post(replicas, path, body | {"return_text": True, "raw_scores": True}).json()
    assert reply[0] == {"index": 1, "score": 30.0, "text": "30"}


@pytest.mark.parametrize(
    ("body", "pairs", "scores"),
    [
        ({"text_1": "q", "text_2": "10"}, [("q", ("10",))], [0.1]),
        ({"queries": "q", "documents": ["10", "30"]}, [("q", ("10", "30"))], [0.1, 0.3]),
        ({"queries": ["q"], "items": ["10", "30"]}, [("q", ("10", "30"))], [0.1, 0.3]),
        (
            {"data_1": ["q", "p", "q"], "data_2": ["10", "20", "30"], "use_activation": False},
            [("q", ("10", "30")), ("p", ("20",))],
            [10, 20, 30],
        ),
    ],
    ids=str,
)
@pytest.mark.parametrize("path", ["/score", "/v1/score"])
def test_vllms_score(
    replicas: FakeReplicas, path: str, body: dict[str, Any], pairs: Any, scores: list[float]
) -> None:
    reply = post(replicas, path, {"model": "rerank-model"} | body).json()
    assert reply["data"] == [
        {"index": i, "object": "score", "score": score} for i, score in enumerate(scores)
    ]
    assert reply["object"] == "list"
    assert reply["id"].startswith("score-")
    assert reply["usage"]["total_tokens"] == 10 * len(scores)
    asked = [request for _, (_, requests) in replicas.calls for request in requests]
    assert [(request.query, request.documents) for request in asked] == pairs


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"documents": ["1"]}, "queries"),
        ({"queries": "q"}, "documents"),
        ({"queries": "q", "text_1": "q", "documents": "1"}, "text_1"),
        ({"queries": ["q", "p"], "documents": ["1"]}, "queries"),
        ({"queries": ["q", "p"], "documents": ["1", "2", "3"]}, "queries"),
        ({"queries": "", "documents": ["1"]}, "queries"),
        ({"queries": "q", "documents": []}, "documents"),
        ({"queries": "q", "documents": [""]}, "documents"),
        ({"queries": "q", "documents": ["1"] * 1001}, "documents"),
        ({"queries": "q", "documents": [{"text": "1"}]}, "documents"),
        ({"queries": "q", "documents": "1", "truncate_prompt_tokens": 5}, "truncate_prompt_tokens"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_score_refuses(replicas: FakeReplicas, body: dict[str, Any], param: str) -> None:
    response = post(replicas, "/score", body)
    assert response.status_code == 400
    assert response.json()["error"]["param"].partition(".")[0] == param
    assert not replicas.calls


def test_a_pair_that_fails_fails_the_request(replicas: FakeReplicas) -> None:
    body = {"queries": ["q", "slow"], "documents": ["1", "2"]}
    assert post(replicas, "/score", body).status_code == 504


@pytest.mark.filterwarnings("ignore:You should not use the .timeout. argument")
def test_coheres_clients(replicas: FakeReplicas) -> None:
    http: Any = make_client({"rerank": replicas})
    options: Any = {"api_key": "unused", "base_url": "http://testserver", "httpx_client": http}
    documents = ["10", "30"]
    new = cohere.ClientV2(**options).rerank(model="rerank-model", query="q", documents=documents)
    assert [(r.index, r.relevance_score) for r in new.results] == [(1, 0.3), (0, 0.1)]
    old = cohere.Client(**options).rerank(
        query="q", documents=documents, return_documents=True, max_chunks_per_doc=4
    )
    assert [r.document.text for r in old.results if r.document] == ["30", "10"]
    assert replicas.calls[-1][1][1][0].windows == 4


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/rerank", {"query": "documents", "texts": ["1"]}, "texts"),
        ("/rerank", {"query": "documents", "documents": ["1"]}, "documents"),
        ("/rerank", {"query": "query", "texts": ["1"]}, "query"),
        ("/score", {"text_1": "query", "text_2": "1"}, "text_1"),
        ("/score", {"queries": "documents", "items": ["1"]}, "items"),
    ],
)
def test_the_engines_refusals_name_the_fields_of_the_shape(
    replicas: FakeReplicas, path: str, body: dict[str, Any], param: str
) -> None:
    error = post(replicas, path, body).json()["error"]
    assert error["param"] == param
    assert error["message"] == f"'{param}' is bad."
