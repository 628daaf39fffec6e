"""What an output must be, as grammars in the dialect of Lark that llguidance reads.

A *body* is an expression that may stand wherever a rule may name something, so bodies compose:
`grammar('"{" ' + body + ' "}"')`. A *grammar* is a complete text for `GrammarCompiler.compile`.
Control tokens appear in neither unless by their ids (`token`).

White space: within JSON, one space may follow a comma or a colon and nothing else is allowed, for
small models write white space without end wherever they may.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

from llguidance import regex_to_lark

from models.errors import InvalidInputError
from models.structured.schema_limits import MAX_TEXT, is_text, parse_schema
from models.types.generation import OutputFormat

MAX_REGEX = 4096
MAX_CHOICES = 1024

PARAM = "response_format"

_JSON_OPTIONS = {
    "whitespace_flexible": False,
    "item_separator": ", ?",
    "key_separator": ": ?",
    # Without \u: otherwise an escaped spelling of a property's name gets past its schema.
    "json_allowed_escapes": 'nrbtf\\"',
}


def grammar_of(output_format: OutputFormat, param: str = PARAM) -> str:
    """The grammar of a whole completion in this format.

    Raises InvalidInputError, naming the request's field `param`, for a definition that is not
    valid or too large; what only the compiler can find out it refuses itself.
    """
    return grammar(body_of(output_format, param))


def grammar(body: str, *rules: str) -> str:
    """A grammar whose completions are `body`; `rules` are what the body names."""
    return "\n".join((f"start: {body}", *rules, ""))


def literal(part: str | int) -> str:
    """The expression that is exactly this text, or the control token of this id."""
    return token(part) if isinstance(part, int) else json.dumps(part, ensure_ascii=False)


def token(token_id: int) -> str:
    """The expression that is one token, control tokens included."""
    return f"<[{token_id}]>"


def body_of(output_format: OutputFormat, param: str = PARAM) -> str:
    """The expression that fits what is in this format. Raises as `grammar_of`."""
    definition = output_format.definition
    if output_format.kind == "json_object":
        return _json({"type": "object"})
    if output_format.kind == "json_schema":
        return json_body(definition, param)
    if output_format.kind == "regex":
        return _regex(definition, param)
    return _choice(definition, param)


def json_body(schema: str, param: str) -> str:
    """The expression that fits JSON valid under a JSON Schema, given as text."""
    return _json(parse_schema(schema, param))


def json_grammar(schema: dict[str, Any]) -> str:
    """The grammar of JSON valid under a schema that `parse_schema` has accepted."""
    return grammar(_json(schema))


def _json(schema: dict[str, Any]) -> str:
    # Written anew, so that what is compiled is what was checked, and our options are the last.
    return "%json " + json.dumps({**schema, "x-guidance": _JSON_OPTIONS})


def _regex(pattern: str, param: str) -> str:
    """The whole output must match; the syntax is that of Rust's `regex`, `\\d` is 0 to 9."""
    if not 0 < len(pattern) <= MAX_REGEX:
        _refuse(f"The regular expression must have 1 to {MAX_REGEX} characters.", param)
    if not is_text(pattern):
        _refuse("The regular expression must not contain control characters.", param)
    return "/" + regex_to_lark(pattern, "d") + "/"


def _choice(definition: str, param: str) -> str:
    if len(definition) > MAX_TEXT:
        _refuse(f"The choices must not be larger than {MAX_TEXT // 1024} KiB.", param)
    try:
        choices = json.loads(definition)
    except (ValueError, RecursionError):
        choices = None
    if not isinstance(choices, list) or not all(isinstance(c, str) and c for c in choices):
        _refuse("The choices must be a list of texts that are not empty.", param)
    if not 0 < len(choices) <= MAX_CHOICES:
        _refuse(f"There must be 1 to {MAX_CHOICES} choices.", param)
    if not all(map(is_text, choices)):
        _refuse("The choices must not contain control characters.", param)
    return f"({' | '.join(map(literal, dict.fromkeys(choices)))})"


def _refuse(message: str, param: str) -> NoReturn:
    raise InvalidInputError(message, param)
