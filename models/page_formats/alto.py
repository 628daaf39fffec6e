"""ALTO 4.2, the Library of Congress' schema of recognised pages, in pixels."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from models.page_formats.blocks import mean_confidence
from models.page_formats.geometry import Box, around, box_of, rounded, words_of
from models.page_formats.regions import blocks_of
from models.page_formats.xml_text import xml_text
from models.types.pages import DocumentPage, Page, TextLine

NAMESPACE = "http://www.loc.gov/standards/alto/ns-v4#"
SCHEMA = "http://www.loc.gov/standards/alto/v4/alto-4-2.xsd"
INSTANCE = "http://www.w3.org/2001/XMLSchema-instance"


def alto(pages: Sequence[DocumentPage], system: str) -> str:
    """`system` names what has read the pages."""
    root = Element("alto", {"xmlns": NAMESPACE, "xmlns:xsi": INSTANCE})
    root.set("xsi:schemaLocation", f"{NAMESPACE} {SCHEMA}")
    description = SubElement(root, "Description")
    SubElement(description, "MeasurementUnit").text = "pixel"
    processing = SubElement(description, "Processing", ID="OCR_1")
    software = SubElement(processing, "processingSoftware")
    SubElement(software, "softwareName").text = xml_text(system)
    layout = SubElement(root, "Layout")
    for number, page in enumerate(pages, 1):
        _page(layout, number, page)
    ElementTree.indent(root, " ")
    head = '<?xml version="1.0" encoding="UTF-8"?>\n'
    return head + ElementTree.tostring(root, encoding="unicode") + "\n"


def _page(layout: Element, number: int, document_page: DocumentPage) -> None:
    page = document_page.page
    element = SubElement(
        layout,
        "Page",
        ID=f"page_{number}",
        PHYSICAL_IMG_NR=str(document_page.index + 1),
        WIDTH=str(page.width),
        HEIGHT=str(page.height),
    )
    confidence = mean_confidence(page.lines)
    if confidence is not None:
        element.set("PC", f"{confidence:.3f}")
    whole = Box(0, 0, page.width, page.height)
    space = SubElement(element, "PrintSpace", _place(whole, page))
    for index, block in enumerate(blocks_of(page), 1):
        name = f"{number}_{index}"
        kind = "TextBlock" if block.rows else "Illustration"
        text = SubElement(space, kind, _place(block.box, page), ID=f"block_{name}")
        for place, row in enumerate(block.rows, 1):
            _line(text, f"{name}_{place}", row, page)


def _line(block: Element, name: str, row: Sequence[TextLine], page: Page) -> None:
    box = around(box_of(line.polygon) for line in row)
    element = SubElement(block, "TextLine", _place(box, page), ID=f"line_{name}")
    previous: Box | None = None
    for index, word in enumerate((word for line in row for word in words_of(line)), 1):
        place = box_of(word.polygon)
        if previous is not None:
            gap = Box(previous.right, place.top, max(previous.right, place.left), place.bottom)
            SubElement(element, "SP", _place(gap, page))
        attributes = _place(place, page)
        attributes["CONTENT"] = xml_text(word.text)
        attributes["WC"] = f"{min(1.0, max(0.0, word.confidence)):.3f}"
        SubElement(element, "String", attributes, ID=f"string_{name}_{index}")
        previous = place


def _place(box: Box, page: Page) -> dict[str, str]:
    left, top, right, bottom = rounded(box, page)
    sides = {"HPOS": left, "VPOS": top, "WIDTH": right - left, "HEIGHT": bottom - top}
    return {name: str(value) for name, value in sides.items()}
