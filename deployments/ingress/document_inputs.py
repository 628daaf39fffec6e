"""What a request means by a document: bytes, base64, a data URI, a URL, an uploaded file."""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.requests import Request

from deployments.file_store import FileInfo, NoSuchFileError
from deployments.ingress.access.gate import caller_name
from deployments.ingress.errors import RequestRefused
from deployments.ingress.remote_files import RemoteFiles
from deployments.ingress.server import Server
from models.errors import InvalidInputError
from models.types.pages import StoredFile

CONTENT_PATH = re.compile(r"/v1/files/([^/]{1,64})/content")
INLINE_CHARS = 1 << 20
"""Of base64; more is decoded beside the event loop."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A document as a request has it: bytes, text (base64 or a URL), or an uploaded file.

    `param` is its wire name. `url`: text must be a URL, of data or of a server.
    """

    value: bytes | str | StoredFile
    param: str
    url: bool = False


@dataclass(frozen=True, slots=True)
class Input:
    """A document that can be read: its bytes, or an uploaded file that exists."""

    source: bytes | StoredFile
    param: str
    size: int


async def find_input(server: Server, request: Request, reference: Reference) -> Input:
    """Raises InvalidInputError for what is no document, RequestRefused (404) for no such file."""
    value, param = reference.value, reference.param
    if isinstance(value, StoredFile):
        info = await find_file(server, value.id, param)
        return Input(value, param, info.bytes)
    content = await _content(server, request, reference) if isinstance(value, str) else value
    if isinstance(content, StoredFile):
        return await find_input(server, request, Reference(content, param))
    return Input(content, param, len(content))


async def find_file(server: Server, file_id: str, param: str | None = None) -> FileInfo:
    """Raises RequestRefused (404), also for a file of another key."""
    info: FileInfo | None
    try:
        info = await asyncio.to_thread(server.files.get, file_id)
    except NoSuchFileError:
        info = None
    if info is None or info.owner != caller_name():
        raise RequestRefused(404, "There is no such file.", param)
    return info


async def _content(server: Server, request: Request, reference: Reference) -> bytes | StoredFile:
    text, param = str(reference.value), reference.param
    if text.startswith(("http://", "https://")):
        return _own_file(request, text) or await _fetched(server, text, param)
    if text.startswith("data:"):
        head, comma, text = text.partition(",")
        if not comma or not head.endswith(";base64"):
            raise InvalidInputError("A data URI must be base64.", param)
    elif reference.url:
        raise InvalidInputError("The URL must be of http, https or data.", param)
    if len(text) > INLINE_CHARS:
        return await asyncio.to_thread(_decoded, text, param)
    return _decoded(text, param)


def _own_file(request: Request, url: str) -> StoredFile | None:
    """The uploaded file that a URL of `/v1/files/{id}/url` names: it is not fetched."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    path = CONTENT_PATH.fullmatch(parts.path)
    if path is None or parts.netloc != request.url.netloc:
        return None
    return StoredFile(path[1])


async def _fetched(server: Server, url: str, param: str) -> bytes:
    settings = server.config.ocr
    if not settings.allow_remote_urls:
        raise InvalidInputError(
            "Remote URLs are turned off on this server: send the file itself.", param
        )
    remote = RemoteFiles(
        max_bytes=server.config.limits.max_upload_bytes, seconds=settings.remote_url_s
    )
    return await remote.fetch(url, param)


def _decoded(text: str, param: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidInputError("The document is not valid base64.", param) from None
