"""What a Donut checkpoint can do, by the tokens that were added to its tokenizer for the purpose.

Training adds a pair of tokens for each field (`<s_total>`, `</s_total>`) and one without an end for
the task (`<s_cord-v2>`), which the decoder starts with. Questions are the field `question`, their
answers `answer`; a class is one token (`<invoice/>`) in the field `class`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

from models.errors import ModelLoadError
from models.types.pages import DocumentTask

OPENING = re.compile(r"<s_(.+)>")
CATEGORY = re.compile(r"<([^/<>]+)/>")
STRUCTURE = re.compile(r"</?s_.+>")
SEPARATOR = "<sep/>"
NO_CLASSES = frozenset({SEPARATOR, "<yes/>", "<no/>"})
PRETRAINING = frozenset({"<s_iitcdip>", "<s_synthdog>"})
"""Tasks of the base model, whose tokens every checkpoint keeps."""
QUESTION = "{question}"


@dataclass(frozen=True, slots=True)
class DonutTokens:
    """A checkpoint's tokens for structure; `start` is what its decoder starts with by default."""

    added: frozenset[str]
    start: str = ""

    @property
    def fields(self) -> frozenset[str]:
        names = {match[1] for match in map(OPENING.fullmatch, self.added) if match}
        return frozenset(name for name in names if f"</s_{name}>" in self.added)

    @property
    def classes(self) -> dict[str, str]:
        """Token -> name of the class."""
        found = map(CATEGORY.fullmatch, sorted(self.added - NO_CLASSES))
        return {match[0]: match[1] for match in found if match}

    @property
    def task_start(self) -> str:
        """The token of the task. ModelLoadError where it could be one of several."""
        opening = {token for token in self.added if OPENING.fullmatch(token)}
        tasks = sorted(opening - PRETRAINING - {f"<s_{name}>" for name in self.fields})
        if len(tasks) > 1:
            message = f"the decoder may start with any of {', '.join(tasks)}: "
            raise ModelLoadError(message + "say which in the engine option 'prompts'")
        return tasks[0] if tasks else self.start


def prompts_of(tokens: DonutTokens, given: Mapping[str, str] | None) -> dict[DocumentTask, str]:
    """What the decoder starts with, for each task that the checkpoint was trained for.

    `given` (task -> prompt, with "{question}" in that of vqa) replaces what the tokens tell. Raises
    ModelLoadError.
    """
    if given is None:
        task = _task_of(tokens)
        return {task: _prompt(tokens.task_start, task)}
    prompts: dict[DocumentTask, str] = {
        task: given[task] for task in get_args(DocumentTask) if task in given
    }
    if not prompts or len(prompts) < len(given):
        raise ModelLoadError(f"'prompts' are of {', '.join(get_args(DocumentTask))}")
    if "vqa" in prompts and QUESTION not in prompts["vqa"]:
        raise ModelLoadError(f"the prompt of vqa has no '{QUESTION}'")
    if "classification" in prompts and not tokens.classes:
        raise ModelLoadError("the tokenizer has no tokens of classes")
    return prompts


def _task_of(tokens: DonutTokens) -> DocumentTask:
    fields = tokens.fields
    if {"question", "answer"} <= fields:
        return "vqa"
    if "class" in fields and tokens.classes:
        return "classification"
    if fields:
        return "extraction"
    raise ModelLoadError(
        "the tokenizer has no tokens of fields, answers or classes: a model that writes plain text "
        "is served as one of the task ocr"
    )


def _prompt(start: str, task: DocumentTask) -> str:
    if task == "vqa":
        return f"{start}<s_question>{QUESTION}</s_question><s_answer>"
    return f"{start}<s_class>" if task == "classification" else start
