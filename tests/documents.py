"""PDF files written by hand, so that tests know every byte of them."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

A4 = (595, 842)


def pdf(
    pages: Sequence[bytes], *, box: str = "0 0 595 842", catalog: str = "", entries: str = ""
) -> bytes:
    """A PDF file of one content stream per page; /F1 is Helvetica. `catalog` and `entries` are more
    entries of the catalogue and of every page."""
    count = len(pages)
    kids = " ".join(f"{4 + 2 * index} 0 R" for index in range(count))
    objects = [
        f"<</Type/Catalog/Pages 2 0 R{catalog}>>".encode(),
        f"<</Type/Pages/Kids[{kids}]/Count {count}>>".encode(),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>",
    ]
    for index, content in enumerate(pages):
        page = f"<</Type/Page/Parent 2 0 R/MediaBox[{box}]/Contents {5 + 2 * index} 0 R{entries}"
        objects.append(f"{page}/Resources<</Font<</F1 3 0 R>>>>>>".encode())
        head = b"<</Length %d/Filter/FlateDecode>>stream\n"
        packed = zlib.compress(content)
        objects.append(head % len(packed) + packed + b"\nendstream")
    return assembled(objects)


def assembled(objects: Sequence[bytes], trailer: bytes = b"") -> bytes:
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
    end = b"trailer<</Size %d/Root 1 0 R%b>>\nstartxref\n%d\n%%%%EOF\n"
    out.write(end % (len(objects) + 1, trailer, start))
    return out.getvalue()


def form_pdf(label: str, value: str, parent: str = "") -> bytes:
    """A page with a label and a text field that has been filled in. `parent`: boxes that the page
    has from its parent, instead of its own."""
    look = text_page([value], x=2, top=4)
    stream = b"<</Type/XObject/Subtype/Form/BBox[0 0 200 20]/Resources<</Font<</F1 5 0 R>>>>"
    field = f"<</Type/Annot/Subtype/Widget/FT/Tx/T(name)/V({value})/Rect[200 750 400 770]/F 4"
    own = b"" if parent else b"/MediaBox[0 0 595 842]"
    page = b"<</Type/Page/Parent 2 0 R%b/Contents 4 0 R/Annots[6 0 R]" % own
    content = text_page([label])
    return assembled(
        [
            b"<</Type/Catalog/Pages 2 0 R/AcroForm<</Fields[6 0 R]>>>>",
            b"<</Type/Pages/Kids[3 0 R]/Count 1%b>>" % parent.encode(),
            page + b"/Resources<</Font<</F1 5 0 R>>>>>>",
            b"<</Length %d>>stream\n%b\nendstream" % (len(content), content),
            b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
            field.encode() + b"/AP<</N 7 0 R>>>>",
            stream + b"/Length %d>>stream\n%b\nendstream" % (len(look), look),
        ]
    )


PADDING = bytes.fromhex("28BF4E5E4E758A4164004E56FFFA01082E2E00B6D0683E802F0CA9FE6453697A")


def encrypted_pdf(line: str, password: str) -> bytes:
    """One line of text, encrypted with the standard handler's first revision (40 bits of RC4)."""
    padded = (password.encode() + PADDING)[:32]
    owner = _rc4(_md5(padded)[:5], padded)
    file_id = bytes(16)
    key = _md5(padded + owner + struct.pack("<i", -4) + file_id)[:5]
    content = _rc4(_md5(key + b"\4\0\0" + b"\0\0")[:10], text_page([line]))
    page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Contents 4 0 R/Resources"
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        page + b"<</Font<</F1<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>>>>>>>",
        b"<</Length %d>>stream\n%b\nendstream" % (len(content), content),
        b"<</Filter/Standard/V 1/R 2/P -4/O<%b>/U<%b>>>"
        % (owner.hex().encode(), _rc4(key, PADDING).hex().encode()),
    ]
    identity = file_id.hex().encode()
    return assembled(objects, b"/Encrypt 5 0 R/ID[<%b><%b>]" % (identity, identity))


def _md5(data: bytes) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).digest()


def _rc4(key: bytes, data: bytes) -> bytes:
    state, j = list(range(256)), 0
    for i in range(256):
        j = (j + state[i] + key[i % len(key)]) % 256
        state[i], state[j] = state[j], state[i]
    out, i, j = bytearray(), 0, 0
    for byte in data:
        i = (i + 1) % 256
        j = (j + state[i]) % 256
        state[i], state[j] = state[j], state[i]
        out.append(byte ^ state[(state[i] + state[j]) % 256])
    return bytes(out)


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
