"""Rows of Tesseract's table become lines and words."""

from __future__ import annotations

from models.ocr.tesseract_table import text_lines

HEADER = "level page_num block_num par_num line_num word_num left top width height conf text"


def row(line: int, left: int, text: str, confidence: float = 90, level: int = 5) -> str:
    cells = [level, 1, 1, 1, line, 1, left, 10 + 40 * line, 30, 20, confidence, text]
    return "\t".join(map(str, cells))


def table(*rows: str) -> str:
    return "\n".join([HEADER.replace(" ", "\t"), *rows, ""])


def test_words_of_one_line_are_together() -> None:
    first, second = text_lines(
        table(
            row(0, 0, "", -1, level=4), row(0, 0, "The", 90), row(0, 40, "end", 80), row(1, 0, "x")
        )
    )
    assert (first.text, first.confidence, second.text) == ("The end", 0.85, "x")
    assert first.polygon == ((0, 10), (70, 10), (70, 30), (0, 30))
    assert [(word.text, word.confidence) for word in first.words] == [("The", 0.9), ("end", 0.8)]
    assert first.words[1].polygon == ((40, 10), (70, 10), (70, 30), (40, 30))


def test_wide_gaps_part_cells() -> None:
    lines = text_lines(table(row(0, 0, "Bread"), row(0, 59, "and"), row(0, 121, "1.99")))
    assert [line.text for line in lines] == ["Bread and", "1.99"]


def test_scripts_without_spaces_get_none() -> None:
    (line,) = text_lines(table(row(0, 0, "日本"), row(0, 31, "語"), row(0, 62, "OCR")))
    assert line.text == "日本語 OCR"


def test_rows_without_text_are_no_words() -> None:
    assert text_lines("") == []
    assert text_lines(table(row(0, 0, " "), row(0, 0, "x", -1), "5\t1\t1")) == []
