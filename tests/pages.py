"""Pages of lines at known places, as a recogniser would return them."""

from __future__ import annotations

from models.types.pages import DocumentPage, Page, TextLine, Word


def line(
    text: str,
    x: float,
    y: float,
    *,
    height: float = 20,
    confidence: float = 0.9,
    continues: bool = False,
) -> TextLine:
    """An upright line; its letters are half as wide as high."""
    right, bottom = x + len(text) * height / 2, y + height
    polygon = ((x, y), (right, y), (right, bottom), (x, bottom))
    return TextLine(text, confidence, polygon, continues)


def row(y: float, *cells: tuple[float, str], height: float = 20) -> list[TextLine]:
    """Texts side by side, each at its x."""
    return [
        line(text, x, y, height=height, continues=index > 0)
        for index, (x, text) in enumerate(cells)
    ]


def page(*lines: TextLine, width: int = 800, height: int = 1000) -> Page:
    return Page(width, height, lines)


def document(*pages: Page) -> list[DocumentPage]:
    return [DocumentPage(index, page) for index, page in enumerate(pages)]


INVOICE = page(
    line("Invoice 2024-117", 50, 100, height=40),
    line("Miller & Sons, a company", 50, 170),
    line("of <good> repute.", 50, 195),
    *row(250, (50, "Item"), (300, "Count"), (500, "Price")),
    *row(280, (50, "Tea | black"), (300, "2"), (500, "5.00")),
    *row(310, (50, "Coffee"), (500, "3.50")),
    line("- pay soon", 50, 380),
    line("- pay all", 50, 405),
)
"""A title, a paragraph, a table with an empty cell, a list."""

WORDS = TextLine(
    "Grand total",
    0.8,
    ((10, 10), (210, 10), (210, 30), (10, 30)),
    words=(
        Word("Grand", 0.7, ((10, 10), (90, 10), (90, 30), (10, 30))),
        Word("total", 0.9, ((120, 10), (210, 10), (210, 30), (120, 30))),
    ),
)
"""A line whose words an engine has located."""
