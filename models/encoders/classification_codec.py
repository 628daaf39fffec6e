"""Classification requests to token sequences, and logits to scores of labels."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from models.encoders.label_set import LabelSet, Logits, softmax
from models.encoders.rerank_codec import shares
from models.encoders.text_engine import estimate_tokens
from models.encoders.tokenization import Content, TextTokenizer, TokenSequence, check_text
from models.errors import InputTooLongError, InvalidInputError, ModelError
from models.types.classification import ClassificationRequest, ClassificationResult, TextOrPair
from models.types.common import FloatArray, Usage

PLACE = "{}"
"""Where a label goes in a hypothesis."""


@dataclass(frozen=True, slots=True)
class ClassificationCodec:
    """`Codec` of every sequence classifier.

    Zero-shot, every text is paired with the hypothesis of every label, and of a pair that is too
    long only the text is cut. Pairs of the request are cut by the rule of `shares`.
    """

    tokenizer: TextTokenizer
    max_tokens: int
    labels: LabelSet

    def estimate(self, request: ClassificationRequest) -> int:
        texts = sum(min(_size(text), self.max_tokens) for text in request.texts)
        if request.labels is None:
            return texts
        hypotheses = sum(map(estimate_tokens, request.labels))
        return texts * len(request.labels) + hypotheses * len(request.texts)

    def encode(
        self, requests: Sequence[ClassificationRequest]
    ) -> list[list[TokenSequence] | ModelError]:
        """All texts of all sound requests go through the tokenizer in one call."""
        faults = [self._fault(request) for request in requests]
        texts = [
            text
            for request, fault in zip(requests, faults, strict=True)
            if fault is None
            for text in _texts(request)
        ]
        contents = iter(self.tokenizer.contents(texts))
        return [
            fault if fault is not None else self._sequences(request, contents)
            for request, fault in zip(requests, faults, strict=True)
        ]

    def decode(
        self,
        request: ClassificationRequest,
        sequences: list[TokenSequence],
        rows: list[FloatArray],
    ) -> ClassificationResult:
        logits: Logits = np.stack(rows).astype(np.float64)
        if not np.isfinite(logits).all():
            raise ModelError("The model gives no finite score for this input.")
        usage = Usage(prompt_tokens=sum(map(len, sequences)))
        if request.labels is None:
            return _result(self.labels.names, logits, self.labels.scores(logits), usage)
        judged = logits.reshape(len(request.texts), len(request.labels), -1)
        return _result(request.labels, *self._entailed(judged, request), usage)

    def _entailed(self, logits: Logits, request: ClassificationRequest) -> tuple[Logits, Logits]:
        """[texts, labels, classes] to how far each label is entailed, as transformers has it.

        Labels that exclude each other compete by their entailment; else entailment competes with
        contradiction, for every label alone.
        """
        entailment = logits[..., self.labels.entailment]
        if request.multi_label or len(request.labels or ()) == 1:
            contradiction = logits[..., self.labels.contradiction]
            scores = softmax(np.stack([contradiction, entailment], axis=-1))[..., 1]
        else:
            scores = softmax(entailment)
        return entailment, scores

    def _fault(self, request: ClassificationRequest) -> InvalidInputError | None:
        try:
            self._check(request)
        except InvalidInputError as error:
            return error
        return None

    def _check(self, request: ClassificationRequest) -> None:
        if not request.texts:
            raise InvalidInputError("'input' must not be empty.", "input")
        if request.max_tokens is not None and request.max_tokens < 1:
            raise InvalidInputError("'max_length' must be positive.", "max_length")
        for text in request.texts:
            for part in _parts(text):
                check_text(part, "input")
        if request.labels is not None:
            self._check_zero_shot(request, request.labels)

    def _check_zero_shot(self, request: ClassificationRequest, labels: tuple[str, ...]) -> None:
        if self.labels.entailment is None:
            message = "This model has labels of its own and cannot judge those of a request."
            raise InvalidInputError(message, "labels")
        if not labels or len(set(labels)) < len(labels):
            raise InvalidInputError("'labels' must be different from each other.", "labels")
        if not all(isinstance(text, str) for text in request.texts):
            raise InvalidInputError("Pairs cannot be judged by labels of a request.", "labels")
        if request.hypothesis.count(PLACE) != 1:
            message = "'hypothesis_template' must have one {}, for the label."
            raise InvalidInputError(message, "hypothesis_template")
        for text in _hypotheses(request):
            check_text(text, "labels")

    def _sequences(
        self, request: ClassificationRequest, contents: Iterator[Content]
    ) -> list[TokenSequence] | ModelError:
        """What one request asks for; takes one of `contents` for each of its `_texts`."""
        inputs = [[next(contents) for _ in _parts(text)] for text in request.texts]
        hypotheses = [next(contents) for _ in _hypotheses(request)]
        limit = min(self.max_tokens, request.max_tokens or self.max_tokens)
        cut = _Cut(self.tokenizer, limit, truncate=request.truncate)
        try:
            if not hypotheses:
                return [cut.joined(parts) for parts in inputs]
            if request.truncate:  # once: texts are copied for labels that leave them less
                for (text,) in inputs:
                    self.tokenizer.cut(text, limit)
            return [cut.judged(text, label) for (text,) in inputs for label in hypotheses]
        except InvalidInputError as error:
            return error


@dataclass(frozen=True, slots=True)
class _Cut:
    """Contents to sequences of at most `limit` tokens. Raises InvalidInputError."""

    tokenizer: TextTokenizer
    limit: int
    truncate: bool

    def joined(self, parts: list[Content]) -> TokenSequence:
        """One text, or two by the rule of `shares`."""
        room = self._room(sum(map(len, parts)), pair=len(parts) > 1)
        if len(parts) == 1:
            self.tokenizer.cut(parts[0], room)
            return self.tokenizer.single(parts[0])
        first, second = parts
        for part, share in zip(parts, shares(len(first), len(second), room), strict=True):
            self.tokenizer.cut(part, share)
        return self.tokenizer.pair(first, second)

    def judged(self, text: Content, hypothesis: Content) -> TokenSequence:
        """A text and a hypothesis, of which the text is cut."""
        room = self._room(len(text) + len(hypothesis), pair=True) - len(hypothesis)
        if room < 1:
            message = f"A label leaves no room for the text in {self.limit} tokens."
            raise InvalidInputError(message, "labels")
        if room < len(text):  # other labels may leave it more
            text = copy.copy(text)
            self.tokenizer.cut(text, room)
        return self.tokenizer.pair(text, hypothesis)

    def _room(self, tokens: int, *, pair: bool) -> int:
        """Tokens beside the special ones."""
        specials = self.tokenizer.specials(pair=pair)
        if tokens + specials > self.limit and not self.truncate:
            raise InputTooLongError(tokens + specials, self.limit, "input")
        if self.limit <= specials:
            message = f"'max_length' must be above the {specials} special tokens."
            raise InvalidInputError(message, "max_length")
        return self.limit - specials


def _result(
    labels: tuple[str, ...], logits: Logits, scores: Logits, usage: Usage
) -> ClassificationResult:
    return ClassificationResult(labels, logits.astype(np.float32), scores.astype(np.float32), usage)


def _parts(text: TextOrPair) -> tuple[str, ...]:
    return (text,) if isinstance(text, str) else text


def _size(text: TextOrPair) -> int:
    return sum(map(estimate_tokens, _parts(text)))


def _hypotheses(request: ClassificationRequest) -> list[str]:
    """Never by `str.format`, which would let a template look into Python."""
    return [request.hypothesis.replace(PLACE, label) for label in request.labels or ()]


def _texts(request: ClassificationRequest) -> list[str]:
    return [part for text in request.texts for part in _parts(text)] + _hypotheses(request)
