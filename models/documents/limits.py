"""What a document may cost."""

from __future__ import annotations

import math
from dataclasses import dataclass

BASE_ADDRESS_SPACE = 512 * 2**20
"""What the interpreter and PDFium map, with room for fonts, pictures and content."""
BYTES_PER_PIXEL = 8
"""The rendered page and one layer of it with transparency."""


@dataclass(frozen=True, slots=True)
class DocumentLimits:
    """`max_pixels` of one page, known before it is rendered; `page_seconds` of wall time for
    opening the document and for each page."""

    max_pages: int = 200
    max_pixels: int = 40_000_000
    max_image_bytes: int = 32 * 2**20
    page_seconds: float = 6.0

    @property
    def address_space(self) -> int:
        """Bytes that a rendering process may map."""
        return BASE_ADDRESS_SPACE + BYTES_PER_PIXEL * self.max_pixels

    @property
    def orphan_seconds(self) -> int:
        """After which such a process ends itself, should nobody be left to do so."""
        return 2 * math.ceil(self.page_seconds)
