"""Who may import what: each folder knows one technology."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HTTP = {"starlette", "fastapi", "uvicorn", "openai", "cohere"}
ENGINES = {"torch", "transformers", "llama_cpp", "onnxruntime", "sentence_transformers", "rapidocr"}
FORBIDDEN: dict[str, set[str]] = {
    "config": {"ray", "numpy", "deployments", "models", "weights", *HTTP, *ENGINES},
    "models": {"ray", "pydantic", "config", "deployments", "weights", *HTTP},
    "weights": {"ray", "deployments", *HTTP, *ENGINES},
    "deployments": {*HTTP, *ENGINES},
    "deployments/ingress": {"weights", *ENGINES},
    "launcher": {"models", "deployments", "weights", *HTTP, *ENGINES},
    "graph.py": {"models", "weights", *HTTP, *ENGINES},
}
RAY_IN_INGRESS = {"deployments/ingress/ingress.py"}
"""The deployment itself; everything else in the ingress runs without Ray."""


def imports_of(path: Path) -> dict[str, int]:
    """Every imported module, absolute name -> line."""
    found = {}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name: node.lineno for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found[node.module] = node.lineno
    return found


def files_of(folder: str) -> list[Path]:
    path = ROOT / folder
    if path.is_file():
        return [path]
    files = sorted(path.rglob("*.py"))
    inner = ROOT / "deployments" / "ingress"
    return [f for f in files if folder != "deployments" or inner not in f.parents]


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_folder_imports_only_what_it_knows(folder: str) -> None:
    files = files_of(folder)
    assert files, f"{folder} is empty"
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {module}"
        for path in files
        for module, line in imports_of(path).items()
        if module.partition(".")[0] in FORBIDDEN[folder]
    ]
    assert not wrong


def test_the_ingress_knows_ray_in_one_file_only() -> None:
    files = {
        str(path.relative_to(ROOT))
        for path in files_of("deployments/ingress")
        if any(module.partition(".")[0] == "ray" for module in imports_of(path))
    }
    assert files == RAY_IN_INGRESS


def test_the_shared_vocabulary_imports_nothing_else_of_ours() -> None:
    files = [ROOT / "models" / "errors.py", *(ROOT / "models" / "types").glob("*.py")]
    imported = {name for path in files for name in imports_of(path) if name.startswith("models")}
    assert all(name.startswith(("models.types.", "models.errors")) for name in imported)


def test_nothing_reads_the_environment_outside_config() -> None:
    readers = [
        str(path.relative_to(ROOT))
        for folder in ("models", "deployments", "weights")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if "os.environ.get" in path.read_text() or "os.getenv" in path.read_text()
    ]
    assert not readers


def test_graph_and_ingress_load_no_engine() -> None:
    """Also not through what they import: each of these would cost the ingress its lean start."""
    code = "import sys, graph; print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert not {"torch", "transformers", "llama_cpp", "onnxruntime", "sklearn", "rapidocr"} & set(
        run.stdout.split()
    )


def test_every_package_is_installed() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    roots = {name.partition(".")[0] for name in settings["packages"]}
    there = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for root in roots
        for path in (ROOT / root).rglob("__init__.py")
    }
    assert there == set(settings["packages"])


def test_every_data_file_is_installed() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    there = {
        package: {path.name for path in (ROOT / package.replace(".", "/")).iterdir()}
        for package in settings["packages"]
    }
    data = {
        package: {name for name in names if name.endswith((".yaml", ".cfg", ".html", ".json"))}
        for package, names in there.items()
    }
    listed = {package: set(names) for package, names in settings["package-data"].items()}
    assert {package: names for package, names in data.items() if names} == listed


def test_nothing_that_changes_is_global() -> None:
    """What a module assigns to a name in lower case is a logger, a context variable or an alias."""
    containers = (ast.Set, ast.Dict, ast.List, ast.SetComp, ast.DictComp, ast.ListComp)
    makers = {"set", "dict", "list", "deque", "defaultdict", "Counter", "Lock", "Condition"}

    def changes(value: ast.expr | None) -> bool:
        name = value.func if isinstance(value, ast.Call) else None
        made = getattr(name, "id", getattr(name, "attr", None))
        return isinstance(value, containers) or made in makers

    found = []
    for folder in ("config", "deployments", "launcher", "models", "weights"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.parse(path.read_text()).body:
                targets = getattr(node, "targets", [getattr(node, "target", None)])
                names = [target.id for target in targets if isinstance(target, ast.Name)]
                if changes(getattr(node, "value", None)) and not all(map(str.isupper, names)):
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno} {names}")
    assert not found
