"""Folders of tiny document models, and the models in them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from models.document_models.families import document_model
from tests.tiny_documents import (
    CORD,
    DOCVQA,
    FAMILIES,
    HEADS,
    RECEIPT,
    RVLCDIP,
    write_donut,
    write_layout,
)


@pytest.fixture(scope="session")
def document_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("documents")
    prompt = "<s_docvqa><s_question>who</s_question><s_answer>"
    layouts = {
        f"{family}-{head}": write_layout(root / family / head, family, head)
        for family in FAMILIES
        for head in HEADS
    }
    return {
        "cord": write_donut(root / "cord", CORD, RECEIPT),
        "docvqa": write_donut(root / "docvqa", DOCVQA, "42</s_answer>", prompt),
        "rvlcdip": write_donut(root / "rvlcdip", RVLCDIP),
        "digits": write_layout(root / "digits", "layoutlm", "TokenClassification", taught=True),
        **layouts,
    }


@pytest.fixture(scope="session")
def document_models(document_folders: dict[str, Path]) -> Iterator[dict[str, Any]]:
    opened = {name: document_model(path, n_threads=1) for name, path in document_folders.items()}
    yield opened
    for model in opened.values():
        model.close()
