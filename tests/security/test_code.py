"""What our own code never does, read from its source; and its checks without `assert`."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("config", "deployments", "launcher", "models", "weights")
RUNS_WHAT_IT_READS = {
    "pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "diskcache",
}  # fmt: skip
"""diskcache comes with llama-cpp-python, for a cache on disk that nothing here uses."""
REFUSALS = ("tests/unit/test_weights_headers.py", "tests/unit/test_weights_safety.py")
NEVER_TRUE = {"trust_remote_code", "allow_pickle", "shell"}


@cache
def sources() -> dict[str, ast.Module]:
    files = [ROOT / "graph.py", *(p for name in PACKAGES for p in (ROOT / name).rglob("*.py"))]
    return {str(path.relative_to(ROOT)): ast.parse(path.read_text()) for path in files}


def nodes(kind: type[ast.AST]) -> Iterator[tuple[str, ast.AST]]:
    for name, tree in sources().items():
        yield from ((name, node) for node in ast.walk(tree) if isinstance(node, kind))


def imported() -> set[tuple[str, str]]:
    """(file, module that it imports)."""
    whole = {(name, alias.name) for name, node in nodes(ast.Import) for alias in node.names}  # type: ignore[attr-defined]
    parts = {(name, str(node.module)) for name, node in nodes(ast.ImportFrom)}  # type: ignore[attr-defined]
    return whole | parts


def test_nothing_that_runs_what_it_reads_is_imported() -> None:
    found = imported()
    assert len(found) > 500
    assert not [(f, name) for f, name in found if name.partition(".")[0] in RUNS_WHAT_IT_READS]


def test_no_option_lets_files_run_code() -> None:
    true = [
        (name, node.arg)  # type: ignore[attr-defined]
        for name, node in nodes(ast.keyword)
        if not (isinstance(node.value, ast.Constant) and node.value.value is False)  # type: ignore[attr-defined]
    ]
    assert len(true) > 1000
    assert not [found for found in true if found[1] in NEVER_TRUE]


def test_templates_are_rendered_in_one_place() -> None:
    """With its limits: weights of encoders, rerankers and classifiers bring none that is."""
    files = {name for name, module in imported() if module.partition(".")[0] == "jinja2"}
    assert files
    assert all(name.startswith("models/chat/") for name in files)


def test_no_key_is_compared() -> None:
    """They are looked up by their digest, which nobody can choose: nothing for a clock to tell."""
    compared = [
        ast.unparse(node)
        for name, node in nodes(ast.Compare)
        if name.startswith(("config/access", "deployments/ingress/access/"))
    ]
    assert len(compared) > 5
    assert not [text for text in compared if "digest" in text or "presented ==" in text]


def test_checks_hold_where_asserts_are_not_run() -> None:
    """`python -O`; the asserts of the tests themselves are pytest's."""
    options = ["-q", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestConfigWarning"]
    run = subprocess.run(
        [sys.executable, "-O", "-m", "pytest", *options, *REFUSALS],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stdout[-2000:]
    assert " passed" in run.stdout
