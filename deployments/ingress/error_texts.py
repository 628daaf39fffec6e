"""What an error may say to a client: nothing of this machine, whoever composed the sentence."""

from __future__ import annotations

import re

MAX_CHARS = 1000
HIDDEN = "…"
TRACEBACK = re.compile(r"Traceback \(most recent call last\).*", re.DOTALL)
SECRETS = re.compile(
    r"""
    <[^<>]{0,200}\bobject\ at\b[^<>]{0,100}>     # repr of an object
    | \b0x[0-9a-fA-F]{6,}\b                      # an address
    | (?<![\w.:/-])/(?:bin|dev|etc|home|lib\w*|mnt|nix|opt|private|proc|root|run|srv|sys|tmp|Users
        |usr|var|work|data|media|app)(?:/[^\s'",;:)]*)?(?![\w-])   # a path of ours
    | \b[A-Za-z]:\\[^\s'",;]*                    # one of Windows
    | \bfile://[^\s'",;)]*
    | \b(?i:bearer)\s+[\w.~+/=-]{8,}             # keys
    | \b(?:sk|hf)[-_][\w-]{8,}
    """,
    re.VERBOSE,
)
CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")


def presentable(message: str) -> str:
    """The sentence without paths, addresses, keys, tracebacks and control characters."""
    text = TRACEBACK.sub(HIDDEN, message[: 4 * MAX_CHARS])
    text = CONTROLS.sub(" ", SECRETS.sub(HIDDEN, text)).strip()
    return text if len(text) <= MAX_CHARS else text[:MAX_CHARS] + HIDDEN
