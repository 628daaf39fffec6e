"""/v1/files: OpenAI's files, with the pages and the URL that OCR clients ask for."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import asdict, replace
from typing import Annotated, Any, BinaryIO, Literal

from pydantic import Field
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from deployments.file_store import FileInfo, new_file_id
from deployments.ingress.access.gate import caller_name
from deployments.ingress.bodies import FORM, read_form
from deployments.ingress.document_inputs import find_file
from deployments.ingress.document_reading import ReadOptions, document_request
from deployments.ingress.errors import RequestRefused
from deployments.ingress.schemas import Body, Reply
from deployments.ingress.server import Endpoint, Server, check_count
from models.documents.limits import DocumentLimits
from models.documents.opening import count_pages
from models.errors import InvalidInputError
from models.file_formats import PDF_MAGIC_WITHIN, sniff_document
from models.types.pages import StoredFile

FORM_BYTES = 1 << 20
"""What a form may have besides its file."""
MAX_FILENAME = 255
CONTENT_TYPES = {
    "PDF": "application/pdf",
    "PNG": "image/png",
    "JPEG": "image/jpeg",
    "WEBP": "image/webp",
    "TIFF": "image/tiff",
    "GIF": "image/gif",
    "BMP": "image/bmp",
}
BINARY = "application/octet-stream"
KEEPERS = ThreadPoolExecutor(4, thread_name_prefix="keep-file")
"""Threads of their own: a file whose pages take long to count holds up other uploads only."""
Purpose = Literal["assistants", "batch", "fine-tune", "vision", "user_data", "evals", "ocr"]


class UploadBody(Body):
    """Fields of the form; `expires_after[anchor]` and `expires_after[seconds]` as OpenAI sends
    them."""

    file: str = Field(json_schema_extra={"format": "binary"})
    purpose: Purpose = "user_data"


class _Fields(Body):
    purpose: Purpose = "user_data"
    anchor: Literal["created_at"] = "created_at"
    seconds: Annotated[int, Field(ge=3600, le=2_592_000)] | None = None


class _Listing(Body):
    after: str | None = None
    limit: Annotated[int, Field(ge=1, le=10_000)] = 10_000
    order: Literal["asc", "desc"] = "desc"
    purpose: Purpose | None = None


class FileReply(Reply):
    """OpenAI's object; `content_type` and `page_count` are ours, told from the bytes.

    Mistral's clients demand the last three.
    """

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: str
    status: Literal["processed"] = "processed"
    content_type: str
    page_count: int | None = None
    sample_type: Literal["ocr_input"] = "ocr_input"
    source: Literal["upload"] = "upload"
    deleted: Literal[False] = False


class FileListReply(Reply):
    object: Literal["list"] = "list"
    data: list[FileReply]
    first_id: str | None
    last_id: str | None
    has_more: bool


class FileDeletedReply(Reply):
    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


class FileUrlReply(Reply):
    """What `document_url` of POST /v1/ocr takes."""

    url: str


class FileImage(Reply):
    index: int
    base64: str


class FileImagesReply(Reply):
    object: Literal["list"] = "list"
    data: list[FileImage]


async def upload(server: Server, request: Request, form: Any) -> FileReply:
    """Keep a file."""
    del form
    settings = server.config.files
    async with read_form(request, settings.max_file_bytes + FORM_BYTES, max_files=1) as parts:
        file = parts.get("file")
        if not isinstance(file, UploadFile):
            raise InvalidInputError("The form has no file in its field 'file'.", "file")
        size = file.size or 0
        if size > settings.max_file_bytes:
            message = f"The file is larger than the limit of {settings.max_file_bytes} bytes."
            raise RequestRefused(413, message, "file")
        fields = _fields(parts)
        now = int(time.time())
        info = FileInfo(
            id=new_file_id(),
            bytes=size,
            created_at=now,
            expires_at=now + int(min(settings.ttl_s, fields.seconds or settings.ttl_s)),
            filename=_display_name(file.filename),
            purpose=fields.purpose,
            content_type="",
            owner=caller_name(),
        )
        loop = asyncio.get_running_loop()
        return _reply(await loop.run_in_executor(KEEPERS, _keep, server, info, file.file))


def _keep(server: Server, info: FileInfo, file: BinaryIO) -> FileInfo:
    """Blocking: store the file with what its bytes tell."""
    head = file.read(PDF_MAGIC_WITHIN)
    kind = CONTENT_TYPES.get(sniff_document(head) or "")
    limits = DocumentLimits(page_seconds=server.config.documents.page_s)
    pages = count_pages(file, limits) if kind else None
    # The process that counts pages has moved the descriptor's offset: a seek to what this process
    # has buffered would not move it back. One to the end drops the buffer.
    file.seek(0, os.SEEK_END)
    file.seek(0)
    described = replace(info, content_type=kind or BINARY, page_count=pages)
    server.files.add(described, file)
    return described


def _fields(form: FormData) -> _Fields:
    names = {"purpose": "purpose"}
    names |= {f"expires_after[{name}]": name for name in ("anchor", "seconds")}
    values = {field: form[name] for name, field in names.items() if isinstance(form.get(name), str)}
    return _Fields.model_validate(values, strict=False)


def _display_name(name: str | None) -> str:
    """The last part of the client's name, for showing; it never becomes a path of ours."""
    last = re.split(r"[/\\]", name or "")[-1]
    printable = "".join(character for character in last if character.isprintable())
    return printable[:MAX_FILENAME] or "upload"


async def list_files(server: Server, request: Request, body: None) -> FileListReply:
    """List the files, the newest first unless `order` says otherwise."""
    del body
    query = _Listing.model_validate(dict(request.query_params), strict=False)
    files = await asyncio.to_thread(server.files.list)
    if query.order == "desc":
        files.reverse()
    files = [
        info
        for info in files
        if info.owner == caller_name() and query.purpose in (None, info.purpose)
    ]
    if query.after is not None:
        ids = [info.id for info in files]
        if query.after not in ids:
            raise InvalidInputError("There is no such file.", "after")
        files = files[ids.index(query.after) + 1 :]
    page = files[: query.limit]
    return FileListReply(
        data=[_reply(info) for info in page],
        first_id=page[0].id if page else None,
        last_id=page[-1].id if page else None,
        has_more=len(files) > len(page),
    )


async def describe_file(server: Server, request: Request, body: None) -> FileReply:
    """Describe a file."""
    del body
    return _reply(await find_file(server, request.path_params["id"]))


async def delete_file(server: Server, request: Request, body: None) -> FileDeletedReply:
    """Delete a file."""
    del body
    info = await find_file(server, request.path_params["id"])
    await asyncio.to_thread(server.files.delete, info.id)
    return FileDeletedReply(id=info.id)


async def file_content(server: Server, request: Request, body: None) -> Response:
    """The file itself. Never shown by a browser as a page of this server."""
    del body
    info = await find_file(server, request.path_params["id"])
    headers = {
        "content-length": str(info.bytes),
        "content-disposition": f'attachment; filename="{info.id}"',
        "x-content-type-options": "nosniff",
    }
    chunks = _chunks(server.files.chunks(info.id))
    return StreamingResponse(chunks, 200, headers, media_type=BINARY)


async def _chunks(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    while chunk := await asyncio.to_thread(next, chunks, b""):
        yield chunk


async def file_url(server: Server, request: Request, body: None) -> FileUrlReply:
    """A URL of the file, which POST /v1/ocr takes as `document_url`."""
    del body
    info = await find_file(server, request.path_params["id"])
    return FileUrlReply(url=str(request.url.replace(path=f"/v1/files/{info.id}/content", query="")))


async def file_images(server: Server, request: Request, body: None) -> FileImagesReply:
    """The pages of a file as base64 PNG images; `pages` and `dpi` in the query."""
    del body
    info = await find_file(server, request.path_params["id"])
    options = ReadOptions.model_validate(dict(request.query_params), strict=False)
    wanted = document_request(server, options, StoredFile(info.id), "id")
    limits = server.config.limits
    data: list[FileImage] = []
    size = 0
    async with aclosing(server.clients.ocr.page_images(wanted)) as images:
        async for index, image in images:
            check_count("pages", len(data) + 1, limits.max_images)
            size += len(image)
            if size > limits.max_upload_bytes:
                message = f"The images have more than {limits.max_upload_bytes} bytes: "
                raise InvalidInputError(message + "ask for fewer, or for less 'dpi'.", "pages")
            data.append(FileImage(index=index, base64=base64.b64encode(image).decode()))
    return FileImagesReply(data=data)


def _reply(info: FileInfo) -> FileReply:
    shown = asdict(info)
    del shown["owner"]
    return FileReply(**shown)


async def _unread(server: Server, request: Request) -> None:
    """The form is read where its files are used, since they end with it."""
    del server, request


FILE = "/v1/files/{id}"
ENDPOINTS = (
    Endpoint(
        "POST",
        "/v1/files",
        upload,
        "Files",
        body=UploadBody,
        response=FileReply,
        media_types=(FORM,),
        reader=_unread,
    ),
    Endpoint("GET", "/v1/files", list_files, "Files", response=FileListReply),
    Endpoint("GET", FILE, describe_file, "Files", response=FileReply),
    Endpoint("DELETE", FILE, delete_file, "Files", response=FileDeletedReply),
    Endpoint("GET", f"{FILE}/content", file_content, "Files"),
    Endpoint("GET", f"{FILE}/url", file_url, "Files", response=FileUrlReply),
    Endpoint("GET", f"{FILE}/images", file_images, "Files", response=FileImagesReply),
)
