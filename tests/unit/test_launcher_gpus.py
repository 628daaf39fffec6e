"""How many GPUs Ray is told of."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import ray

from launcher import __main__ as launcher
from launcher.configuration import Document
from launcher.errors import LaunchError
from launcher.ports import free_ports
from launcher.ray_server import RayServer


@pytest.mark.parametrize(("options", "expected"), [([], None), (["--num-gpus=1"], 1)])
def test_the_operator_may_name_what_ray_does_not_find(
    monkeypatch: pytest.MonkeyPatch, options: list[str], expected: int | None
) -> None:
    told: list[int | None] = []

    def init(**settings: Any) -> None:
        told.append(settings["num_gpus"])
        raise LaunchError("enough")

    class Started(RayServer):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            self.start()

    def unchanged(document: Document, folder: Path) -> Document:
        return document

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(launcher, "RayServer", Started)
    monkeypatch.setattr(launcher, "own_foreground_group", nullcontext)
    monkeypatch.setattr(launcher, "_fronted", lambda document, folder: (None, document))
    monkeypatch.setattr(launcher, "_prepared", unchanged)
    assert launcher.main([f"--port={free_ports(1)[0]}", *options]) == 1
    assert told == [expected]


@pytest.mark.parametrize("number", ["-1", "all"])
def test_numbers_that_make_no_sense_exit_with_2(
    number: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        launcher.main([f"--num-gpus={number}"])
    assert caught.value.code == 2
    assert "--num-gpus" in capsys.readouterr().err
