"""hOCR, ALTO and TSV: well formed, with the elements and attributes that their readers need."""

from __future__ import annotations

import csv
import re
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from models.page_formats.alto import alto
from models.page_formats.hocr import hocr
from models.page_formats.tsv import COLUMNS, tsv
from models.types.pages import DocumentPage, Page, Region, TextLine
from tests.pages import INVOICE, WORDS, document, line, page

XHTML = "{http://www.w3.org/1999/xhtml}"
ALTO = "{http://www.loc.gov/standards/alto/ns-v4#}"
HOSTILE = page(line("<b>&\"'\x00\x01]]> \ud800\ufffe", 10, 10))
PARENTS = {"ocr_carea": "ocr_page", "ocr_par": "ocr_carea", "ocr_line": "ocr_par"}
PARENTS["ocrx_word"] = "ocr_line"


def parsed(text: str) -> Element:
    return ElementTree.fromstring(text.encode())  # noqa: S314 - our own


def of_class(root: Element, name: str) -> list[Element]:
    return [element for element in root.iter() if element.get("class") == name]


def test_hocr_nests_pages_areas_paragraphs_lines_and_words() -> None:
    root = parsed(hocr(document(INVOICE, page(WORDS)), "engine <x>"))
    assert root.tag == f"{XHTML}html"
    meta = {m.get("name"): m.get("content") for m in root.iter(f"{XHTML}meta")}
    assert meta["ocr-system"] == "engine <x>"
    classes = {e.get("class") for e in root.iter() if e.get("class")}
    assert classes <= set(str(meta["ocr-capabilities"]).split())
    for parent in root.iter():
        for child in parent:
            if child.get("class") in PARENTS:
                assert parent.get("class") == PARENTS[child.get("class")]
    names = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(names) == len(set(names))
    assert [e.get("title") for e in of_class(root, "ocr_page")] == [
        "bbox 0 0 800 1000; ppageno 0",
        "bbox 0 0 800 1000; ppageno 1",
    ]


def test_hocr_words_have_boxes_inside_their_lines_and_confidences() -> None:
    root = parsed(hocr([DocumentPage(4, page(WORDS), 200)], "engine"))
    (sheet,) = of_class(root, "ocr_page")
    assert sheet.get("title") == "bbox 0 0 800 1000; ppageno 4; scan_res 200 200"
    (row,) = of_class(root, "ocr_line")
    assert row.get("title") == "bbox 10 10 210 30; baseline 0.000 0; x_size 20"
    assert [(e.text, e.get("title")) for e in of_class(root, "ocrx_word")] == [
        ("Grand", "bbox 10 10 90 30; x_wconf 70"),
        ("total", "bbox 120 10 210 30; x_wconf 90"),
    ]
    assert "".join(row.itertext()).split() == ["Grand", "total"]


def test_alto_has_what_its_schema_demands() -> None:
    root = parsed(alto(document(INVOICE, page(WORDS)), "engine"))
    assert root.tag == f"{ALTO}alto"
    assert [child.tag for child in root] == [f"{ALTO}Description", f"{ALTO}Layout"]
    assert root.findtext(f"{ALTO}Description/{ALTO}MeasurementUnit") == "pixel"
    names = [element.get("ID") for element in root.iter() if element.get("ID")]
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"[A-Za-z_][\w.-]*", str(name)) for name in names)
    pages = root.findall(f"{ALTO}Layout/{ALTO}Page")
    assert [p.get("PHYSICAL_IMG_NR") for p in pages] == ["1", "2"]
    assert [(p.get("WIDTH"), p.get("HEIGHT")) for p in pages] == [("800", "1000")] * 2
    path = f"{ALTO}PrintSpace/{ALTO}TextBlock/{ALTO}TextLine"
    (text_line,) = pages[1].findall(path)
    assert [child.tag.removeprefix(ALTO) for child in text_line] == ["String", "SP", "String"]
    first, space, second = (dict(child.items()) for child in text_line)
    assert first | {"ID": ""} == {
        "ID": "",
        "HPOS": "10",
        "VPOS": "10",
        "WIDTH": "80",
        "HEIGHT": "20",
        "CONTENT": "Grand",
        "WC": "0.700",
    }
    assert space == {"HPOS": "90", "VPOS": "10", "WIDTH": "30", "HEIGHT": "20"}
    assert second["CONTENT"] == "total"
    assert pages[1].get("PC") == "0.800"


def test_tsv_has_tesseracts_columns_and_levels() -> None:
    rows = list(csv.DictReader(tsv(document(page(), page(WORDS))).splitlines(), delimiter="\t"))
    assert tuple(rows[0]) == COLUMNS
    assert [r["level"] for r in rows] == ["1", "1", "2", "3", "4", "5", "5"]
    assert [r["page_num"] for r in rows] == ["1"] + ["2"] * 6
    assert {r["conf"] for r in rows[:5]} == {"-1"}
    word = rows[-1]
    numbers = [word[name] for name in COLUMNS[1:10]]
    assert numbers == ["2", "1", "1", "1", "2", "120", "10", "90", "20"]
    assert (word["conf"], word["text"]) == ("90.000000", "total")


def test_text_cannot_break_out_of_any_format() -> None:
    expected = "<b>&\"'\ufffd\ufffd]]>"
    (first, *_) = of_class(parsed(hocr(document(HOSTILE), "engine")), "ocrx_word")
    strings = list(parsed(alto(document(HOSTILE), "engine")).iter(f"{ALTO}String"))
    assert first.text == strings[0].get("CONTENT") == expected
    tabs = page(line("a\tb\nc", 0, 0))
    assert {text.count("\t") for text in tsv(document(tabs)).splitlines()} == {11}


def test_boxes_are_whole_pixels_inside_the_page() -> None:
    outside = page(line("wide text", -5, 990), width=50)
    (word, *_) = of_class(parsed(hocr(document(outside), "engine")), "ocrx_word")
    assert str(word.get("title")).startswith("bbox 0 990 ")
    for string in parsed(alto(document(outside), "engine")).iter(f"{ALTO}String"):
        assert 0 <= int(str(string.get("HPOS"))) <= 50
        assert int(str(string.get("VPOS"))) + int(str(string.get("HEIGHT"))) <= 1000


def test_hocr_tells_how_text_is_turned() -> None:
    box = ((160, 100), (200, 100), (200, 400), (160, 400))
    titles = [
        str(
            of_class(
                parsed(hocr(document(page(TextLine("x", 0.9, box, turn=turn))), "e")), "ocr_line"
            )[0].get("title")
        )
        for turn in (1, 2, 3)
    ]
    assert [title.split("; ")[1:] for title in titles] == [
        ["textangle 270", "x_size 40"],
        ["textangle 180", "x_size 300"],
        ["textangle 90", "x_size 40"],
    ]


def test_pictures_are_illustrations() -> None:
    figure = Region("figure", 0.9, (10, 20, 110, 70))
    root = parsed(alto(document(Page(800, 1000, (), (figure,))), "engine"))
    assert not list(root.iter(f"{ALTO}TextBlock"))
    (picture,) = root.iter(f"{ALTO}Illustration")
    assert (picture.get("HPOS"), picture.get("WIDTH")) == ("10", "100")
