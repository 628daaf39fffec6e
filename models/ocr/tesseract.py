"""Text recognition with the system's Tesseract, one process per page.

The program is called directly. A binding inside our process could not be stopped in the middle of a
page, and those that call the program go through temporary files and our whole environment. Pages
come decoded, as plain pixels, so that Tesseract's own readers of image formats see no stranger's
file; the process has a deadline of wall time and one thread, pages run side by side.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence

from models.batching import BatchListener
from models.errors import ModelError, ModelLoadError, UnsupportedInputError
from models.ocr.images import PARAM
from models.ocr.languages import ALPHA3, TRADITIONAL_CHINESE, canonical, unreadable
from models.ocr.lines import in_reading_order
from models.ocr.page_batches import PageImage
from models.ocr.page_recognizer import PageRecognizer
from models.ocr.tesseract_table import text_lines
from models.types.pages import Page, PixelArray

INSTALL_HINT = (
    "The program 'tesseract' is not installed on this server "
    "(on Debian: apt-get install tesseract-ocr, and tesseract-ocr-deu and so on for languages)."
)
NOT_INSTALLED_RETRY = 3600.0
LISTING_SECONDS = 30.0
NO_LANGUAGES = frozenset({"osd", "equ"})
"""Data of orientation and of formulas, which are listed too."""
FILES = {"zh": "chi_sim", TRADITIONAL_CHINESE: "chi_tra"}
AUTOMATIC_SEGMENTATION = 3
MIN_CONFIDENCE = 0.3


class TesseractRecognizer(PageRecognizer):
    """A `TextRecognizer` with words. `languages`: what requests read that name none, as they would.

    `page_seconds` of wall time per page, `page_segmentation` is Tesseract's `--psm`. Raises
    ModelLoadError when the program or a language is missing.
    """

    def __init__(
        self,
        *,
        n_threads: int,
        languages: Sequence[str] = ("en",),
        page_segmentation: int = AUTOMATIC_SEGMENTATION,
        page_seconds: float = 30.0,
        min_confidence: float = MIN_CONFIDENCE,
        max_pixels: int = 40_000_000,
        max_queued: int = 256,
        on_batch: BatchListener | None = None,
    ) -> None:
        program = shutil.which("tesseract")
        if program is None:
            raise ModelLoadError(INSTALL_HINT, NOT_INSTALLED_RETRY)
        self._program = program
        self._options = ["--psm", str(int(page_segmentation))]
        self._page_seconds = page_seconds
        self._min_confidence = min_confidence
        self.languages = self._list_languages()
        """Names of the installed data files."""
        self._default = self._default_files(languages)
        super().__init__(  # no memory: weights live and end with the process of each page
            n_threads=n_threads,
            max_pixels=max_pixels,
            max_queued=max_queued,
            batch_pages=max(4, 2 * n_threads),
            on_batch=on_batch,
        )

    def _read(self, pages: list[PageImage]) -> list[Page | ModelError]:
        return list(self._threads.map(self._page, pages))

    def _page(self, page: PageImage) -> Page | ModelError:
        try:
            files = self._files(page.languages) or self._default
            pixels = self._decoder.pixels(page.image)
            table = self._run(pixels, files)
        except ModelError as error:
            return error
        lines = [line for line in text_lines(table) if line.confidence >= self._min_confidence]
        return in_reading_order(pixels.shape[1], pixels.shape[0], lines)

    def _run(self, pixels: PixelArray, languages: Sequence[str]) -> str:
        height, width = pixels.shape[:2]
        header = f"P6 {width} {height} 255\n".encode()
        command = ["-", "-", "-l", "+".join(languages), *self._options, "tsv"]
        try:
            done = self._call(command, header + pixels.tobytes(), self._page_seconds)
        except subprocess.TimeoutExpired:
            raise UnsupportedInputError("The page takes too much time to read.", PARAM) from None
        if done.returncode:
            raise UnsupportedInputError("Tesseract cannot read the page.", PARAM)
        return done.stdout.decode("utf-8", errors="replace")

    def _call(
        self, arguments: Sequence[str], data: bytes, seconds: float
    ) -> subprocess.CompletedProcess[bytes]:
        """Kills the process when its time is over, and raises TimeoutExpired."""
        environment = {"OMP_THREAD_LIMIT": "1", "LC_ALL": "C"}
        if "TESSDATA_PREFIX" in os.environ:
            environment["TESSDATA_PREFIX"] = os.environ["TESSDATA_PREFIX"]
        return subprocess.run(  # noqa: S603 - no shell; languages are names that it listed itself
            [self._program, *arguments],
            input=data,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            timeout=seconds,
            check=False,
        )

    def _list_languages(self) -> frozenset[str]:
        try:
            listing = self._call(["--list-langs"], b"", LISTING_SECONDS).stdout.decode()
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            raise ModelLoadError("Tesseract does not tell its languages.") from error
        found = frozenset(listing.split("\n")[1:]) - NO_LANGUAGES - {""}
        if not found:
            raise ModelLoadError("Tesseract has no languages installed.", NOT_INSTALLED_RETRY)
        return found

    def _default_files(self, languages: Sequence[str]) -> list[str]:
        try:
            return self._files(languages)
        except UnsupportedInputError as error:
            raise ModelLoadError(error.message, NOT_INSTALLED_RETRY) from error

    def _files(self, languages: Sequence[str]) -> list[str]:
        """Names of Tesseract's data files, each once; UnsupportedInputError for a missing one."""
        return list(dict.fromkeys(map(self._file, languages)))

    def _file(self, language: str) -> str:
        code = canonical(language)
        for name in (language, FILES.get(code), ALPHA3.get(code), code):
            if name in self.languages:
                return str(name)
        raise unreadable(language, self.languages)
