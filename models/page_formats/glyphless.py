"""A font without ink, for text that is to be found and copied but not seen.

Every character gets a code, all codes share one glyph half an em wide, and a ToUnicode map
says what each code means: any script needs the same 500 bytes of font. (Tesseract does the same
with a font file of its own.)
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from pikepdf import Array, Dictionary, Name, Object, Pdf, Stream, String

UNITS = 1000
ADVANCE = 500
ASCENT, DESCENT = 800, -200
FIXED_PITCH, SYMBOLIC = 1, 4
ON_CURVE = 1
MAX_CODES = 0xFFFF
MAPPINGS_AT_ONCE = 100
"""The most that one block of a CMap may have."""


class GlyphlessFont:
    """Codes of the characters of one document, given out as they come."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}

    def encode(self, text: str) -> str:
        """A hexadecimal PDF string. What does not fit into 65,535 codes becomes U+FFFD."""
        return "<" + "".join(f"{self._code(character):04X}" for character in text) + ">"

    def _code(self, character: str) -> int:
        if len(self._codes) >= MAX_CODES - 1 and character not in self._codes:
            character = "\ufffd"
        return self._codes.setdefault(character, len(self._codes) + 1)

    def embed(self, pdf: Pdf) -> Object:
        """The font with all codes that have been given out."""
        descriptor = Dictionary(
            Type=Name.FontDescriptor,
            FontName=Name.Glyphless,
            Flags=FIXED_PITCH | SYMBOLIC,
            FontBBox=Array([0, DESCENT, ADVANCE, ASCENT]),
            ItalicAngle=0,
            Ascent=ASCENT,
            Descent=DESCENT,
            CapHeight=ASCENT,
            StemV=80,
            FontFile2=Stream(pdf, font_file()),
        )
        glyphs = b"\0\0" + b"\0\1" * len(self._codes)
        descendant = Dictionary(
            Type=Name.Font,
            Subtype=Name.CIDFontType2,
            BaseFont=Name.Glyphless,
            CIDSystemInfo=Dictionary(
                Registry=String("Adobe"), Ordering=String("Identity"), Supplement=0
            ),
            DW=ADVANCE,
            FontDescriptor=pdf.make_indirect(descriptor),
            CIDToGIDMap=Stream(pdf, glyphs),
        )
        return Dictionary(
            Type=Name.Font,
            Subtype=Name.Type0,
            BaseFont=Name.Glyphless,
            Encoding=Name("/Identity-H"),
            DescendantFonts=Array([pdf.make_indirect(descendant)]),
            ToUnicode=Stream(pdf, self._to_unicode()),
        )

    def _to_unicode(self) -> bytes:
        lines = [
            "/CIDInit /ProcSet findresource begin",
            "12 dict begin begincmap",
            "/CIDSystemInfo <</Registry (Adobe) /Ordering (UCS) /Supplement 0>> def",
            "/CMapName /Adobe-Identity-UCS def /CMapType 2 def",
            "1 begincodespacerange <0000> <FFFF> endcodespacerange",
            *self._mappings(),
            "endcmap CMapName currentdict /CMap defineresource pop end end",
        ]
        return "\n".join(lines).encode("ascii")

    def _mappings(self) -> Iterator[str]:
        entries = [
            f"<{code:04X}> <{character.encode('utf-16-be', 'replace').hex().upper()}>"
            for character, code in self._codes.items()
        ]
        for start in range(0, len(entries), MAPPINGS_AT_ONCE):
            block = entries[start : start + MAPPINGS_AT_ONCE]
            yield "\n".join([f"{len(block)} beginbfchar", *block, "endbfchar"])


def font_file() -> bytes:
    """A TrueType file with the tables that PDF demands, and two glyphs, of which the second is a
    line without area: readers ask how large glyphs are, and drop what has no extent."""
    box = struct.pack(">4h", 0, DESCENT, ADVANCE, ASCENT)
    outline = struct.pack(
        ">2H2B4h", 1, 0, ON_CURVE, ON_CURVE, 0, ADVANCE, DESCENT, ASCENT - DESCENT
    )
    glyph = struct.pack(">h", 1) + box + outline
    tables = {
        b"glyf": glyph,
        b"head": struct.pack(">2I2I2H16x", 0x10000, 0x10000, 0, 0x5F0F3CF5, 0, UNITS)
        + box
        + struct.pack(">2H3h", 0, 8, 2, 0, 0),
        b"hhea": struct.pack(">I3hH", 0x10000, ASCENT, DESCENT, 0, ADVANCE)
        + struct.pack(">3h3h8xhH", 0, 0, ADVANCE, 1, 0, 0, 0, 2),
        b"hmtx": struct.pack(">HhHh", ADVANCE, 0, ADVANCE, 0),
        b"loca": struct.pack(">3H", 0, 0, len(glyph) // 2),
        b"maxp": struct.pack(">I3H22x", 0x10000, 2, 2, 1),
    }
    return _font_of(tables)


def _font_of(tables: dict[bytes, bytes]) -> bytes:
    """Tables by name in the container that TrueType shares with OpenType."""
    count = len(tables)
    power = 1 << (count.bit_length() - 1)
    head = struct.pack(
        ">I4H", 0x10000, count, 16 * power, power.bit_length() - 1, 16 * (count - power)
    )
    records, content = b"", b""
    for name, table in sorted(tables.items()):
        offset = len(head) + 16 * count + len(content)
        padded = table + bytes(-len(table) % 4)
        checksum = sum(struct.unpack(f">{len(padded) // 4}I", padded)) & 0xFFFFFFFF
        records += name + struct.pack(">3I", checksum, offset, len(table))
        content += padded
    return head + records + content
