"""hOCR 1.2: XHTML whose title attributes carry boxes and confidences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from models.page_formats.blocks import Block
from models.page_formats.geometry import Box, around, box_of, rounded, text_height, words_of
from models.page_formats.regions import blocks_of
from models.page_formats.xml_text import xml_text
from models.types.pages import DocumentPage, Page, TextLine

HEAD = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Transitional//EN" \
"http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd">
<html xmlns="http://www.w3.org/1999/xhtml">
<head>
<title></title>
<meta http-equiv="Content-Type" content="text/html; charset=utf-8"/>
<meta name="ocr-system" content="{system}"/>
<meta name="ocr-capabilities" content="ocr_page ocr_carea ocr_par ocr_line ocrx_word ocrp_wconf"/>
</head>
<body>
"""
FOOT = "</body>\n</html>\n"


def hocr(pages: Sequence[DocumentPage], system: str) -> str:
    """`system` names what has read the pages."""
    body = "".join(_page(number, page) for number, page in enumerate(pages, 1))
    return HEAD.format(system=escape(xml_text(system))) + body + FOOT


def _page(number: int, document_page: DocumentPage) -> str:
    page = document_page.page
    title = f"bbox 0 0 {page.width} {page.height}; ppageno {document_page.index}"
    if document_page.dpi:
        title += f"; scan_res {document_page.dpi} {document_page.dpi}"
    areas = "".join(
        _area(f"{number}_{index}", block, page) for index, block in enumerate(blocks_of(page), 1)
    )
    return _element("div", "ocr_page", f"page_{number}", title, areas)


def _area(name: str, block: Block, page: Page) -> str:
    lines = "".join(_line(f"{name}_{index}", row, page) for index, row in enumerate(block.rows, 1))
    place = _bbox(block.box, page)
    paragraph = _element("p", "ocr_par", f"par_{name}", place, lines)
    return _element("div", "ocr_carea", f"block_{name}", place, paragraph)


def _line(name: str, row: Sequence[TextLine], page: Page) -> str:
    box = around(box_of(line.polygon) for line in row)
    title = f"{_bbox(box, page)}; {_direction(row[0], box)}; x_size {text_height(row[0]):.0f}"
    words = (
        _element(
            "span",
            "ocrx_word",
            f"word_{name}_{index}",
            f"{_bbox(box_of(word.polygon), page)}; x_wconf {100 * word.confidence:.0f}",
            escape(xml_text(word.text)),
        )
        for index, word in enumerate((word for line in row for word in words_of(line)), 1)
    )
    return _element("span", "ocr_line", f"line_{name}", title, " ".join(_stripped(words)) + "\n")


def _direction(line: TextLine, box: Box) -> str:
    """The angle of turned text, counted against the clock; else slope, and height above the box's
    bottom left corner, of the line's lower edge."""
    if line.turn:
        return f"textangle {360 - 90 * line.turn}"
    (x1, y1), (x0, y0) = line.polygon[2], line.polygon[3]
    slope = (y1 - y0) / (x1 - x0) if x1 - x0 > abs(y1 - y0) else 0.0
    offset = y0 - box.bottom + slope * (box.left - x0)
    return f"baseline {slope:.3f} {offset:.0f}"


def _bbox(box: Box, page: Page) -> str:
    return "bbox {} {} {} {}".format(*rounded(box, page))


def _element(tag: str, kind: str, name: str, title: str, content: str) -> str:
    return f'<{tag} class="{kind}" id="{name}" title="{title}">{content}</{tag}>\n'


def _stripped(elements: Iterable[str]) -> Iterable[str]:
    return (element.rstrip() for element in elements)
