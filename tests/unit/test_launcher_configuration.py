"""What the launcher reads from serve_config.yaml, and what it refuses before Ray starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from launcher.__main__ import ROOT, main
from launcher.configuration import read_config, require_keys
from launcher.errors import LaunchError

OURS = {"name": "inference", "import_path": "graph:app"}
ADDRESS = "applications: [{{import_path: x}}]\nhttp_options: {{{}: {}}}"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "serve.yaml"


def write(path: Path, **keys: Any) -> Path:
    path.write_text(yaml.safe_dump({"applications": [OURS], **keys}))
    return path


def refusal(path: Path) -> str:
    with pytest.raises(LaunchError) as caught:
        read_config(path)
    return str(caught.value)


def test_the_shipped_file_is_right() -> None:
    document = read_config(ROOT / "serve_config.yaml")
    assert document["http_options"] == {"host": "127.0.0.1", "port": 8000}


def test_loopback_where_the_file_names_no_host(config: Path) -> None:
    assert read_config(write(config))["http_options"] == {"host": "127.0.0.1", "port": 8000}
    write(config, http_options={"host": None, "port": None})
    assert read_config(config)["http_options"] == {"host": "127.0.0.1", "port": 8000}


def test_the_chosen_port_wins_and_the_rest_stays(config: Path) -> None:
    options = {"host": "0.0.0.0", "port": 9, "keep_alive_timeout_s": 5}  # noqa: S104
    write(config, http_options=options, proxy_location="EveryNode")
    assert read_config(config)["http_options"]["port"] == 9
    document = read_config(config, 8123)
    assert document["http_options"] == options | {"port": 8123}
    assert document["proxy_location"] == "EveryNode"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("applications: [", "is not YAML"),
        ("- a list", "has no 'applications'"),
        ("applications: []", "has no 'applications'"),
        ("applications: 5", "has no 'applications'"),
        ("", "has no 'applications'"),
        ("applications: [graph:app]", "application 0 is not a mapping"),
        ("applications: [{import_path: x}]\nhttp_options: 8000", "'http_options' is not a mapping"),
        (ADDRESS.format("port", "'8000'"), "'http_options.port' is not a number"),
        (ADDRESS.format("port", "true"), "'http_options.port' is not a number"),
        (ADDRESS.format("port", "0"), "'http_options.port' is not a number"),
        (ADDRESS.format("port", "65536"), "'http_options.port' is not a number"),
        (ADDRESS.format("host", "127"), "'http_options.host' is no address"),
    ],
)
def test_files_that_cannot_be_meant(config: Path, content: str, reason: str) -> None:
    config.write_text(content)
    assert refusal(config).startswith("serve.yaml")
    assert reason in refusal(config)


def test_a_file_that_is_not_there(config: Path) -> None:
    assert refusal(config) == "serve.yaml cannot be read: No such file or directory."


def test_every_wrong_setting_is_named_with_its_place(config: Path) -> None:
    args = {"ocr": {"num_cpu": 1}, "deadlines": {"load_s": -1}}
    write(config, applications=[OURS | {"args": args}])
    lines = sorted(refusal(config).splitlines())
    assert lines[0].startswith("serve.yaml: args.deadlines.load_s: Input should be greater")
    assert lines[1] == "serve.yaml: args.ocr.num_cpu: Extra inputs are not permitted"


def test_a_wrong_catalogue_is_named(config: Path, tmp_path: Path) -> None:
    catalog = tmp_path / "models.yaml"
    catalog.write_text("models: [{id: x}]")
    write(config, applications=[OURS | {"args": {"catalog": str(catalog)}}])
    assert refusal(config).startswith("serve.yaml: models.yaml: model 'x', task: Field required")


def test_other_applications_are_not_ours_to_check(config: Path) -> None:
    other = {"name": "other", "import_path": "other:app", "args": {"anything": 1}}
    assert read_config(write(config, applications=[OURS, other]))["applications"][1] == other


def test_the_command_says_why_and_exits_with_1(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(config, applications=[OURS | {"args": {"ocr": {"num_cpu": 1}}}])
    assert main(["--config", str(config)]) == 1
    assert "args.ocr.num_cpu" in capsys.readouterr().err


@pytest.mark.parametrize("port", ["0", "65536", "-1", "http"])
def test_ports_that_do_not_exist_exit_with_2(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([f"--port={port}"])
    assert caught.value.code == 2
    assert "--port" in capsys.readouterr().err


def listening_on(host: str, **access: str) -> dict[str, Any]:
    ours = OURS | {"args": {"access": access}}
    return {"applications": [ours], "http_options": {"host": host, "port": 8000}}


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_this_machine_needs_no_key(host: str) -> None:
    require_keys(listening_on(host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "server.example"])  # noqa: S104
def test_others_need_one(host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INFERENCE_API_KEYS", raising=False)
    with pytest.raises(LaunchError, match=f"reaches {host} could use .* or start it with --insec"):
        require_keys(listening_on(host))
    keys = tmp_path / "keys.yaml"
    keys.write_text("keys: [{name: one, key: 0123456789abcdef}]")
    keys.chmod(0o600)
    require_keys(listening_on(host, keys_file=str(keys)))
    monkeypatch.setenv("INFERENCE_API_KEYS", "0123456789abcdef")
    require_keys(listening_on(host))
    monkeypatch.setenv("INFERENCE_API_KEYS", "short")
    with pytest.raises(LaunchError, match="INFERENCE_API_KEYS: entry 1"):
        require_keys(listening_on(host))


def test_an_open_server_has_to_be_asked_for(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("INFERENCE_API_KEYS", raising=False)
    write(config, http_options={"host": "198.51.100.7"})
    assert main(["--config", str(config)]) == 1
    assert "--insecure" in capsys.readouterr().err
    assert main(["--config", str(config), "--insecure"]) == 1
    assert "does not have that address" in capsys.readouterr().err
