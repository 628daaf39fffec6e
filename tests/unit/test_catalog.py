from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from config.catalog import (
    ENGINE_TASKS,
    OPTIONAL_CATALOG,
    SHIPPED_CATALOG,
    BuiltinSource,
    Catalog,
    CatalogError,
    HubSource,
    Limits,
    ModelSpec,
    PackageFile,
    PackagePartsSource,
    PackageSource,
    PathSource,
    Task,
    load_catalog,
)

BUILTIN = {"kind": "builtin"}


def entry(model_id: str = "a", **fields: Any) -> dict[str, Any]:
    return {"id": model_id, "task": "ocr", "engine": "rapidocr", "source": BUILTIN, **fields}


def load(tmp_path: Path, *models: object) -> Catalog:
    path = tmp_path / "models.yaml"
    path.write_text(yaml.safe_dump({"models": list(models)}))
    return load_catalog(path)


def refusal(tmp_path: Path, *models: object) -> str:
    with pytest.raises(CatalogError) as caught:
        load(tmp_path, *models)
    return str(caught.value)


def package(**fields: Any) -> dict[str, Any]:
    return {
        "kind": "package", "package": "some-model", "version": "1.0", "sha256": "0" * 64,
        "file": {"member": "some_model/m.gguf", "sha256": "1" * 64}, **fields,
    }  # fmt: skip


def parts(**fields: Any) -> dict[str, Any]:
    return {
        "kind": "package_parts", "package": "m-part{n}", "version": "1.0", "parts": 12,
        "member": "m_part{n}/part{nn}.bin", "name": "m.gguf", "size": 10, "sha256": "1" * 64,
        **fields,
    }  # fmt: skip


# --- the shipped files ----------------------------------------------------------------------


def test_the_shipped_catalogue_serves_every_task() -> None:
    assert {spec.task for spec in load_catalog()} == set(get_args(Task))


@pytest.mark.parametrize("labels", [["toxic"], {"toxic": "rudeness"}, {"toxic": ["hate"]}, "hate"])
def test_moderation_labels_lead_to_categories_of_openai(labels: Any) -> None:
    fields = entry(task="classification", engine="toy")
    sound = {"moderation_labels": {"toxic": "harassment", "threat": "harassment/threatening"}}
    spec = ModelSpec.model_validate(fields | {"engine_options": sound})
    assert spec.moderation_labels == sound["moderation_labels"]
    assert ModelSpec.model_validate(fields).moderation_labels == {}
    with pytest.raises(ValidationError, match="self-harm/intent"):
        ModelSpec.model_validate(fields | {"engine_options": {"moderation_labels": labels}})


def test_shipped_and_optional_catalogues_share_no_name() -> None:
    together = load_catalog(SHIPPED_CATALOG).extended(load_catalog(OPTIONAL_CATALOG))
    assert len(list(together)) > len(list(load_catalog()))


@pytest.mark.parametrize("path", [SHIPPED_CATALOG, OPTIONAL_CATALOG], ids=lambda path: path.stem)
def test_every_shipped_entry_fits_its_engine_and_says_what_it_is(path: Path) -> None:
    for spec in load_catalog(path):
        assert spec.task in ENGINE_TASKS[spec.engine]
        assert spec.description
        assert spec.source.kind != "hub", "the shipped models install without a model hub"


# --- faults are named -----------------------------------------------------------------------


def test_an_unknown_key_is_refused_with_the_entry_and_the_key(tmp_path: Path) -> None:
    message = refusal(tmp_path, entry("good"), entry("acme/ocr", contextlength=4))
    assert "models.yaml" in message
    assert "'acme/ocr', contextlength" in message
    assert "good" not in message


def test_an_unknown_key_deep_inside_names_its_place(tmp_path: Path) -> None:
    message = refusal(tmp_path, entry("deep", limits={"context": 1}))
    assert "model 'deep', limits.context" in message


def test_an_entry_without_id_is_named_by_its_position(tmp_path: Path) -> None:
    nameless = {key: value for key, value in entry().items() if key != "id"}
    assert "model number 2, id: Field required" in refusal(tmp_path, entry(), nameless)


def test_every_fault_of_a_file_is_reported_at_once(tmp_path: Path) -> None:
    message = refusal(tmp_path, entry("one", task="sing"), entry("two", colour="red"))
    assert "'one', task" in message
    assert "'two', colour" in message


@pytest.mark.parametrize(
    "other", [entry("a"), entry("b", aliases=["a"]), entry("b", aliases=["c", "c"])]
)
def test_a_name_taken_twice_is_refused(tmp_path: Path, other: dict[str, Any]) -> None:
    message = refusal(tmp_path, entry("a"), other)
    assert "already names" in message


def test_extending_cannot_take_a_name(tmp_path: Path) -> None:
    catalog = load(tmp_path, entry("a"))
    with pytest.raises(CatalogError, match="'a' of model 'b' already names 'a'"):
        catalog.extended([ModelSpec.model_validate(entry("b", aliases=["a"]))])


@pytest.mark.parametrize(
    "model_id", ["", " a", "two words", "../up", "/abs", "a\nb", "a\0b", "a\\b", "a" * 129, "$(id)"]
)
def test_ids_that_are_no_ids_are_refused(tmp_path: Path, model_id: str) -> None:
    assert ", id: " in refusal(tmp_path, entry(model_id))


def test_an_engine_that_does_not_serve_the_task_is_refused(tmp_path: Path) -> None:
    message = refusal(tmp_path, entry("x", task="generation"))
    assert "model 'x'" in message
    assert "engine 'rapidocr' does not serve task 'generation'" in message


@pytest.mark.parametrize(
    ("source", "key"),
    [
        (package(sha256="0" * 63), "sha256"),
        (package(sha256="A" * 64), "sha256"),
        (package(version="1.0\n--index-url=x"), "version"),
        (package(package="a b"), "package"),
        (package(package="a --find-links=x"), "package"),
        (package(file={"member": "m/", "sha256": "1" * 64}), "file"),
        (package(file={"member": "m", "digest_of": "x", "sha256": "1" * 64}), "file"),
        (parts(parts=0), "parts"),
        (parts(name="../m.gguf"), "name"),
        (parts(package="no-number"), "package"),
        (parts(member="no-number"), "member"),
        ({"kind": "hub", "repo": "no-owner"}, "repo"),
        ({"kind": "hub", "repo": "a/../b"}, "repo"),
        ({"kind": "hub", "repo": "../b"}, "repo"),
        ({"kind": "hub", "repo": "a/b", "revision": "refs/../../x"}, "revision"),
        ({"kind": "ftp"}, "source"),
        ({"kind": "path"}, "path"),
    ],
)
def test_a_bad_source_is_refused_by_key(tmp_path: Path, source: dict[str, Any], key: str) -> None:
    message = refusal(tmp_path, entry("x", task="generation", engine="llama_cpp", source=source))
    assert message.count("model 'x'") == 1
    assert key in message.partition("model 'x', ")[2].partition(": ")[0]


@pytest.mark.parametrize(
    "text", ["models: [", "- a\n- b\n", "", "models: 3\n", "modles: []\n", "models: 2027-13-01\n"]
)
def test_a_file_that_is_no_catalogue_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(CatalogError, match=r"broken\.yaml"):
        load_catalog(path)


def test_a_missing_file_is_a_catalogue_error(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"none\.yaml cannot be read"):
        load_catalog(tmp_path / "none.yaml")


# --- look-up --------------------------------------------------------------------------------


def test_models_are_found_by_id_alias_and_task(tmp_path: Path) -> None:
    catalog = load(tmp_path, entry("a", aliases=["x/y"]), entry("b", task="ocr", engine="toy"))
    by_alias = catalog.find("x/y")
    assert by_alias is not None
    assert by_alias.id == "a"
    assert catalog.find("nope") is None
    assert [spec.id for spec in catalog.of_task("ocr")] == ["a", "b"]


def test_parts_are_numbered_with_and_without_a_leading_zero() -> None:
    assert PackagePartsSource.numbered("p{n}/d{nn}", 3) == "p3/d03"
    assert PackagePartsSource.numbered("p{n}/d{nn}", 12) == "p12/d12"


# --- docs/models.md -------------------------------------------------------------------------

DOCS = (Path(__file__).parents[2] / "docs" / "models.md").read_text()


def table_below(heading: str) -> list[list[str]]:
    """Cells of the first table of a section, without its head."""
    section = re.split(
        r"^#+ ", DOCS.split(f"### {heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE
    )
    lines = [line for line in section[0].splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


@pytest.mark.parametrize(
    "entry_type",
    [
        ModelSpec, Limits, PathSource, HubSource, PackageSource, PackageFile, PackagePartsSource,
        BuiltinSource,
    ],
)  # fmt: skip
def test_every_key_is_documented(entry_type: type[BaseModel]) -> None:
    documented = {row[0].strip("`"): row[1] for row in table_below(entry_type.__name__)}
    assert documented == {
        name: "yes" if field.is_required() else "no"
        for name, field in entry_type.model_fields.items()
        if name != "kind"
    }


def test_every_engine_is_documented_with_its_tasks() -> None:
    documented = {
        row[0].strip("`"): set(re.findall(r"\w+", row[1])) for row in table_below("Engines")
    }
    assert documented == ENGINE_TASKS


def test_the_documented_entries_are_valid(tmp_path: Path) -> None:
    examples = re.findall(r"```yaml\n(.*?)```", DOCS, flags=re.DOTALL)
    kinds = []
    for text in examples:
        path = tmp_path / "models.yaml"
        path.write_text(text)
        kinds += [spec.source.kind for spec in load_catalog(path)]
    assert sorted(set(kinds)) == ["hub", "package", "path"]


def test_a_quantisation_beside_the_repository() -> None:
    short = HubSource.model_validate({"kind": "hub", "repo": "unsloth/Qwen3-1.7B-GGUF:Q4_K_M"})
    long = HubSource(kind="hub", repo="unsloth/Qwen3-1.7B-GGUF", file=":Q4_K_M")
    assert short == long
    assert HubSource.model_validate(short.model_dump()) == short


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"repo": "a/b:"}, "quantisation"),
        ({"repo": "a/b:../c"}, "quantisation"),
        ({"repo": "a/b:Q8_0", "file": ":Q4_0"}, "'file' must not name another"),
    ],
)
def test_a_quantisation_that_makes_no_sense(source: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HubSource.model_validate({"kind": "hub", **source})
