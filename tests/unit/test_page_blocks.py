"""What blocks pages are made of, and their markdown."""

from __future__ import annotations

from dataclasses import replace

import pytest

from models.page_formats.geometry import box_of, words_of
from models.page_formats.margins import with_margins
from models.page_formats.markdown import page_markdown
from models.page_formats.regions import blocks_of
from models.page_formats.tables import cells_of, html_table, markdown_table
from models.page_formats.word_places import word_places
from models.types.pages import TextLine
from tests.pages import INVOICE, WORDS, line, page, row

PARAGRAPH = [line("some running text that is long", 50, 300 + 25 * place) for place in range(4)]


def kinds(*lines: TextLine) -> list[str]:
    return [block.kind for block in blocks_of(page(*lines))]


def test_an_invoice_as_markdown() -> None:
    assert page_markdown(INVOICE) == (
        "# Invoice 2024-117\n\n"
        "Miller & Sons, a company\nof <good> repute.\n\n"
        "| Item | Count | Price |\n"
        "| --- | --- | --- |\n"
        "| Tea \\| black | 2 | 5.00 |\n"
        "| Coffee |  | 3.50 |\n\n"
        "- pay soon\n- pay all"
    )


@pytest.mark.parametrize(("height", "mark"), [(40, "# "), (34, "## "), (28, "### "), (24, "")])
def test_titles_are_as_important_as_they_are_high(height: float, mark: str) -> None:
    text = page_markdown(page(line("Heading", 50, 200, height=height), *PARAGRAPH))
    assert text.splitlines()[0] == f"{mark}Heading"


def test_a_page_of_one_height_has_no_titles() -> None:
    assert kinds(line("Alone", 0, 0, height=60)) == ["text"]
    assert kinds() == []


def test_a_gap_ends_a_paragraph() -> None:
    assert len(kinds(line("one line of text", 0, 0), line("and the next one", 0, 25))) == 1
    assert len(kinds(line("one line of text", 0, 0), line("far below it", 0, 50))) == 2


def test_the_next_column_is_another_paragraph() -> None:
    assert len(kinds(line("end of a column", 0, 500), line("top of the next", 400, 0))) == 2


@pytest.mark.parametrize(
    ("texts", "written"),
    [
        (["• first", "• second"], "- first\n- second"),
        (["1. first", "2. second"], "1. first\n2. second"),
        (["Buy:", "– milk", "of the cow", "– bread"], "Buy:\n\n- milk\n  of the cow\n- bread"),
        (["In the year", "7. was the lucky number"], "In the year\n7. was the lucky number"),
        (["-5 degrees", "and falling"], "-5 degrees\nand falling"),
    ],
)
def test_lists_begin_with_marks(texts: list[str], written: str) -> None:
    lines = [line(text, 0, 25 * place) for place, text in enumerate(texts)]
    assert page_markdown(page(*lines)) == written


def test_text_that_looks_like_markup_is_escaped() -> None:
    assert page_markdown(page(line("# 4 screws", 0, 0), line("> 5 mm", 0, 25))) == (
        "\\# 4 screws\n\\> 5 mm"
    )


@pytest.mark.parametrize("rule", ["-", "--------", "=====", "*****", "___", "~~~~"])
def test_rules_of_characters_make_no_titles(rule: str) -> None:
    lines = [line(text, 0, 25 * place) for place, text in enumerate(("Total", rule, "12.50"))]
    assert page_markdown(page(*lines)) == f"Total\n\\{rule}\n12.50"


def test_labels_and_values_of_three_rows_are_a_table_and_of_two_are_not() -> None:
    rows = [row(30 * place, (0, f"label {place}"), (300, "value")) for place in range(3)]
    assert kinds(*rows[0], *rows[1]) == ["text"]
    assert kinds(*rows[0], *rows[1], *rows[2]) == ["table"]


def test_cells_that_do_not_stand_in_columns_are_no_table() -> None:
    rows = [
        row(30 * place, (70 * place, "left part"), (400 - 80 * place, "right part"))
        for place in range(4)
    ]
    assert "table" not in kinds(*[line for cells in rows for line in cells])


def test_a_table_ends_where_text_begins() -> None:
    rows = [row(30 * place, (0, "a"), (200, "b"), (400, "c")) for place in range(3)]
    lines = [cell for cells in rows for cell in cells]
    assert kinds(*lines, line("text that runs below the table", 0, 95)) == ["table", "text"]


def test_cells_of_one_column_and_row_are_joined_and_holes_are_empty() -> None:
    rows = [row(0, (0, "a"), (200, "b"), (400, "c")), row(30, (2, "d"), (398, "e"))]
    cells = cells_of(rows)
    assert cells == [["a", "b", "c"], ["d", "", "e"]]
    assert html_table([["a<b", "c&d"]]) == "<table><tr><td>a&lt;b</td><td>c&amp;d</td></tr></table>"
    assert markdown_table([["x|y"]]) == "| x\\|y |\n| --- |"


def test_heads_and_feet_lie_in_the_margins() -> None:
    made = page(
        line("Journal of Things", 50, 20),
        *PARAGRAPH,
        line("17", 400, 960),
    )
    blocks = with_margins(blocks_of(made), made)
    assert [block.kind for block in blocks] == ["header", "text", "footer"]
    alone = page(line("17", 400, 960))
    assert [block.kind for block in with_margins(blocks_of(alone), alone)] == ["text"]


def test_words_are_those_of_the_engine_or_shares_of_the_line() -> None:
    assert [word.text for word in words_of(WORDS)] == ["Grand", "total"]
    made = words_of(line("ab  漢字 c", 100, 0, height=20))
    assert [word.text for word in made] == ["ab", "漢字", "c"]
    total = 8 * 10  # of eight characters, on which ten half letters lie
    assert [box_of(word.polygon)[::2] for word in made] == [
        (100, 100 + total * 2 / 10),
        (100 + total * 4 / 10, 100 + total * 8 / 10),
        (100 + total * 9 / 10, 100 + total),
    ]


def test_every_word_is_found_in_the_markdown() -> None:
    text = page_markdown(INVOICE)
    places = list(word_places(blocks_of(INVOICE)))
    written = [text[start : start + len(word.text)] for word, start in places]
    expected = [word.text for line in INVOICE.lines for word in words_of(line)]
    assert "|" in expected
    assert [word.text for word, _ in places] == expected
    assert [text.replace("\\", "|") for text in written] == expected
    assert [start for _, start in places] == sorted(start for _, start in places)


def test_a_table_is_one_although_its_first_column_is_read_first() -> None:
    rows = [row(30 * place, (0, f"item {place}"), (300, "2"), (500, "5.00")) for place in range(4)]
    first = [cells[0] for cells in rows]
    others = [
        replace(cell, continues=place > 0) for cells in rows for place, cell in enumerate(cells[1:])
    ]
    (block,) = blocks_of(page(*first, *others))
    assert block.cells == [[f"item {place}", "2", "5.00"] for place in range(4)]


def test_columns_of_running_text_are_no_table() -> None:
    left = [line("a line of some running text", 0, 25 * place) for place in range(4)]
    right = [line("another line of running text", 400, 25 * place) for place in range(4)]
    assert kinds(*left, *right) == ["text", "text"]


def test_turned_text_stands_apart() -> None:
    sideways = TextLine("margin", 0.9, ((700, 0), (720, 0), (720, 60), (700, 60)), True, turn=1)
    assert kinds(line("text beside it", 0, 20), sideways) == ["text", "text"]
    rows = [row(30 * place, (0, "a"), (200, "b"), (400, "c")) for place in range(2)]
    table = blocks_of(page(*rows[0], sideways, *rows[1]))[0]
    assert table.cells == [["a", "b", "c"]] * 2
