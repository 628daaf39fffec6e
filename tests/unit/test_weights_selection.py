from __future__ import annotations

import pytest

from models.errors import ModelLoadError
from weights.selection import select

REPOSITORY = [
    "README.md",
    "config.json",
    "m-BF16.gguf",
    "m-IQ4_XS.gguf",
    "m-Q4_K_S.gguf",
    "m-Q5_K_M.gguf",
    "m-Q8_0.gguf",
    "m.Q4_K_M.gguf",
    "m-UD-Q4_K_XL.gguf",
    "mmproj-F16.gguf",
]


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (REPOSITORY, "m.Q4_K_M.gguf"),
        (["m-Q5_K_M.gguf", "m-Q4_K.gguf"], "m-Q4_K.gguf"),
        (["m-Q8_0.gguf", "m-Q5_K.gguf"], "m-Q5_K.gguf"),
        (["m-F16.gguf", "m-q8_0.gguf"], "m-q8_0.gguf"),
        (["m-IQ4_K.gguf", "m-Q8_0.gguf"], "m-Q8_0.gguf"),
        (["Q4_K_M/m.gguf", "Q8_0/m.gguf"], "Q4_K_M/m.gguf"),
        (["b-TQ1_0.gguf", "a-TQ2_0.gguf"], "a-TQ2_0.gguf"),
        (["model.gguf", "imatrix.gguf", "mmproj-m-Q8_0.gguf"], "model.gguf"),
        (["model.gguf", "mmproj/m-Q8_0.gguf"], "model.gguf"),
    ],
)
def test_the_best_quantisation_is_chosen(names: list[str], chosen: str) -> None:
    selection = select(names, "llama_cpp", None)
    assert list(selection.files.values()) == [chosen]
    assert selection.entry == chosen.rpartition("/")[2]


@pytest.mark.parametrize(
    ("file", "chosen"),
    [
        (":Q8_0", "m-Q8_0.gguf"),
        (":q5_k_m", "m-Q5_K_M.gguf"),
        (":UD-Q4_K_XL", "m-UD-Q4_K_XL.gguf"),
        (":bf16", "m-BF16.gguf"),
        ("m-IQ4_XS.gguf", "m-IQ4_XS.gguf"),
    ],
)
def test_a_named_quantisation_or_file_is_taken(file: str, chosen: str) -> None:
    assert list(select(REPOSITORY, "llama_cpp", file).files.values()) == [chosen]


@pytest.mark.parametrize("engine", ["auto", "transformers"])
def test_a_named_quantisation_is_a_gguf_file_for_every_engine(engine: str) -> None:
    names = [*REPOSITORY, "model.safetensors"]
    assert list(select(names, engine, ":q8_0").files.values()) == ["m-Q8_0.gguf"]


def test_auto_takes_what_the_repository_has() -> None:
    assert select(REPOSITORY, "auto", None).entry == "m.Q4_K_M.gguf"
    assert select([*REPOSITORY, "model.safetensors"], "auto", None).entry == ""
    with pytest.raises(ModelLoadError, match="no safetensors"):
        select(["pytorch_model.bin", "mmproj-m.gguf"], "auto", None)


def test_a_file_that_is_named_is_taken_whatever_its_name_says() -> None:
    names = ["m-imatrix-Q4_K_M.gguf", "m-Q8_0.gguf"]
    assert select(names, "llama_cpp", names[0]).entry == names[0]


@pytest.mark.parametrize("file", [":Q4_K", ":Q2_K", ":F16", "M-Q8_0.gguf", "none.gguf"])
def test_what_is_not_there_is_said(file: str) -> None:
    with pytest.raises(ModelLoadError, match="the repository has no"):
        select(REPOSITORY, "llama_cpp", file)


def test_a_repository_without_gguf_is_said() -> None:
    with pytest.raises(ModelLoadError, match="no GGUF file"):
        select(["model.safetensors"], "llama_cpp", None)


@pytest.mark.parametrize("file", [None, ":Q8_0", "Q8_0/m-Q8_0-00002-of-00003.gguf"])
def test_all_parts_of_a_split_file_come_along(file: str | None) -> None:
    parts = [f"Q8_0/m-Q8_0-0000{n}-of-00003.gguf" for n in (3, 1, 2)]
    selection = select(parts, "llama_cpp", file)
    assert list(selection.files.values()) == sorted(parts)
    assert selection.entry == "m-Q8_0-00001-of-00003.gguf"
    with pytest.raises(ModelLoadError, match="00002-of-00003"):
        select([name for name in parts if "00002" not in name], "llama_cpp", ":Q8_0")


def test_a_torch_model_is_safetensors_and_texts_only() -> None:
    wanted = [
        "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
        "model.safetensors.index.json", "tokenizer.json", "vocab.txt", "spiece.model",
        "chat_template.jinja", "1_Pooling/config.json",
    ]  # fmt: skip
    unwanted = [
        "pytorch_model.bin", "modeling_x.py", "training_args.pt", "x.pkl", "README.md", "m.gguf",
        "onnx/model.onnx", "onnx/config.json", "openvino/config.json",
    ]  # fmt: skip
    selection = select(wanted + unwanted, "torch", None)
    assert dict(selection.files) == {name: name for name in wanted}
    assert selection.entry == ""


def test_weights_come_once_where_a_repository_has_them_in_two_layouts() -> None:
    wanted = ["model-00001-of-00001.safetensors", "model.safetensors.index.json", "params.json"]
    copies = ["consolidated.safetensors", "consolidated.safetensors.index.json"]
    assert list(select([*copies, *wanted], "torch", None).files) == wanted
    assert list(select(copies, "torch", None).files) == copies


def test_a_torch_model_without_safetensors_is_said() -> None:
    with pytest.raises(ModelLoadError, match="no safetensors"):
        select(["pytorch_model.bin", "config.json"], "torch", None)


@pytest.mark.parametrize(
    ("names", "file", "model"),
    [
        (["model.onnx", "onnx/model.onnx"], None, "model.onnx"),
        (["onnx/model.onnx", "onnx/model_q.onnx"], None, "onnx/model.onnx"),
        (["onnx/model.onnx", "onnx/model_q.onnx"], "onnx/model_q.onnx", "onnx/model_q.onnx"),
    ],
)
def test_an_onnx_model_becomes_model_onnx_beside_its_tokenizer(
    names: list[str], file: str | None, model: str
) -> None:
    selection = select([*names, "tokenizer.json", "model.safetensors"], "onnx", file)
    assert dict(selection.files) == {"model.onnx": model, "tokenizer.json": "tokenizer.json"}
    assert selection.entry == ""


def test_external_data_of_an_onnx_model_comes_along() -> None:
    selection = select(["onnx/model.onnx", "onnx/model.onnx_data"], "onnx", None)
    assert selection.files["model.onnx_data"] == "onnx/model.onnx_data"
    names = ["onnx/model_q.onnx", "onnx/model_q.onnx_data", "onnx/model_q.onnx_data_1"]
    selection = select([*names, "onnx/model.onnx_data"], "onnx", names[0])
    assert dict(selection.files) == {
        "model.onnx": names[0], "model_q.onnx_data": names[1], "model_q.onnx_data_1": names[2],
    }  # fmt: skip
    with pytest.raises(ModelLoadError, match=r"no model\.onnx"):
        select(["model.safetensors"], "onnx", None)


def test_any_single_file_can_be_named() -> None:
    selection = select(["a/x.safetensors", "b"], "torch", "a/x.safetensors")
    assert (dict(selection.files), selection.entry) == (
        {"x.safetensors": "a/x.safetensors"}, "x.safetensors",
    )  # fmt: skip
