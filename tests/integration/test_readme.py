"""The commands of the documents, run as they are written."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import csv, parquet

from tests.documents import pdf, text_page
from tests.integration.conftest import ROOT, RunningServer
from tests.rendered_pages import encoded, page

BLOCK = re.compile(r"```bash\n(.*?)```", flags=re.DOTALL)
DOCUMENTED_URL = "http://127.0.0.1:8000"


def blocks(path: Path) -> list[str]:
    return [block.strip() for block in BLOCK.findall(path.read_text())]


def curl_blocks() -> list[str]:
    paths = (ROOT / "README.md", ROOT / "docs" / "api.md")
    return [block for path in paths for block in blocks(path) if block.startswith("curl ")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the files lie that the commands send."""
    folder = tmp_path_factory.mktemp("files")
    picture = encoded(page(["Invoice 2041", "Lamp 19.00"]))
    (folder / "scan.png").write_bytes(picture)
    (folder / "invoice.png").write_bytes(picture)
    (folder / "report.pdf").write_bytes(pdf([text_page(["Annual report"])]))
    rows = pa.table({"load": [1.0, 1.1, 0.9, 1.2, 9.0], "heat": [20.0, 21.0, 19.5, 20.5, 90.0]})
    csv.write_csv(rows, folder / "rows.csv")
    parquet.write_table(rows, folder / "rows.parquet")
    return folder


@pytest.mark.parametrize("block", curl_blocks(), ids=lambda block: block.split()[1][-32:])
def test_curl_commands(block: str, server: RunningServer, folder: Path) -> None:
    assert DOCUMENTED_URL in block
    script = block.replace(DOCUMENTED_URL, server.url).replace(
        "curl ", "curl -sS --fail-with-body "
    )
    run = subprocess.run(
        ["bash", "-ec", script], cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stdout + run.stderr
    decoder, rest = json.JSONDecoder(), run.stdout.strip()
    answers = 0
    while rest.startswith(("{", "[")):
        answer, end = decoder.raw_decode(rest)
        assert "error" not in answer
        rest, answers = rest[end:].strip(), answers + 1
    elsewhere = block.count(" -o ") + block.count("accept: text/csv")
    assert answers == block.count("curl ") - elsewhere


def test_there_are_commands_to_run() -> None:
    assert len(curl_blocks()) >= 4


def test_the_two_commands_do_what_the_readme_says() -> None:
    commands = [block for block in blocks(ROOT / "README.md") if block.startswith("make ")]
    assert commands == ["make serve", "make test"]
    does = {"make serve": "-m launcher", "make test": "-m pytest"}
    for command, expected in does.items():
        assert expected in what_make_would_run(*command.split()[1:])


def test_make_serve_leaves_the_port_to_the_configuration_unless_it_is_told() -> None:
    assert "--port" not in what_make_would_run("serve")
    assert "-m launcher --port 9000" in what_make_would_run("serve", "PORT=9000")
    assert "-m launcher --port 9000" in what_make_would_run("serve", PORT="9000")


def what_make_would_run(*arguments: str, **variables: str) -> str:
    without = {name: value for name, value in os.environ.items() if name != "PORT"}
    run = subprocess.run(
        ["make", "-n", *arguments], cwd=ROOT, env={**without, **variables},
        capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return run.stdout
