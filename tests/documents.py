"""PDF files written by hand, so that tests know every byte of them."""

from __future__ import annotations

import io
import zlib
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

A4 = (595, 842)


def pdf(pages: Sequence[bytes], *, box: str = "0 0 595 842", catalog: str = "") -> bytes:
    """A PDF file of one content stream per page; /F1 is Helvetica. `catalog`: more entries."""
    count = len(pages)
    kids = " ".join(f"{4 + 2 * index} 0 R" for index in range(count))
    objects = [
        f"<</Type/Catalog/Pages 2 0 R{catalog}>>".encode(),
        f"<</Type/Pages/Kids[{kids}]/Count {count}>>".encode(),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>",
    ]
    for index, content in enumerate(pages):
        page = f"<</Type/Page/Parent 2 0 R/MediaBox[{box}]/Contents {5 + 2 * index} 0 R"
        objects.append(f"{page}/Resources<</Font<</F1 3 0 R>>>>>>".encode())
        head = b"<</Length %d/Filter/FlateDecode>>stream\n"
        packed = zlib.compress(content)
        objects.append(head % len(packed) + packed + b"\nendstream")
    return assembled(objects)


def assembled(objects: Sequence[bytes]) -> bytes:
    """The file of these objects, numbered from 1; the first is the catalogue."""
    out = io.BytesIO()
    out.write(b"%PDF-1.7\n")
    offsets = []
    for number, body in enumerate(objects, 1):
        offsets.append(out.tell())
        out.write(b"%d 0 obj\n%b\nendobj\n" % (number, body))
    start = out.tell()
    out.write(b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1))
    for offset in offsets:
        out.write(b"%010d 00000 n \n" % offset)
    trailer = b"trailer<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n"
    out.write(trailer % (len(objects) + 1, start))
    return out.getvalue()


def text_page(lines: Sequence[str], *, x: int = 72, top: int = 760, size: int = 12) -> bytes:
    """The content of a page with lines of text, 20 points apart, in points from the bottom."""
    shown = [
        f"BT /F1 {size} Tf {x} {top - 20 * row} Td ({line}) Tj ET" for row, line in enumerate(lines)
    ]
    return "\n".join(shown).encode("cp1252")


def picture_of(text: str, size: tuple[int, int] = A4) -> Image.Image:
    """A scanned page: the text only as ink."""
    image = Image.new("RGB", size, "white")
    ImageDraw.Draw(image).text((72, 72), text, "black", ImageFont.load_default(24))
    return image


def scanned_pdf(texts: Sequence[str]) -> bytes:
    """Pages that are pictures of text, as a scanner makes them."""
    first, *others = [picture_of(text) for text in texts]
    out = io.BytesIO()
    first.save(out, "PDF", save_all=True, append_images=others, resolution=72)
    return out.getvalue()


def tiff(images: Sequence[Image.Image]) -> bytes:
    out = io.BytesIO()
    images[0].save(out, "TIFF", save_all=True, append_images=list(images[1:]))
    return out.getvalue()
