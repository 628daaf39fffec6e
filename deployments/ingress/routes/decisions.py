"""POST /v1/decisions: OpenAI's questions about an input, answered by a model of entailment.

Every answer that a question offers becomes a statement, and the model says how far the input
entails it; nothing is generated.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field
from starlette.requests import Request

from deployments.ingress.keep_alive_fields import KeepAliveFields
from deployments.ingress.routes.classification import check_inputs, check_judgements, text_model
from deployments.ingress.schemas import HARD_LIST_LIMIT, Body, LenientBody, ModelName, Reply
from deployments.ingress.server import Endpoint, Server
from deployments.ingress.wire_names import wire_names
from models.errors import InvalidInputError
from models.types.classification import ClassificationRequest

Words = Annotated[str, Field(min_length=1, max_length=32_768)]


class TextPart(Body):
    type: Literal["input_text", "output_text"]
    text: str


Parts = Annotated[list[TextPart], Field(min_length=1, max_length=1024, fail_fast=True)]


class MessageBody(LenientBody):
    """Only its text is read."""

    type: Literal["message"] = "message"
    role: Literal["user", "developer", "system", "assistant"]
    content: str | Parts


Messages = Annotated[
    list[MessageBody], Field(min_length=1, max_length=HARD_LIST_LIMIT, fail_fast=True)
]


class QuestionBody(LenientBody):
    name: Annotated[str, Field(max_length=256)] | None = None
    instructions: Words | Parts

    @property
    def asked(self) -> str:
        return _text_of(self.instructions)


class PredicateBody(QuestionBody):
    """`instructions` are a statement about the input."""

    type: Literal["predicate"]

    def statements(self) -> tuple[str, ...]:
        return (self.asked,)

    def answer(self, probabilities: Sequence[float]) -> Predicate:
        return Predicate(name=self.name, probability=probabilities[0])


class ChoiceBody(LenientBody):
    value: Words | bool
    description: Words | None = None

    @property
    def words(self) -> str:
        said = str(self.value).lower() if isinstance(self.value, bool) else self.value
        return self.description or said


class ChoicesBody(QuestionBody):
    type: Literal["choice"]
    choices: Annotated[list[ChoiceBody], Field(min_length=2, max_length=255, fail_fast=True)]

    def statements(self) -> tuple[str, ...]:
        return tuple(f"{self.asked} {choice.words}" for choice in self.choices)

    def answer(self, probabilities: Sequence[float]) -> Choice:
        best = max(range(len(probabilities)), key=probabilities.__getitem__)
        chance = 1 / len(probabilities)
        return Choice(
            name=self.name,
            choice=self.choices[best].value,
            probabilities=[
                ChoiceProbability(value=choice.value, probability=probability)
                for choice, probability in zip(self.choices, probabilities, strict=True)
            ],
            confidence=max(0.0, (probabilities[best] - chance) / (1 - chance)),
        )


class LevelBody(LenientBody):
    label: Words
    description: Words | None = None


class LevelsBody(QuestionBody):
    """Levels from the lowest, which counts as 0, to the highest."""

    type: Literal["score"]
    levels: Annotated[list[LevelBody], Field(min_length=2, max_length=10, fail_fast=True)]

    def statements(self) -> tuple[str, ...]:
        return tuple(f"{self.asked} {level.description or level.label}" for level in self.levels)

    def answer(self, probabilities: Sequence[float]) -> Score:
        places = range(len(probabilities))
        best = max(places, key=probabilities.__getitem__)
        distance = sum(p * abs(place - best) for place, p in enumerate(probabilities))
        middle = (len(probabilities) - 1) / 2
        chance = sum(abs(place - middle) for place in places) / len(probabilities)
        return Score(
            name=self.name,
            score=sum(place * p for place, p in enumerate(probabilities)),
            probabilities=[
                LevelProbability(value=place, label=level.label, probability=probability)
                for place, (level, probability) in enumerate(
                    zip(self.levels, probabilities, strict=True)
                )
            ],
            confidence=max(0.0, 1 - distance / chance),
        )


Question = Annotated[PredicateBody | ChoicesBody | LevelsBody, Field(discriminator="type")]


class DecisionsBody(KeepAliveFields, LenientBody):
    """OpenAI's request. Inputs of text and messages of text; tool calls and images are refused."""

    model: ModelName
    input: Words | Messages
    questions: Annotated[list[Question], Field(min_length=1, max_length=400, fail_fast=True)]


class Predicate(Reply):
    type: Literal["predicate"] = "predicate"
    name: str | None
    probability: float


class ChoiceProbability(Reply):
    value: str | bool
    probability: float


class Choice(Reply):
    """`confidence` is 0 where the best choice is no likelier than by chance, 1 where it is sure."""

    type: Literal["choice"] = "choice"
    name: str | None
    choice: str | bool
    probabilities: list[ChoiceProbability]
    confidence: float


class LevelProbability(Reply):
    value: int
    label: str
    probability: float


class Score(Reply):
    """`score` is the mean level. `confidence` is 0 where levels are as far apart as by chance."""

    type: Literal["score"] = "score"
    name: str | None
    score: float
    probabilities: list[LevelProbability]
    confidence: float


class InputDetails(Reply):
    cached_tokens: int = 0
    cache_write_tokens: int = 0


class OutputDetails(Reply):
    reasoning_tokens: int = 0


class DecisionUsage(Reply):
    input_tokens: int
    input_tokens_details: InputDetails = InputDetails()
    output_tokens: int = 0
    output_tokens_details: OutputDetails = OutputDetails()
    total_tokens: int


class Decisions(Reply):
    """Answers in the order of the questions."""

    model: str
    answers: list[Predicate | Choice | Score]
    usage: DecisionUsage


async def decide(server: Server, request: Request, body: DecisionsBody) -> Decisions:
    """Answer questions about an input with probabilities."""
    del request
    text = body.input if isinstance(body.input, str) else _joined(body.input)
    statements = [question.statements() for question in body.questions]
    check_inputs(server, "input", [text])
    check_judgements(server, "questions", [text], [s for group in statements for s in group])
    _check_statements(statements)
    spec = text_model(server, body.model)
    jobs = [
        ClassificationRequest(
            (text,),
            labels=group,
            hypothesis="{}",
            multi_label=isinstance(question, PredicateBody),
            truncate=False,
        )
        for question, group in zip(body.questions, statements, strict=True)
    ]
    with wire_names({"labels": "model"}):
        results = await server.clients.classification.labels.submit_all(spec.id, jobs)
    tokens = sum(result.usage.prompt_tokens for result in results)
    return Decisions(
        model=spec.id,
        answers=[
            question.answer(result.scores[0].tolist())
            for question, result in zip(body.questions, results, strict=True)
        ],
        usage=DecisionUsage(input_tokens=tokens, total_tokens=tokens),
    )


def _check_statements(statements: Sequence[tuple[str, ...]]) -> None:
    for index, group in enumerate(statements):
        if not all(map(str.strip, group)):
            raise InvalidInputError("A question says nothing.", f"questions.{index}")
        if len(set(group)) < len(group):
            message = "Two answers to a question read the same: describe them."
            raise InvalidInputError(message, f"questions.{index}")


def _joined(messages: Sequence[MessageBody]) -> str:
    return "\n".join(_text_of(message.content) for message in messages)


def _text_of(content: str | list[TextPart]) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(part.text for part in content)


ENDPOINTS = (
    Endpoint("POST", "/v1/decisions", decide, "decisions", body=DecisionsBody, response=Decisions),
)
