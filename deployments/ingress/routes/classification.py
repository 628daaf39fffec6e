"""/v1/classify in four shapes and /predict: labels for texts."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, RootModel
from starlette.requests import Request

from config.catalog import ModelSpec
from deployments.ingress.keep_alive_fields import KeepAliveFields
from deployments.ingress.schemas import HARD_LIST_LIMIT, Body, LenientBody, ModelName, Reply, Texts
from deployments.ingress.server import Endpoint, Server, check_count, check_texts
from deployments.ingress.wire_names import wire_names
from models.errors import InvalidInputError, NoModelForTaskError, UnsupportedTaskError
from models.few_shot.label_similarity import similarity_scores
from models.types.classification import ClassificationRequest, ClassificationResult, TextOrPair
from models.types.common import FloatArray
from models.types.texts import EmbeddingRequest

MAX_LABELS = 256
LabelName = Annotated[str, Field(min_length=1, max_length=256)]
Labels = Annotated[list[LabelName], Field(min_length=1, max_length=MAX_LABELS, fail_fast=True)]
Template = Annotated[str, Field(min_length=2, max_length=1000)]
Pair = Annotated[list[str], Field(min_length=1, max_length=2, fail_fast=True)]
Pairs = Annotated[list[Pair], Field(min_length=1, max_length=HARD_LIST_LIMIT, fail_fast=True)]


class TextBody(Body):
    text: str


InputList = Annotated[
    list[str | TextBody], Field(min_length=1, max_length=HARD_LIST_LIMIT, fail_fast=True)
]


class ClassifyBody(KeepAliveFields, LenientBody):
    """Which shape the answer has follows from the form of the request.

    `texts`: the Universal Runtime's. `labels`: Jina's, for labels of the request. `raw_scores`:
    infinity's. Else vLLM's. Over-long texts are cut, sooner by `max_length`, unless `truncate` is
    false.
    """

    model: ModelName | None = None
    texts: Texts | None = None
    input: str | InputList | None = None
    labels: Labels | None = None
    hypothesis_template: Template = "This example is {}."
    multi_label: bool = False
    raw_scores: bool | None = None
    truncate: bool = True
    max_length: Annotated[int, Field(ge=1, le=1_000_000)] | None = None

    def refuse_entailment(self) -> None:
        """Raises InvalidInputError for what an embedding model has no use for."""
        for param in ("hypothesis_template", "multi_label"):
            if param in self.model_fields_set:
                message = f"'{param}' needs a model of entailment, not of embeddings."
                raise InvalidInputError(message, param)

    def inputs(self) -> tuple[str, tuple[str, ...]]:
        """The name of the field that has the texts, and the texts. Raises InvalidInputError."""
        if (self.texts is None) == (self.input is None):
            raise InvalidInputError("Give either 'input' or 'texts'.", "input")
        if self.texts is not None:
            return "texts", tuple(self.texts)
        given = [self.input] if isinstance(self.input, str) else self.input or []
        return "input", tuple(text if isinstance(text, str) else text.text for text in given)


class ScoredLabel(Reply):
    label: str
    score: float


class Usage(Reply):
    prompt_tokens: int
    total_tokens: int


class TextLabels(Reply):
    index: int
    label: str
    score: float
    all_scores: dict[str, float]


class TextsUsage(Usage):
    texts_processed: int


class LabelledTexts(Reply):
    """The Universal Runtime's shape."""

    object: Literal["list"] = "list"
    model: str
    data: list[TextLabels]
    total_count: int
    usage: TextsUsage


class Judgement(Reply):
    object: Literal["classification"] = "classification"
    index: int
    prediction: str
    score: float
    predictions: list[ScoredLabel]


class JudgedTexts(Reply):
    """Jina's shape."""

    model: str
    data: list[Judgement]
    usage: Usage


class ScoredTexts(Reply):
    """infinity's shape: labels by descending score."""

    object: Literal["classify"] = "classify"
    id: str
    created: int
    model: str
    data: list[list[ScoredLabel]]
    usage: Usage


class Probabilities(Reply):
    index: int
    label: str
    probs: list[float]
    num_classes: int


class ClassifiedTexts(Reply):
    """vLLM's shape: probabilities in the order of the model's labels."""

    object: Literal["list"] = "list"
    id: str
    created: int
    model: str
    data: list[Probabilities]
    usage: Usage


class Classification(RootModel[LabelledTexts | JudgedTexts | ScoredTexts | ClassifiedTexts]):
    """One of four shapes."""


class PredictBody(KeepAliveFields, LenientBody):
    """TEI's request. A list of one or two texts is one input; more inputs are lists in a list."""

    inputs: str | Pair | Pairs
    model: ModelName | None = None
    raw_scores: bool = False
    truncate: bool = True


class Predictions(RootModel[list[ScoredLabel] | list[list[ScoredLabel]]]):
    """Labels by descending score, for one input or for each of several."""


async def classify(server: Server, request: Request, body: ClassifyBody) -> Classification:
    """Label texts, with the model's own labels or those of the request."""
    del request
    param, texts = body.inputs()
    labels = tuple(body.labels) if body.labels else None
    check_inputs(server, param, texts)
    if labels is not None:
        check_judgements(server, "labels", texts, labels)
    spec = server.catalog.find(body.model) if body.model is not None else None
    if labels is not None and spec is not None and spec.task == "embedding":
        body.refuse_entailment()
        spec = server.model(spec.id, spec.task)
        result = await _similarity(server, spec, texts, labels)
    else:
        spec = text_model(server, body.model)
        job = ClassificationRequest(
            texts,
            labels=labels,
            hypothesis=body.hypothesis_template,
            multi_label=body.multi_label,
            truncate=body.truncate,
            max_tokens=body.max_length,
        )
        with wire_names({"input": param}):
            result = await server.clients.classification.labels.submit(spec.id, job)
    return Classification(_shaped(body, spec.id, result))


async def predict(server: Server, request: Request, body: PredictBody) -> Predictions:
    """Label one input or several, by descending score."""
    del request
    single, inputs = _predict_inputs(body.inputs)
    check_inputs(server, "inputs", inputs)
    spec = text_model(server, body.model)
    job = ClassificationRequest(inputs, truncate=body.truncate)
    with wire_names({"input": "inputs"}):
        result = await server.clients.classification.labels.submit(spec.id, job)
    rows = _ranked(result, raw=body.raw_scores)
    return Predictions(rows[0] if single else rows)


def text_model(server: Server, name: str | None) -> ModelSpec:
    """A classification model that is not the library of fitted classifiers; the first by default.

    Raises ModelNotFoundError, UnsupportedTaskError.
    """
    if name is None:
        specs = server.catalog.of_task("classification")
        name = next((spec.id for spec in specs if spec.engine != "classifiers"), None)
        if name is None:
            raise NoModelForTaskError("classification")
    spec = server.model(name, "classification")
    if spec.engine == "classifiers":
        message = f"'{spec.id}' keeps fitted classifiers: ask one of them at /v1/classifier."
        raise UnsupportedTaskError(message, "model")
    return spec


def check_inputs(server: Server, param: str, texts: Sequence[TextOrPair]) -> None:
    """Raises InvalidInputError when there are too many or too long texts, or empty ones."""
    limits = server.config.limits
    check_count(param, len(texts), limits.max_inputs)
    parts = [part for text in texts for part in ((text,) if isinstance(text, str) else text)]
    check_texts(server, param, parts)
    if not all(parts):
        raise InvalidInputError("A text must not be empty.", param)


def check_judgements(
    server: Server, param: str, texts: Sequence[str], labels: Sequence[str]
) -> None:
    """Raises InvalidInputError: every text is read once with every label, and counts as often."""
    limits = server.config.limits
    if len(texts) * len(labels) > limits.max_inputs:
        message = f"{len(texts)} texts with {len(labels)} labels each are too many; "
        raise InvalidInputError(message + f"the limit is {limits.max_inputs}.", param)
    total = len(labels) * sum(map(len, texts)) + len(texts) * sum(map(len, labels))
    if total > limits.max_total_chars:
        message = f"The texts, once with every label, have {total} characters; "
        raise InvalidInputError(message + f"the limit is {limits.max_total_chars}.", param)


async def _similarity(
    server: Server, spec: ModelSpec, texts: tuple[str, ...], labels: tuple[str, ...]
) -> ClassificationResult:
    """Labels of the request by an embedding model: whose text is closest."""
    if len(set(labels)) < len(labels):
        raise InvalidInputError("'labels' must be different from each other.", "labels")
    job = EmbeddingRequest((*texts, *labels), purpose="classification", truncate=True)
    result = await server.clients.embedding.submit(spec.id, job)
    vectors = result.vectors
    cosines, scores = similarity_scores(vectors[: len(texts)], vectors[len(texts) :])
    return ClassificationResult(labels, cosines, scores, result.usage)


def _predict_inputs(
    wire: str | list[str] | list[list[str]],
) -> tuple[bool, tuple[TextOrPair, ...]]:
    """Whether it is a single input, and the inputs."""
    if isinstance(wire, str):
        return True, (wire,)
    if isinstance(wire[0], str):
        return True, (_text_or_pair([part for part in wire if isinstance(part, str)]),)
    return False, tuple(_text_or_pair(list(entry)) for entry in wire)


def _text_or_pair(parts: Sequence[str]) -> TextOrPair:
    return parts[0] if len(parts) == 1 else (parts[0], parts[1])


def _shaped(
    body: ClassifyBody, model: str, result: ClassificationResult
) -> LabelledTexts | JudgedTexts | ScoredTexts | ClassifiedTexts:
    tokens = result.usage.prompt_tokens
    usage = Usage(prompt_tokens=tokens, total_tokens=tokens)
    if body.texts is not None:
        return LabelledTexts(
            model=model,
            data=list(_text_labels(result, raw=bool(body.raw_scores))),
            total_count=len(result.scores),
            usage=texts_usage(tokens, len(result.scores)),
        )
    if body.labels is not None:
        rows = _ranked(result, raw=bool(body.raw_scores))
        data = [
            Judgement(index=i, prediction=row[0].label, score=row[0].score, predictions=row)
            for i, row in enumerate(rows)
        ]
        return JudgedTexts(model=model, data=data, usage=usage)
    reply_id, now = f"classify-{uuid.uuid4().hex}", int(time.time())
    if body.raw_scores is not None:
        rows = _ranked(result, raw=body.raw_scores)
        return ScoredTexts(id=reply_id, created=now, model=model, data=rows, usage=usage)
    probabilities = [
        Probabilities(
            index=index,
            label=result.labels[int(row.argmax())],
            probs=row.tolist(),
            num_classes=len(result.labels),
        )
        for index, row in enumerate(result.scores)
    ]
    return ClassifiedTexts(id=reply_id, created=now, model=model, data=probabilities, usage=usage)


def _text_labels(result: ClassificationResult, *, raw: bool) -> Iterable[TextLabels]:
    for index, row in enumerate(result.logits if raw else result.scores):
        best = int(row.argmax())
        yield TextLabels(
            index=index,
            label=result.labels[best],
            score=float(row[best]),
            all_scores=dict(zip(result.labels, row.tolist(), strict=True)),
        )


def _ranked(result: ClassificationResult, *, raw: bool) -> list[list[ScoredLabel]]:
    return [ranked(result.labels, row) for row in (result.logits if raw else result.scores)]


def ranked(labels: Sequence[str], row: FloatArray) -> list[ScoredLabel]:
    """Labels by descending score, ties in the model's order."""
    return [
        ScoredLabel(label=labels[place], score=float(row[place]))
        for place in np.argsort(-row, kind="stable").tolist()
    ]


def texts_usage(tokens: int, texts: int) -> TextsUsage:
    """The predecessor's usage, which also counts texts."""
    return TextsUsage(prompt_tokens=tokens, total_tokens=tokens, texts_processed=texts)


ENDPOINTS = (
    *(
        Endpoint(
            "POST", path, classify, "classification", body=ClassifyBody, response=Classification
        )
        for path in ("/v1/classify", "/classify")
    ),
    Endpoint("POST", "/predict", predict, "classification", body=PredictBody, response=Predictions),
)
