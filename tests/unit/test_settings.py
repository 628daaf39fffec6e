"""The operator's settings: defaults that hold when one value changes, mistakes that are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from config.settings import AppConfig

ROOT = Path(__file__).parents[2]


def test_the_shipped_file_is_valid_and_matches_the_defaults() -> None:
    document = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
    [application] = document["applications"]
    shipped = AppConfig.model_validate(application["args"])
    assert shipped == AppConfig()
    assert document["http_options"]["host"] == "127.0.0.1"


def test_one_changed_value_keeps_the_tasks_other_defaults() -> None:
    config = AppConfig.model_validate({"generation": {"max_replicas": 2}, "ocr": {"threads": 1}})
    assert (config.generation.num_cpus, config.generation.gpu_share) == (0.5, 0.5)
    assert config.ocr.num_gpus == 0


@pytest.mark.parametrize(
    ("settings", "place"),
    [
        ({"limit": {}}, "limit"),
        ({"limits": {"max_inputs": 0}}, "limits.max_inputs"),
        ({"generation": {"gpu_share": 1.5}}, "generation.gpu_share"),
        ({"embedding": {"num_gpus": "all"}}, "embedding.num_gpus"),
        ({"deadlines": {"load_s": -1}}, "deadlines.load_s"),
        ({"models": [{"id": "x"}]}, "models.0.task"),
        ({"ocr": {"min_replicas": 2}}, "ocr"),
        ({"embedding": {"num_gpus": 1.5}}, "embedding"),
    ],
    ids=str,
)
def test_mistakes_are_named(settings: dict[str, Any], place: str) -> None:
    with pytest.raises(ValidationError) as caught:
        AppConfig.model_validate(settings)
    places = [".".join(map(str, error["loc"])) for error in caught.value.errors()]
    assert any(found.startswith(place) for found in places)


def test_directories_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("INFERENCE_WEIGHTS_DIR", str(tmp_path / "w"))
    monkeypatch.setenv("INFERENCE_DATA_DIR", str(tmp_path / "d"))
    config = AppConfig()
    assert (config.weights_dir, config.data_dir) == (tmp_path / "w", tmp_path / "d")
    monkeypatch.delenv("INFERENCE_WEIGHTS_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert AppConfig().weights_dir.is_relative_to(tmp_path / "cache")


def test_a_load_must_give_up_before_the_requests_that_wait_for_it() -> None:
    with pytest.raises(ValidationError, match="load_s"):
        AppConfig.model_validate({"deadlines": {"load_s": 240}})


def test_the_default_resolution_is_one_that_requests_may_ask_for() -> None:
    with pytest.raises(ValidationError, match="max_dpi"):
        AppConfig.model_validate({"documents": {"dpi": 300, "max_dpi": 200}})


def test_replicas_that_could_not_be_placed_are_refused_by_name() -> None:
    with pytest.raises(ValidationError, match="min_replicas must not be above max_replicas"):
        AppConfig.model_validate({"rerank": {"min_replicas": 3, "max_replicas": 2}})
    with pytest.raises(ValidationError, match="num_gpus above 1 must be a whole number"):
        AppConfig.model_validate({"generation": {"num_gpus": 2.5}})
    config = AppConfig.model_validate({"rerank": {"min_replicas": 2, "max_replicas": 2}})
    assert config.rerank.min_replicas == 2
    assert AppConfig.model_validate({"ocr": {"num_gpus": 2}}).ocr.num_gpus == 2


def test_a_tilde_is_the_home_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    keys = tmp_path / "keys.yaml"
    keys.write_text("keys: [{name: a, key: a-key-of-many-letters}]")
    keys.chmod(0o600)
    settings = {
        "catalog": "~/models.yaml",
        "model_roots": ["~/models", "~nobody-of-this-name/x"],
        "weights_dir": "~/weights",
        "data_dir": "~/data",
        "access": {"keys_file": "~/keys.yaml"},
    }
    config = AppConfig.model_validate(settings)
    assert config.catalog == tmp_path / "models.yaml"
    assert config.model_roots == (tmp_path / "models", Path("~nobody-of-this-name/x"))
    assert (config.weights_dir, config.data_dir) == (tmp_path / "weights", tmp_path / "data")
    assert config.access.keys_file == keys
    monkeypatch.setenv("INFERENCE_WEIGHTS_DIR", "~/w")
    monkeypatch.setenv("INFERENCE_DATA_DIR", "~/d")
    config = AppConfig()
    assert (config.weights_dir, config.data_dir) == (tmp_path / "w", tmp_path / "d")
    assert AppConfig(data_dir="s3://bucket/~").data_dir == "s3://bucket/~"
