"""Characters that XML 1.0 can carry."""

from __future__ import annotations

import re

FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def xml_text(text: str) -> str:
    """The text with U+FFFD for what XML forbids even when escaped."""
    return FORBIDDEN.sub("\ufffd", text)
