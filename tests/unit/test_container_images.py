"""deploy/docker: linted, and made of what is in the repository. They cannot be built offline."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import ray

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "deploy" / "docker").glob("*.Dockerfile"))
COMMAND = re.compile(r"^(?P<name>[A-Z]+)\s+(?P<rest>.*)$")
PINNED = re.compile(r"^[\w./\-]+:\d+\.\d+\.\d+[\w.\-]*$")


def commands(path: Path) -> list[tuple[str, str]]:
    """Instruction and arguments, continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", path.read_text(), flags=re.MULTILINE)
    matches = (COMMAND.match(line) for line in text.replace("\\\n", " ").splitlines())
    return [(match["name"], match["rest"].strip()) for match in matches if match]


def arguments_of(path: Path, name: str) -> list[str]:
    return [rest for command, rest in commands(path) if command == name]


def copied(path: Path) -> list[str]:
    sources = [rest.split() for rest in arguments_of(path, "COPY")]
    return [name for *names, _ in sources for name in names if not names[0].startswith("--from")]


def test_there_is_one_for_cpus_and_one_for_cuda() -> None:
    assert [path.name for path in FILES] == ["cpu.Dockerfile", "cuda.Dockerfile"]


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_the_linter_has_nothing_to_say(path: Path) -> None:
    linter = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if linter is None:
        pytest.skip("hadolint is not packaged for this platform")
    run = subprocess.run([linter, path], capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (0, "")


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_what_is_copied_is_there_and_sent(path: Path) -> None:
    sent = {
        line[1:]
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    names = copied(path)
    assert set(names) == sent
    assert all((ROOT / name).exists() for name in names)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_every_package_of_the_project_is_copied(path: Path) -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = {name.partition(".")[0] for name in project["tool"]["setuptools"]["packages"]}
    assert packages <= set(copied(path))


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_the_image_is_pinned_small_and_not_roots(path: Path) -> None:
    bases = [rest.split()[0] for rest in arguments_of(path, "FROM")]
    assert len(bases) == 2
    assert all(PINNED.match(base) for base in bases)
    assert arguments_of(path, "USER") == ["10001:10001"]
    assert "http://127.0.0.1:8000/health" in arguments_of(path, "HEALTHCHECK")[0]


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_it_runs_what_make_serve_runs(path: Path) -> None:
    assert arguments_of(path, "CMD") == ['["python", "-m", "launcher"]']
    assert "-m launcher" in (ROOT / "Makefile").read_text()
    assert arguments_of(path, "EXPOSE") == ["8000"]


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_it_listens_outside_of_loopback(path: Path) -> None:
    """The substitution finds the line of serve_config.yaml that it is meant for, and no other."""
    [command] = [rest for rest in arguments_of(path, "RUN") if rest.startswith("sed")]
    found = re.search(r"'s/(.*)/(.*)/'", command)
    assert found is not None
    pattern, replacement = found.groups()
    text, count = re.subn(
        pattern, replacement, (ROOT / "serve_config.yaml").read_text(), flags=re.MULTILINE
    )
    assert count == 1
    assert "\n  host: 0.0.0.0\n" in text


def test_the_images_differ_in_cuda_only() -> None:
    cpu, cuda = (path.read_text().partition("WORKDIR /app\nCOPY --from")[2] for path in FILES)
    assert cpu == cuda


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_what_is_downloaded_and_made_outlives_the_container(path: Path) -> None:
    [volume] = arguments_of(path, "VOLUME")
    [values] = [value for value in arguments_of(path, "ENV") if "HF_HOME" in value]
    places = dict(pair.split("=", 1) for pair in values.split())
    for name in ("INFERENCE_WEIGHTS_DIR", "INFERENCE_DATA_DIR", "HF_HOME"):
        assert places[name].startswith(f"{volume}/")


def test_nodes_of_both_images_join_one_cluster() -> None:
    """Their Python differs in its patch version, for which Ray would refuse a node by default."""
    cpu, cuda = ([value.split() for value in arguments_of(path, "ENV")] for path in FILES)
    assert cpu == cuda
    assert "RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL=minor" in cpu[0]
    utilities = Path(ray.__file__).parent / "_private" / "utils.py"
    assert '"RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL"' in utilities.read_text(), "Ray has renamed it"


def test_the_guide_runs_what_it_builds() -> None:
    guide = (ROOT / "docs" / "cluster.md").read_text()
    built = re.findall(r"^docker build .* -t (\S+) \.$", guide, flags=re.MULTILINE)
    run = re.findall(r"^docker run (?:.*\\\n)* .* (\S+)$", guide, flags=re.MULTILINE)
    assert len(built) == len(run) == len(FILES)
    assert run == built
    assert [("--gpus" in block) for block in guide.split("docker run ")[1:]] == [False, True]
