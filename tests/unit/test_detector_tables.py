"""Rows of cells to features: encodings, inference, and what is wrong with which cell."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from models.anomaly.tables import Column, TableEncoder, fit_encoder
from models.errors import InvalidInputError
from models.types.anomaly import Table

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


@pytest.mark.parametrize("other", [1.0, "text"])
def test_numbers_that_are_too_large_to_square_are_cut(other: Any) -> None:
    encoder = fit_encoder(Table(((1.0, other), (2.0, other))), None)
    rows = encoder.encode(Table(((1e308, other), (-(10**300), other))))
    assert rows[:, 0].tolist() == [1e30, -1e30]


def test_unnamed_columns_are_counted() -> None:
    encoder = fit_encoder(Table(((1, 2.5), (3.0, -4))), None)
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
    "nan": (math.nan, "a finite number is expected"),
    "infinity": (-math.inf, "a finite number is expected"),
    "huge int": (10**5000, "a finite number is expected"),
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


def test_rows_without_names_are_inferred_as_those_with_names() -> None:
    rows = ((1.0, "x", True), (2.0, "y", False))
    encoder = fit_encoder(Table(rows), None)
    assert encoder.schema == (("0", "numeric"), ("1", "onehot"), ("2", "binary"))
    assert encoder.encode(Table(rows)).tolist() == [[1, 1, 0, 1], [2, 0, 1, 0]]


def test_a_text_among_the_numbers_of_a_fit_is_refused() -> None:
    rows = Table(((1.0,), (2.0,), ("n/a",)))
    with pytest.raises(InvalidInputError, match="Row 2, column '0': a number is expected"):
        fit_encoder(rows, None).encode(rows)


# --- missing cells ---------------------------------------------------------------------------


def filled(encoding: str, missing: Any, cells: list[Any], asked: list[Any]) -> Any:
    """Features of `asked` in a column that was fitted to `cells`."""
    table = Table(tuple((cell,) for cell in cells), ("a",))
    return encoded(fit_encoder(table, (("a", encoding),), missing), asked)


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        ("mean", [[4.0], [7.0]]),
        ("median", [[2.0], [7.0]]),
        ("zero", [[0.0], [7.0]]),
        ("category", [[2.0, 1.0], [7.0, 0.0]]),
    ],
)
def test_missing_numbers(missing: str, expected: list[list[float]]) -> None:
    assert filled("numeric", missing, [1, 2, None, 9], [None, 7]) == expected


def test_missing_truth_is_a_share_of_the_truths() -> None:
    cells = [True, True, True, False, None]
    assert filled("binary", "mean", cells, [None, "no"]) == [[0.75], [0.0]]
    assert filled("binary", "median", cells, [None]) == [[1.0]]
    assert filled("binary", "category", cells, [None, "no"]) == [[1.0, 1.0], [0.0, 0.0]]


@pytest.mark.parametrize(
    ("encoding", "missing", "expected"),
    [
        ("label", "mean", [[2.0]]),
        ("label", "median", [[2.0]]),
        ("label", "zero", [[0.0]]),
        ("label", "category", [[1.0]]),  # "(missing)" sorts before the letters
        ("onehot", "mean", [[0.0, 1.0]]),
        ("onehot", "zero", [[0.0, 0.0]]),
        ("onehot", "category", [[1.0, 0.0, 0.0]]),
        ("frequency", "median", [[0.5]]),
        ("frequency", "zero", [[0.0]]),
        ("frequency", "category", [[0.25]]),
        ("hash", "zero", [[0.0]]),
    ],
)
def test_missing_categories(encoding: str, missing: str, expected: list[list[float]]) -> None:
    known = ["b", "a", "b", None]
    if (encoding, missing) == ("frequency", "median"):
        known = ["b", "b", "a", "c"]
    assert filled(encoding, missing, known, [None]) == expected


def test_a_missing_hash_is_that_of_its_own_category_or_the_most_frequent() -> None:
    known = ["b", "a", "b", None]
    assert filled("hash", "category", known, [None]) == filled("hash", "zero", known, ["(missing)"])
    assert filled("hash", "mean", known, [None]) == filled("hash", "mean", known, ["b"])


def test_a_category_that_was_never_missing_is_unknown_when_it_is() -> None:
    assert filled("onehot", "category", ["a", "b"], [None]) == [[0.0, 0.0]]


def test_encodings_are_inferred_beside_missing_cells() -> None:
    rows = Table(((None, None, None), ("x", 1.0, True)))
    assert fit_encoder(rows, None, "zero").schema == (
        ("0", "onehot"),
        ("1", "numeric"),
        ("2", "binary"),
    )


def test_a_missing_number_is_marked_in_a_feature_of_its_own() -> None:
    encoder = fit_encoder(Table(((1.0, 2.0), (None, 3.0)), NAMES), None, "category")
    assert encoder.features == ("a", "a=(missing)", "b", "b=(missing)")
    assert encoder.blocks == (slice(0, 2), slice(2, 4))
    assert encoder.encode(Table(((None, 5.0), (2.0, 5.0)), NAMES)).tolist() == [
        [5.0, 0.0, 1.0, 1.0],
        [5.0, 0.0, 2.0, 0.0],
    ]


def test_a_column_without_values_has_no_mean() -> None:
    rows = Table(((None, 1.0), (None, 2.0)), NAMES)
    for missing in ("mean", "median"):
        with pytest.raises(InvalidInputError, match="'b' has no values"):
            fit_encoder(rows, None, missing)
    assert fit_encoder(rows, None, "zero").encode(rows).tolist() == [[1.0, 0.0], [2.0, 0.0]]


def test_only_none_is_missing() -> None:
    rows = Table(((1.0,), (math.nan,)))
    with pytest.raises(InvalidInputError, match="Row 1, column '0': a finite number"):
        fit_encoder(rows, None, "mean")


def test_policies_have_names() -> None:
    with pytest.raises(InvalidInputError, match="error, mean, median, zero, category") as caught:
        fit_encoder(Table(((1.0,),)), None, "drop")  # type: ignore[arg-type]
    assert caught.value.param == "missing"


def test_the_typical_row_has_medians_and_the_most_frequent_categories() -> None:
    rows = tuple((value, kind) for value, kind in zip([1, 2, 90], "bab", strict=True))
    encoder = fit_encoder(Table(rows), None)
    assert encoder.typical(encoder.encode(Table(rows))).tolist() == [2.0, 0.0, 1.0]


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
