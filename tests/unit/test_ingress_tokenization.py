"""/tokenize, /detokenize and /apply-template in both shapes, over the toy engine."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from config.settings import AppConfig, DeadlineSettings
from models.toy.generator import ToyGenerator
from models.types.generation import ChatPrompt, TextPrompt, TokenizeRequest, Tokens
from tests.fakes import FakeReplicas, make_client

PREFIXES = ["", "/v1"]
MESSAGES = [{"role": "user", "content": "hi"}]
RENDERED = "<|im_start|>user\nhi<|im_end|><|im_start|>assistant\n"


class ToyReplicas(FakeReplicas):
    """The deployment's three methods over the toy engine."""

    def __init__(self, engine: ToyGenerator) -> None:
        async def tokenize(model_id: str, request: TokenizeRequest) -> Tokens:
            return engine.tokenize(request)

        async def detokenize(model_id: str, ids: tuple[int, ...]) -> str:
            return engine.detokenize(ids)

        async def render(model_id: str, prompt: ChatPrompt) -> str:
            return engine.render(prompt)

        super().__init__({"tokenize": tokenize, "detokenize": detokenize, "render": render})


@pytest.fixture(scope="module")
def toy() -> Iterator[ToyGenerator]:
    engine = ToyGenerator(lambda events: None)
    yield engine
    engine.close()


@pytest.fixture
def replicas(toy: ToyGenerator) -> ToyReplicas:
    return ToyReplicas(toy)


@pytest.fixture
def client(replicas: ToyReplicas) -> TestClient:
    return make_client({"generation": replicas})


def request_of(replicas: FakeReplicas) -> TokenizeRequest:
    ((method, (model_id, request)),) = replicas.calls
    assert (method, model_id) == ("tokenize", "chat-model")
    assert isinstance(request, TokenizeRequest)
    return request


@pytest.mark.parametrize("prefix", PREFIXES)
def test_tokenize_as_vllm(client: TestClient, prefix: str) -> None:
    body = {"model": "vendor/chat-model", "prompt": "hé"}
    reply = client.post(f"{prefix}/tokenize", json=body)
    ids = list("hé".encode())
    assert reply.json() == {"count": 3, "max_model_len": 4096, "tokens": ids}
    reply = client.post(f"{prefix}/tokenize", json=body | {"return_token_strs": True})
    assert reply.json()["token_strs"] == ["h", "\ufffd", "\ufffd"]


def test_tokenize_a_chat(client: TestClient, replicas: ToyReplicas) -> None:
    reply = client.post("/tokenize", json={"model": "chat-model", "messages": MESSAGES})
    assert reply.json()["count"] == len("user\nhi") + len("assistant\n") + 3
    request = request_of(replicas)
    assert isinstance(request.prompt, ChatPrompt)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_tokenize_as_llama_server(client: TestClient, prefix: str) -> None:
    reply = client.post(f"{prefix}/tokenize", json={"content": "hé"})
    assert reply.json() == {"tokens": list("hé".encode())}
    reply = client.post(f"{prefix}/tokenize", json={"content": "hé", "with_pieces": True})
    assert reply.json()["tokens"] == [
        {"id": 104, "piece": "h"},
        {"id": 195, "piece": [195]},
        {"id": 169, "piece": [169]},
    ]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"prompt": "x"}, TokenizeRequest(TextPrompt("x"), add_special=True)),
        (
            {"prompt": "x", "add_special_tokens": False},
            TokenizeRequest(TextPrompt("x"), add_special=False),
        ),
        (
            {"content": "x"},
            TokenizeRequest(TextPrompt("x"), add_special=False, parse_special=True),
        ),
        (
            {"content": "x", "add_special": True, "parse_special": False},
            TokenizeRequest(TextPrompt("x"), add_special=True, parse_special=False),
        ),
        ({"prompt": ""}, TokenizeRequest(TextPrompt(""), add_special=True)),
    ],
    ids=str,
)
def test_special_tokens_are_as_each_shape_has_them(
    client: TestClient, replicas: ToyReplicas, body: dict[str, Any], expected: TokenizeRequest
) -> None:
    assert client.post("/tokenize", json=body).status_code == 200
    assert request_of(replicas) == expected


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize(("tokens", "text"), [([104, 195, 169], "hé"), ([], "")])
def test_detokenize(client: TestClient, prefix: str, tokens: list[int], text: str) -> None:
    reply = client.post(f"{prefix}/detokenize", json={"tokens": tokens})
    assert reply.json() == {"prompt": text, "content": text}


@pytest.mark.parametrize("prefix", PREFIXES)
def test_apply_template(client: TestClient, prefix: str) -> None:
    body = {"model": "chat-model", "messages": MESSAGES, "temperature": 3}
    assert client.post(f"{prefix}/apply-template", json=body).json() == {"prompt": RENDERED}


def test_apply_template_with_tools(client: TestClient, replicas: ToyReplicas) -> None:
    tools = [{"type": "function", "function": {"name": "look_up"}}]
    body = {"messages": MESSAGES, "tools": tools}
    assert "look_up" in client.post("/apply-template", json=body).json()["prompt"]


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": "x", "content": "y"}, "content"),
        ("/tokenize", {"prompt": ["x"]}, "prompt"),
        ("/tokenize", {"inputs": ""}, "inputs"),
        ("/tokenize", {"messages": []}, "messages"),
        ("/tokenize", {"messages": MESSAGES, "chat_template": "x"}, "chat_template"),
        ("/tokenize", {"prompt": "x" * 1_000_001}, "prompt"),
        ("/tokenize", {"content": "x" * 1_000_001}, "content"),
        ("/detokenize", {}, "tokens"),
        ("/detokenize", {"tokens": [-1]}, "tokens.0"),
        ("/detokenize", {"tokens": ["x"]}, "tokens.0"),
        ("/detokenize", {"tokens": [0] * 250_001}, "tokens"),
        ("/detokenize", {"tokens": [100_000]}, "tokens"),
        ("/apply-template", {"messages": [{"role": "user"}]}, "messages.0.content"),
        (
            "/apply-template",
            {"messages": MESSAGES, "chat_template_kwargs": {"chat_template": "x"}},
            "chat_template_kwargs",
        ),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_is_refused_by_name(
    client: TestClient, path: str, body: dict[str, Any], param: str
) -> None:
    reply = client.post(path, json=body)
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == param


@pytest.mark.parametrize("path", ["/tokenize", "/detokenize", "/apply-template"])
def test_models_are_those_that_generate(client: TestClient, path: str) -> None:
    body = {"prompt": "x", "tokens": [1]} if path != "/apply-template" else {}
    body |= {} if path == "/tokenize" else {"messages": MESSAGES}
    reply = client.post(path, json=body | {"model": "embedding-model"})
    assert reply.json()["error"]["code"] == "model_not_supported"
    assert client.post(path, json=body | {"model": "nobody"}).status_code == 404


@pytest.mark.parametrize(
    ("path", "method", "body"),
    [
        ("/tokenize", "tokenize", {"prompt": "x"}),
        ("/detokenize", "detokenize", {"tokens": [1]}),
        ("/apply-template", "render", {"messages": MESSAGES}),
    ],
)
def test_there_is_a_deadline(path: str, method: str, body: dict[str, Any]) -> None:
    async def never(*args: Any) -> Any:
        await asyncio.Event().wait()

    config = AppConfig(deadlines=DeadlineSettings(load_s=0.01, batch_s=0.05))
    client = make_client({"generation": FakeReplicas({method: never})}, config=config)
    assert client.post(path, json=body).status_code == 504
