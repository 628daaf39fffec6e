"""Ports that are taken, and those that are free."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.__main__ import main
from launcher.errors import LaunchError
from launcher.ports import free_ports, require_free

LOOPBACK = "127.0.0.1"


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server((LOOPBACK, 0)) as listener:
        yield listener.getsockname()[1]


def test_a_taken_port_is_refused_with_what_to_do(taken: int) -> None:
    with pytest.raises(LaunchError) as caught:
        require_free(LOOPBACK, taken)
    message = f"Port {taken} on {LOOPBACK} is in use by another program."
    assert str(caught.value) == f"{message} Choose another: make serve PORT=8001"


def test_a_taken_port_ends_the_command_with_1(
    taken: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--port", str(taken)]) == 1
    assert f"Port {taken}" in capsys.readouterr().err


def test_free_ports_are_none_that_somebody_takes_by_chance() -> None:
    linux_gives, ray_gives = range(32_768, 61_000), range(10_002, 20_000)
    assert not {*linux_gives, *ray_gives} & set(free_ports(8))


def test_a_port_that_is_taken_is_not_given(monkeypatch: pytest.MonkeyPatch, taken: int) -> None:
    monkeypatch.setattr("launcher.ports.QUIET", [taken] * 50 + [free_ports(1)[0]])
    assert taken not in free_ports(1)


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(LaunchError, match="does not have that address"):
        require_free("198.51.100.7", 8000)


def test_a_free_port_stays_free(tmp_path: Path) -> None:
    port = free_ports(1)[0]
    require_free(LOOPBACK, port)
    require_free(LOOPBACK, port)
    with socket.create_server((LOOPBACK, port)):
        pass


def test_free_ports_differ() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    for port in ports:
        require_free(LOOPBACK, port)
