"""/v1/classifier: classifiers fitted on the vectors of an embedding model, from a few examples."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field
from starlette.requests import Request

from config.catalog import ModelSpec
from deployments.ingress.keep_alive_fields import KeepAliveFields
from deployments.ingress.routes.classification import MAX_LABELS, LabelName, check_inputs
from deployments.ingress.schemas import HARD_LIST_LIMIT, LenientBody, ModelName, Reply, Texts
from deployments.ingress.server import Endpoint, Server
from deployments.ingress.wire_names import wire_names
from models.errors import InvalidInputError, ModelNotFoundError
from models.types.classification import (
    ClassifierFitRequest,
    ClassifierInfo,
    ClassifierRequest,
    LabelledVectors,
    LabelScores,
)
from models.types.common import FloatArray
from models.types.texts import EmbeddingRequest

ClassifierName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.\-]{0,70}$")]
"""One of the library's names, or such a name and `-latest`."""


class ExampleBody(LenientBody):
    text: Annotated[str, Field(min_length=1)]
    label: LabelName


class LabelBody(LenientBody):
    """`description` says in words what the label means."""

    label: LabelName
    description: Annotated[str, Field(min_length=1)] | None = None


class FitBody(KeepAliveFields, LenientBody):
    """Examples, at best eight or more per label; a label without any needs a description.

    The Universal Runtime's `num_iterations` and `batch_size` are of no use here: the embedding
    model itself is not trained.
    """

    model: ClassifierName
    base_model: ModelName | None = None
    training_data: Annotated[
        list[ExampleBody], Field(max_length=HARD_LIST_LIMIT, fail_fast=True)
    ] = Field(default_factory=list)
    labels: Annotated[list[LabelBody], Field(max_length=MAX_LABELS, fail_fast=True)] = Field(
        default_factory=list
    )


class PredictBody(KeepAliveFields, LenientBody):
    model: ClassifierName
    texts: Texts


class NameBody(KeepAliveFields, LenientBody):
    model: ClassifierName


class FittedClassifier(Reply):
    id: str
    object: Literal["classifier.model"] = "classifier.model"
    version: int
    created: int
    size_bytes: int
    base_model: str
    dimensions: int
    labels: list[str]
    num_classes: int
    samples: int
    head: Literal["logistic", "similarity"]


class FitReply(Reply):
    object: Literal["fit_result"] = "fit_result"
    model: str
    version: int
    base_model: str
    samples_fitted: int
    num_classes: int
    labels: list[str]
    head: Literal["logistic", "similarity"]
    training_time_ms: float
    auto_saved: Literal[True] = True
    status: Literal["fitted"] = "fitted"


class PredictedText(Reply):
    text: str
    label: str
    score: float
    all_scores: dict[str, float]


class PredictReply(Reply):
    object: Literal["list"] = "list"
    model: str
    version: int
    data: list[PredictedText]
    total_count: int


class LoadReply(Reply):
    """Nothing has to be loaded or saved: whatever was fitted is kept, and found by any replica."""

    model: str
    version: int
    labels: list[str]
    num_classes: int
    status: Literal["ready"] = "ready"


class ClassifierList(Reply):
    object: Literal["list"] = "list"
    data: list[FittedClassifier]


class Deleted(Reply):
    id: str
    object: Literal["classifier.model"] = "classifier.model"
    deleted: Literal[True] = True


async def fit(server: Server, request: Request, body: FitBody) -> FitReply:
    """Fit a classifier on examples and keep it under a name, replacing what was there."""
    del request
    start = time.perf_counter()
    described = [entry for entry in body.labels if entry.description is not None]
    texts = [example.text for example in body.training_data]
    _check_texts(server, "training_data", texts)
    descriptions = [entry.description or "" for entry in described]
    _check_texts(server, "labels", descriptions)
    _check_labels(body, {entry.label for entry in described})
    library = _library(server)  # before the base model: the tokens are counted as the latter's
    with wire_names({"model": "base_model", "input": "training_data"}):
        spec = server.model(body.base_model, "embedding")
        vectors = await _embedded(server, spec, [*texts, *descriptions])
    job = ClassifierFitRequest(
        name=body.model,
        base_model=spec.id,
        fingerprint=fingerprint(spec),
        examples=LabelledVectors(
            tuple(example.label for example in body.training_data), vectors[: len(texts)]
        ),
        descriptions=LabelledVectors(
            tuple(entry.label for entry in described), vectors[len(texts) :]
        ),
    )
    info = await server.clients.classification.fit(library.id, job)
    return FitReply(
        model=info.name,
        version=info.version,
        base_model=info.base_model,
        samples_fitted=info.samples,
        num_classes=len(info.labels),
        labels=list(info.labels),
        head=info.head,
        training_time_ms=1000 * (time.perf_counter() - start),
    )


async def predict(server: Server, request: Request, body: PredictBody) -> PredictReply:
    """Label texts with a fitted classifier."""
    del request
    _check_texts(server, "texts", body.texts)
    library = _library(server)
    info = await server.clients.classification.get_classifier(library.id, body.model)
    spec = server.model(info.base_model, "embedding")
    with wire_names({"input": "texts"}):
        vectors = await _embedded(server, spec, body.texts)
    job = ClassifierRequest(body.model, fingerprint(spec), vectors)
    result = await server.clients.classification.fitted.submit(library.id, job)
    data = _predictions(body.texts, result)
    return PredictReply(model=body.model, version=result.version, data=data, total_count=len(data))


async def load(server: Server, request: Request, body: NameBody) -> LoadReply:
    """Say that a fitted classifier is there; nothing has to be loaded or saved."""
    del request
    info = await _get(server, body.model)
    return LoadReply(
        model=info.name,
        version=info.version,
        labels=list(info.labels),
        num_classes=len(info.labels),
    )


async def list_classifiers(server: Server, request: Request, body: None) -> ClassifierList:
    """List the fitted classifiers."""
    del request, body
    infos = await server.clients.classification.list_classifiers(_library(server).id)
    return ClassifierList(data=[_classifier(info) for info in infos])


async def get_classifier(server: Server, request: Request, body: None) -> FittedClassifier:
    """Describe one fitted classifier."""
    del body
    return _classifier(await _get(server, request.path_params["name"]))


async def delete_classifier(server: Server, request: Request, body: None) -> Deleted:
    """Delete a fitted classifier with all its versions."""
    del body
    name = request.path_params["name"]
    await server.clients.classification.delete_classifier(_library(server).id, name)
    return Deleted(id=name)


def fingerprint(spec: ModelSpec) -> str:
    """What a catalogue entry says of a model's weights and how they are used, as a digest."""
    said = spec.model_dump_json(include={"engine", "source", "engine_options"})
    return hashlib.sha256(said.encode()).hexdigest()


def _library(server: Server) -> ModelSpec:
    specs = server.catalog.of_task("classification")
    name = next((spec.id for spec in specs if spec.engine == "classifiers"), None)
    if name is None:
        raise ModelNotFoundError("default classifier library")
    return server.model(name, "classification")


async def _get(server: Server, name: str) -> ClassifierInfo:
    return await server.clients.classification.get_classifier(_library(server).id, name)


async def _embedded(server: Server, spec: ModelSpec, texts: Sequence[str]) -> FloatArray:
    job = EmbeddingRequest(tuple(texts), purpose="classification", truncate=True)
    return (await server.clients.embedding.submit(spec.id, job)).vectors


def _check_texts(server: Server, param: str, texts: Sequence[str]) -> None:
    """A blank text has no tokens, and so no vector. Raises InvalidInputError."""
    check_inputs(server, param, texts)
    if not all(map(str.strip, texts)):
        raise InvalidInputError("A text must not be blank.", param)


def _check_labels(body: FitBody, described: set[str]) -> None:
    """Before anything is embedded. Raises InvalidInputError."""
    with_examples = {example.label for example in body.training_data}
    for entry in body.labels:
        if entry.label not in with_examples | described:
            message = f"The label '{entry.label}' has neither examples nor a description."
            raise InvalidInputError(message, "labels")
    count = len(with_examples | described)
    if not 2 <= count <= MAX_LABELS:
        message = f"A classifier has 2 to {MAX_LABELS} labels; these are {count}."
        raise InvalidInputError(message, "training_data")


def _predictions(texts: Sequence[str], result: LabelScores) -> list[PredictedText]:
    data = []
    for text, row in zip(texts, result.scores, strict=True):
        best = int(row.argmax())
        scores = dict(zip(result.labels, row.tolist(), strict=True))
        data.append(
            PredictedText(
                text=text, label=result.labels[best], score=float(row[best]), all_scores=scores
            )
        )
    return data


def _classifier(info: ClassifierInfo) -> FittedClassifier:
    return FittedClassifier(
        id=info.name,
        version=info.version,
        created=info.created,
        size_bytes=info.size_bytes,
        base_model=info.base_model,
        dimensions=info.dimensions,
        labels=list(info.labels),
        num_classes=len(info.labels),
        samples=info.samples,
        head=info.head,
    )


TAG = "classification"
ENDPOINTS = (
    Endpoint("POST", "/v1/classifier/fit", fit, TAG, body=FitBody, response=FitReply),
    Endpoint(
        "POST", "/v1/classifier/predict", predict, TAG, body=PredictBody, response=PredictReply
    ),
    Endpoint("POST", "/v1/classifier/load", load, TAG, body=NameBody, response=LoadReply),
    Endpoint("POST", "/v1/classifier/save", load, TAG, body=NameBody, response=LoadReply),
    Endpoint("GET", "/v1/classifier/models", list_classifiers, TAG, response=ClassifierList),
    Endpoint("GET", "/v1/classifier/models/{name}", get_classifier, TAG, response=FittedClassifier),
    Endpoint("DELETE", "/v1/classifier/models/{name}", delete_classifier, TAG, response=Deleted),
)
