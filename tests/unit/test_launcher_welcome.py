"""What is printed when the server is ready: the commands must be ones that its routes accept."""

from __future__ import annotations

import base64
import json
import shlex
import subprocess
from pathlib import Path
from typing import Any, get_args

import pytest

from config.catalog import Task, load_catalog
from deployments.ingress.app import TASK_ENDPOINTS
from launcher.welcome import example, welcome

URL = "http://127.0.0.1:8021"
MODELS = [
    {"id": "chat-1", "task": "generation"},
    {"id": "vectors", "task": "embedding"},
    {"id": "chat-2", "task": "generation"},
]


def accept(path: str, body: dict[str, Any]) -> None:
    """Raises unless a route takes this body."""
    (endpoint,) = (one for one in TASK_ENDPOINTS if (one.method, one.path) == ("POST", path))
    assert endpoint.body is not None
    endpoint.body.model_validate(body)


@pytest.mark.parametrize("task", sorted({spec.task for spec in load_catalog()} - {"ocr"}))
def test_the_command_of_each_starter_task_is_accepted(task: str) -> None:
    curl, address, option, header, data, body = shlex.split(example(URL, task, "some-model"))
    assert (curl, option, header, data) == ("curl", "-H", "content-type: application/json", "-d")
    assert address.startswith(URL)
    accept(address.removeprefix(URL), json.loads(body))


@pytest.mark.parametrize("size", [10, 300_000])
def test_the_ocr_command_sends_the_image(tmp_path: Path, size: int) -> None:
    """The second is larger than what one argument of a command may be."""
    image = bytes(index % 251 for index in range(size))
    (tmp_path / "page.png").write_bytes(image)
    command, _, curl = example(URL, "ocr", "reader/one").rpartition("| ")
    assert shlex.split(curl)[:2] == ["curl", f"{URL}/v1/ocr"]
    assert curl.endswith(" -d @-")
    run = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, check=True)
    body = json.loads(run.stdout)
    assert body["model"] == "reader/one"
    assert base64.b64decode(body["images"][0]) == image
    accept("/v1/ocr", body)


def test_every_model_is_shown_and_every_task_once() -> None:
    text = welcome(URL, MODELS, 12.34)
    assert f"Ready after 12.3 s: {URL}" in text
    assert [line.split() for line in text.splitlines() if line.split()[1:2] == ["chat-2"]] == [
        ["generation", "chat-2"]
    ]
    commands = [line for line in text.splitlines() if "curl" in line]
    assert ["chat-1" in commands[0], "vectors" in commands[1]] == [True, True]
    assert len(commands) == 2
    assert all("\n" not in example(URL, task, "m") for task in get_args(Task))


def test_where_only_keys_are_answered_it_says_so() -> None:
    text = welcome(URL, [], 1.0)
    assert "Clients need a key." in text
    assert f"curl {URL}/v1/models -H 'authorization: Bearer KEY'" in text
    assert "Served:" not in text
