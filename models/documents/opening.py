"""From a file to its pages, whatever its format."""

from __future__ import annotations

import mmap
import tempfile
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from models.documents.limits import DocumentLimits
from models.documents.pdf import PdfDocument
from models.documents.selection import select_pages
from models.errors import InvalidInputError, UnsupportedInputError
from models.file_formats import PDF_MAGIC_WITHIN, sniff_document, tiff_frames
from models.ocr.images import ImageDecoder, ImageLimits
from models.types.pages import DocumentRequest, Page, PixelArray

COUNTING_BOUND = 100_000


@dataclass(frozen=True, slots=True)
class SourcePage:
    """A page to be read: its pixels, or, where the document brings its text along, that text."""

    index: int
    content: PixelArray | Page
    dpi: int | None = None


class Document(Protocol):
    """Pages of one request, of which any may be asked for; used by one thread at a time."""

    @property
    def selected(self) -> list[int]:
        """The pages that the request wants."""

    def page(self, index: int) -> SourcePage:
        """Raises InvalidInputError. Blocking."""

    def picture(self, index: int) -> SourcePage:
        """The page's pixels, whatever it says. Raises InvalidInputError. Blocking."""

    def close(self) -> None:
        """May come from any thread: rendering that is under way fails. Blocking."""


def open_document(file: BinaryIO, request: DocumentRequest, limits: DocumentLimits) -> Document:
    """The document in an open file, a real one. Blocking.

    Raises InvalidInputError for pages that it does not have, UnsupportedInputError for what cannot
    be read. The file must stay open as long as the document.
    """
    format_name = _format(file, request.param)
    if format_name == "PDF":
        return PdfPages(file, request, limits)
    return ImagePages(file.read(limits.max_image_bytes + 1), format_name, request, limits)


def count_pages(file: BinaryIO, limits: DocumentLimits) -> int | None:
    """Pages of a file that a client has uploaded; None when it is no document or unreadable."""
    try:
        format_name = _format(file, None)
        if format_name == "TIFF":
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return tiff_frames(data, COUNTING_BOUND) or None
        if format_name != "PDF":
            return 1
        document = PdfDocument(file, limits, password=None, param=None)
    except InvalidInputError:
        return None
    document.close()
    return document.page_count


def as_file(content: bytes) -> BinaryIO:
    """A nameless file, since the process that reads it inherits a descriptor."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    file.write(content)
    file.flush()
    file.seek(0)
    return file


class PdfPages:
    """Of a PDF file: text where the page has some, pixels where it has none."""

    def __init__(self, file: BinaryIO, request: DocumentRequest, limits: DocumentLimits) -> None:
        self._pdf = PdfDocument(file, limits, password=request.password, param=request.param)
        self._dpi = request.dpi
        self._force_ocr = request.force_ocr
        try:
            self.selected = select_pages(request.pages, self._pdf.page_count, limits.max_pages)
        except InvalidInputError:
            self.close()
            raise

    def page(self, index: int) -> SourcePage:
        if not self._force_ocr:
            layer = self._pdf.text_layer(index, self._dpi)
            if layer.usable:
                return SourcePage(index, layer.page(), self._dpi)
        return self.picture(index)

    def picture(self, index: int) -> SourcePage:
        """The page as it looks, whatever it says."""
        return SourcePage(index, self._pdf.render(index, self._dpi), self._dpi)

    def close(self) -> None:
        self._pdf.close()


class ImagePages:
    """The frames of a TIFF file, or the one page of another image."""

    def __init__(
        self, data: bytes, format_name: str, request: DocumentRequest, limits: DocumentLimits
    ) -> None:
        frames = tiff_frames(data, limits.max_pages + 1) if format_name == "TIFF" else 1
        self.selected = select_pages(request.pages, max(1, frames), limits.max_pages)
        self._data = data
        bounds = ImageLimits(limits.max_image_bytes, limits.max_pixels, limits.page_seconds)
        self._decoder = ImageDecoder(bounds)
        self._param = request.param

    def page(self, index: int) -> SourcePage:
        try:
            return SourcePage(index, self._decoder.decode(self._data, index))
        except InvalidInputError as error:
            raise type(error)(error.message, self._param) from None

    def picture(self, index: int) -> SourcePage:
        return self.page(index)

    def close(self) -> None:
        self._decoder.close()


def _format(file: BinaryIO, param: str | None) -> str:
    file.seek(0)
    head = file.read(PDF_MAGIC_WITHIN)
    file.seek(0)
    if not head:
        raise InvalidInputError("The document is empty.", param)
    format_name = sniff_document(head)
    if format_name is None:
        raise UnsupportedInputError(
            "The document is not a PDF, PNG, JPEG, WebP, TIFF, BMP or GIF file.", param
        )
    return format_name
