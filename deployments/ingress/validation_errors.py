"""From pydantic's errors to one sentence: which field is at fault, and what it should be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from deployments.ingress.schemas import Body

Location = tuple[int | str, ...]
SCALARS = frozenset({"str", "int", "float", "bool"})
TAGS = frozenset({"predicate", "choice", "score", "text", "image_url"})
"""What `type` says where it tells the members of a union apart: pydantic puts it into the path."""
MAX_NAME = 64
SHOULD = "Input should be "


def is_of_a_request(error: ValidationError) -> bool:
    """Whether it is a client's body or query that has failed, and not an answer of the server's."""
    return error.title in map(_name_of, _below(Body))


def explain_validation(error: ValidationError) -> tuple[str | None, str]:
    """The wire name of the first field at fault, and a sentence that does not echo its value.

    Where a field may have one of several shapes, every shape has its errors: told is that of the
    shape which the value comes nearest to.
    """
    errors = error.errors(include_url=False, include_input=False)
    first = errors[0]
    if first["type"] == "json_invalid":
        return None, f"The body is not valid JSON: {first['msg'].removeprefix('Invalid JSON: ')}"
    nearest = _nearest(errors)
    param = ".".join(map(str, _path(nearest[0]["loc"]))) or None
    message = _joined(nearest)
    return param, f"{message} ({param})" if param else message


def _nearest(errors: Sequence[ErrorDetails]) -> list[ErrorDetails]:
    """The first error, or, if it is of one member of a union, those of the union's nearest ones."""
    at = errors[0]["loc"]
    union = next((i for i, part in enumerate(at) if not _names_a_field(part)), None)
    if union is None:
        return [errors[0]]
    rivals = [error for error in errors if error["loc"][:union] == at[:union]]
    best = max(map(_nearness, rivals))
    near = [error for error in rivals if _nearness(error) == best]
    return [error for error in near if _path(error["loc"]) == _path(near[0]["loc"])]


def _nearness(error: ErrorDetails) -> tuple[int, list[int], bool]:
    """How far into the value its shape fits it: deep, late in a list, at last by its type."""
    path = _path(error["loc"])
    places = [part for part in path if isinstance(part, int)]
    return len(path), places, not error["type"].endswith("_type")


def _joined(errors: Sequence[ErrorDetails]) -> str:
    """What the value should be, of all shapes that it is equally near to."""
    first, *others = dict.fromkeys(map(_sentence, errors))
    if not first.startswith(SHOULD):
        return first
    return " or ".join([first, *(o.removeprefix(SHOULD) for o in others if o.startswith(SHOULD))])


def _sentence(error: ErrorDetails) -> str:
    if error["type"] == "union_tag_invalid":  # pydantic's own repeats the tag
        return f"{SHOULD}of a type of {error['ctx']['expected_tags']}"
    return error["msg"].removeprefix("Value error, ")


def _path(location: Location) -> Location:
    """As the client wrote it, without what pydantic says of unions."""
    parts = [part for part in location if _names_a_field(part)]
    return tuple(part for place, part in enumerate(parts) if not _is_tag(parts, place))


def _is_tag(parts: Sequence[int | str], place: int) -> bool:
    """Between an index and a field; a field of that name has nothing after it."""
    if parts[place] not in TAGS or not 0 < place < len(parts) - 1:
        return False
    return isinstance(parts[place - 1], int) and isinstance(parts[place + 1], str)


def _names_a_field(part: int | str) -> bool:
    """False for the names of union members, which pydantic puts into the path, and for keys that a
    client made up at length."""
    if isinstance(part, int):
        return True
    return part.isidentifier() and len(part) <= MAX_NAME and not _names_a_member(part)


def _names_a_member(part: str) -> bool:
    """Schemas are called like no field, so that few parts have to be looked for."""
    return part in SCALARS or (part[0].isupper() and part in map(_name_of, _below(Body)))


def _name_of(schema: type[BaseModel]) -> str:
    return schema.__name__


def _below(schema: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for each in schema.__subclasses__():
        yield each
        yield from _below(each)
