"""Rows of cells to features: encodings, inference, and what is wrong with which cell."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from models.anomaly.tables import Column, TableEncoder, fit_encoder
from models.errors import InvalidInputError
from models.types import Table

NAMES = ("b", "a")


def column(encoding: str, cells: list[Any], name: str = "a") -> TableEncoder:
    return fit_encoder(Table(tuple((cell,) for cell in cells), (name,)), ((name, encoding),))


def encoded(encoder: TableEncoder, cells: list[Any], name: str = "a") -> Any:
    return encoder.encode(Table(tuple((cell,) for cell in cells), (name,))).tolist()


def test_numbers_stay_as_they_are() -> None:
    encoder = fit_encoder(Table(((1, 2.5), (3.0, -4))), None)
    rows = encoder.encode(Table(((1, 2.5), (0.1, 1e30))))
    assert rows.dtype == np.float64
    assert rows.flags.c_contiguous
    assert rows.tolist() == [[1.0, 2.5], [0.1, 1e30]]
    assert encoder.features == ("0", "1")


def test_named_columns_are_in_alphabetical_order() -> None:
    encoder = fit_encoder(Table(((1.0, 2.0),), NAMES), None)
    assert encoder.features == ("a", "b")
    assert encoder.encode(Table(((1.0, 2.0),), NAMES)).tolist() == [[2.0, 1.0]]
    assert encoder.encode(Table(((2.0, 1.0),), ("a", "b"))).tolist() == [[2.0, 1.0]]


def test_unnamed_columns_keep_their_order_beyond_ten() -> None:
    row = tuple(float(i) for i in range(12))
    encoder = fit_encoder(Table((row,)), None)
    assert encoder.encode(Table((row,))).tolist() == [list(row)]


def test_label_codes_are_sorted_and_unknown_is_zero() -> None:
    encoder = column("label", ["pear", "apple", "fig", "apple"])
    assert encoded(encoder, ["apple", "fig", "pear", "kiwi"]) == [[1], [2], [3], [0]]


def test_onehot_has_one_feature_per_category() -> None:
    encoder = column("onehot", ["x", "y", "x"])
    assert encoder.features == ("a=x", "a=y")
    assert encoded(encoder, ["y", "x", "z"]) == [[0, 1], [1, 0], [0, 0]]


def test_frequency_is_the_share_and_unknown_half_the_smallest() -> None:
    encoder = column("frequency", ["x", "x", "x", "y"])
    assert encoded(encoder, ["x", "y", "z"]) == [[0.75], [0.25], [0.125]]


def test_hash_codes_are_stable_and_bounded() -> None:
    encoder = column("hash", ["anything"])
    codes = encoded(encoder, ["a", "b", "a", "\ud800"])
    assert codes[0] == codes[2] != codes[1]
    assert all(0 <= code < 1_000_000 for (code,) in codes)
    assert encoded(column("hash", ["other"]), ["a"]) == codes[:1]


def test_binary_words() -> None:
    encoder = column("binary", [True])
    words = ["true", " Yes ", "1", "ON", "t", "y", True, 1, 1.0]
    assert encoded(encoder, words) == [[1.0]] * len(words)
    words = ["false", "No", "0", "off", "f", "n", False, 0, 0.0]
    assert encoded(encoder, words) == [[0.0]] * len(words)


def test_numbers_and_their_texts_are_one_category() -> None:
    encoder = column("label", [1, 2, True])
    assert encoded(encoder, [1.0, "1", 2, "2.0", "true"]) == [[1], [1], [2], [0], [3]]


@pytest.mark.parametrize(
    ("cells", "encoding"),
    [
        ([1.0, 2], "numeric"),
        ([True, False], "binary"),
        (["a", "b"], "onehot"),
        ([str(i) for i in range(21)], "frequency"),
    ],
)
def test_encodings_are_inferred(cells: list[Any], encoding: str) -> None:
    encoder = fit_encoder(Table(tuple((cell,) for cell in cells), ("a",)), None)
    assert encoder.schema == (("a", encoding),)


def test_a_schema_may_name_some_columns_only() -> None:
    table = Table(((1.0, 2.0), (3.0, 4.0)), NAMES)
    assert fit_encoder(table, (("b", "label"),)).schema == (("a", "numeric"), ("b", "label"))


BAD_CELLS: dict[str, tuple[Any, str]] = {
    "text": ("1", "a number is expected"),
    "bool": (True, "a number is expected"),
    "missing": (None, "a value is missing"),
    "nan": (math.nan, "between"),
    "infinity": (-math.inf, "between"),
    "1e308": (1e308, "between"),
    "huge int": (10**5000, "between"),
}


@pytest.mark.parametrize("name", BAD_CELLS)
@pytest.mark.parametrize("row", [0, 2])
def test_a_bad_number_names_row_and_column(name: str, row: int) -> None:
    cell, fault = BAD_CELLS[name]
    encoder = fit_encoder(Table(((0.0, 0.0),), NAMES), None)
    rows: list[tuple[Any, ...]] = [(1.0, 2.0)] * 4
    rows[row] = (cell, 3.0)
    with pytest.raises(InvalidInputError, match=fault) as caught:
        encoder.encode(Table(tuple(rows), NAMES))
    assert f"Row {row}, column 'b'" in caught.value.message
    assert caught.value.param == f"data.{row}"


@pytest.mark.parametrize("encoding", ["hash", "label", "onehot", "frequency", "binary"])
@pytest.mark.parametrize("cell", [None, math.nan, math.inf, 10**4000])
def test_a_bad_category_names_row_and_column(encoding: str, cell: Any) -> None:
    encoder = column(encoding, ["1", "0"])
    with pytest.raises(InvalidInputError, match="Row 1, column 'a'") as caught:
        encoded(encoder, ["1", cell])
    assert caught.value.param == "data.1"


def test_a_word_that_is_neither_true_nor_false_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="Row 1, column 'a': true or false"):
        encoded(column("binary", [True]), ["yes", "maybe"])


def test_text_in_rows_without_names_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="Row 0, column '1': a number is expected"):
        fit_encoder(Table(((1.0, "x"),)), None).encode(Table(((1.0, "x"),)))


@pytest.mark.parametrize(
    ("table", "param"),
    [
        (Table(()), "data"),
        (Table(((),)), "data.0"),
        (Table(((1.0,), ())), "data.1"),
        (Table(((1.0, 2.0), (1.0, 2.0), (1.0,))), "data.2"),
        (Table(((1.0,),), NAMES), "data.0"),
        (Table(((1.0, 2.0),), ("a", "a")), "data"),
    ],
)
def test_tables_without_shape_are_refused(table: Table, param: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        fit_encoder(table, None)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("table", "fault"),
    [
        (Table(((1.0, 2.0),)), "named columns"),
        (Table(((1.0,),), ("a",)), "'b' is missing"),
        (Table(((1.0, 2.0, 3.0),), ("a", "b", "c")), "no column 'c'"),
    ],
)
def test_scored_columns_must_be_the_fitted_ones(table: Table, fault: str) -> None:
    with pytest.raises(InvalidInputError, match=fault):
        fit_encoder(Table(((1.0, 2.0),), NAMES), None).encode(table)


def test_long_names_are_cut_in_messages() -> None:
    encoder = fit_encoder(Table(((1.0,),), ("x" * 10_000,)), None)
    with pytest.raises(InvalidInputError) as caught:
        encoder.encode(Table(((None,),), ("x" * 10_000,)))
    assert len(caught.value.message) < 200


def test_onehot_takes_a_hundred_categories() -> None:
    cells = [str(i) for i in range(101)]
    assert len(column("onehot", cells[:100]).features) == 100
    with pytest.raises(InvalidInputError, match="101 categories"):
        column("onehot", cells)


def test_columns_know_their_features() -> None:
    assert Column("a", "onehot", ("x", "y")).features == ("a=x", "a=y")
    assert Column("a", "label", ("x", "y")).features == ("a",)
