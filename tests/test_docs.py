"""The documents say everything: routes, error codes, settings, OpenAI's fields."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest
from openai.types.chat import (
    ChatCompletionContentPartParam,
    ChatCompletionContentPartRefusalParam,
    ChatCompletionMessageParam,
)
from openai.types.chat.completion_create_params import CompletionCreateParamsBase as ChatParams
from openai.types.completion_create_params import CompletionCreateParamsBase as CompletionParams
from openai.types.embedding_create_params import EmbeddingCreateParams
from pydantic import BaseModel

from config.settings import AppConfig, TaskSettings
from deployments.ingress.app import all_endpoints
from deployments.ingress.embedding_formats import EmbeddingType
from deployments.ingress.errors import ANSWERS, HTTP_CODES
from deployments.ingress.keep_alive_fields import KeepAliveFields
from deployments.ingress.routes.chat_request import ChatBody
from deployments.ingress.routes.cohere_embed import EmbedBodyV1, EmbedBodyV2
from deployments.ingress.routes.completions import CompletionBody
from deployments.ingress.routes.documents import ExtractBody
from deployments.ingress.routes.embeddings import EmbeddingsBody
from deployments.ingress.routes.files import UploadBody
from deployments.ingress.routes.ocr_request import OcrBody
from deployments.ingress.routes.rerank import RerankBody
from deployments.ingress.routes.score import ScoreBody
from deployments.ingress.routes.tei import DecodeBody, EmbedAllBody, EmbedBody, SimilarityBody

ROOT = Path(__file__).parents[1]
API = (ROOT / "docs" / "api.md").read_text()
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()


def first_cells(document: str) -> set[str]:
    """Every `code` in the first column of the document's tables."""
    rows = re.findall(r"^\| ([^|]*) \|", document, flags=re.MULTILINE)
    return {code for row in rows for code in re.findall(r"`([^`]+)`", row)}


KEEP_ALIVE = set(KeepAliveFields.model_fields)
"""Of every request; they have a section of their own."""


@pytest.mark.parametrize("endpoint", all_endpoints(), ids=lambda e: f"{e.method} {e.path}")
def test_every_route_is_documented(endpoint: object) -> None:
    route = f"{endpoint.method} {endpoint.path}".replace(":path", "")  # type: ignore[attr-defined]
    assert route in first_cells(API)


def test_every_error_code_is_documented_with_its_status() -> None:
    documented = set(re.findall(r"^\| (\d{3}) \| `(\w+)` \|", API, flags=re.MULTILINE))
    answered = {(str(answer.status), answer.code) for answer in ANSWERS.values()}
    assert documented == answered | {(str(status), code) for status, code in HTTP_CODES.items()}


def section(anchor: str) -> str:
    """What the reference says from an anchor to the next."""
    return API.partition(f'<a id="{anchor}"></a>')[2].partition("<a id=")[0]


def test_every_field_of_openais_chat_request_is_documented() -> None:
    fields = set(ChatParams.__annotations__) | {"stream"}
    assert len(fields) > 30
    assert fields <= first_cells(section("chat"))


def test_every_field_of_openais_completion_request_is_documented() -> None:
    fields = set(CompletionParams.__annotations__) | {"stream"}
    assert len(fields) > 15
    assert fields <= first_cells(section("completions"))


@pytest.mark.parametrize("kind", get_args(ChatCompletionMessageParam), ids=lambda t: t.__name__)
def test_every_field_of_openais_messages_is_documented(kind: type) -> None:
    assert set(kind.__annotations__) <= first_cells(section("chat"))


PART_TYPES = (*get_args(ChatCompletionContentPartParam), ChatCompletionContentPartRefusalParam)


@pytest.mark.parametrize("kind", PART_TYPES, ids=lambda t: t.__name__)
def test_every_field_of_openais_content_parts_is_documented(kind: type) -> None:
    assert set(kind.__annotations__) - {"type"} <= first_cells(section("chat"))


@pytest.mark.parametrize(
    ("anchor", "body"), [("chat", ChatBody), ("completions", CompletionBody)], ids=str
)
def test_every_field_that_is_read_is_documented(anchor: str, body: type[BaseModel]) -> None:
    """The sampling and format fields that completions share are in the table of chat."""
    documented = first_cells(section(anchor)) | first_cells(section("chat"))
    assert set(body.model_fields) - KEEP_ALIVE <= documented


@pytest.mark.parametrize(
    ("anchor", "body"),
    [
        ("embeddings", EmbeddingsBody),
        ("cohere-embed", EmbedBodyV1),
        ("cohere-embed", EmbedBodyV2),
        ("tei", EmbedBody),
        ("tei", EmbedAllBody),
        ("tei", SimilarityBody),
        ("tei", DecodeBody),
        ("rerank", RerankBody),
        ("score", ScoreBody),
        ("ocr", OcrBody),
        ("documents", ExtractBody),
        ("files", UploadBody),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_every_field_of_a_request_is_documented(anchor: str, body: type[BaseModel]) -> None:
    names = {field.alias or name for name, field in body.model_fields.items()}
    assert names - KEEP_ALIVE <= first_cells(section(anchor))


def test_the_fields_of_every_request_are_documented_once() -> None:
    text = section("keep-alive")
    assert all(f"`{name}`" in text for name in KEEP_ALIVE)


def test_every_field_of_openais_embedding_request_is_documented() -> None:
    assert set(EmbeddingCreateParams.__annotations__) <= first_cells(section("embeddings"))


@pytest.mark.parametrize("kind", get_args(EmbeddingType))
def test_every_number_format_is_documented(kind: str) -> None:
    assert kind in first_cells(section("cohere-embed"))


def settings_of(model: type[BaseModel], prefix: str = "") -> set[str]:
    """Dotted names; those of the tasks, which are all alike, without their task."""
    names = set()
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, TaskSettings):
            names |= settings_of(kind)
        elif isinstance(kind, type) and issubclass(kind, BaseModel):
            names |= settings_of(kind, f"{name}.")
        else:
            names.add(prefix + name)
    return names


def test_every_setting_is_documented_and_no_other() -> None:
    section = OPERATIONS.partition("\n## Settings")[2].partition("\n## Scale to zero")[0]
    assert first_cells(section) == settings_of(AppConfig)


def test_documented_defaults_are_the_defaults() -> None:
    config = AppConfig()
    rows = re.findall(r"^\| `(\w+)\.(\w+)` \| `?([^|`]+)`? \|", OPERATIONS, flags=re.MULTILINE)
    assert len(rows) > 15
    for section, name, documented in rows:
        assert documented == str(getattr(getattr(config, section), name)).lower(), name


def test_every_tag_that_a_key_may_be_allowed_is_documented() -> None:
    keys = OPERATIONS.partition("\n### Keys")[2].partition("\n### ")[0]
    for tag in {endpoint.tag.lower() for endpoint in all_endpoints()}:
        assert f"`{tag}`" in keys


def test_every_example_is_listed() -> None:
    listed = first_cells((ROOT / "examples" / "README.md").read_text())
    assert listed == {path.name for path in (ROOT / "examples").glob("*.py")}


PAGES = sorted(
    path for folder in (".", "docs", "examples") for path in (ROOT / folder).glob("*.md")
)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_links_between_documents_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", path.read_text()):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        linked = (path.parent / name) if name else path
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors_of(linked), target


def anchors_of(path: Path) -> set[str]:
    text = path.read_text()
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return slugs | set(re.findall(r'<a id="([^"]+)"', text))
