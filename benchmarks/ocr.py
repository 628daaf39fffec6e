"""Pages per second and character error rate of text recognition, against RapidOCR page by page.

    python benchmarks/ocr.py [--rounds 3] [--concurrency 8] [--threads N] [--engine rapidocr]

The same pages of known text, as PNG files, go to the library one after the other (its own settings:
all cores for each network) and to our engine from as many clients at once; in interleaved rounds of
one process.
"""

from __future__ import annotations

import gc
import os
import random
import sys
import time
from collections.abc import Callable
from typing import Any

import rapidocr
from harness import ROOT, Goal, Measure, Report, in_turns, parser, report

from models.base import TextRecognizer
from models.ocr.lines import in_reading_order
from models.types.pages import OcrRequest, OcrResult, Page, TextLine

sys.path.insert(0, str(ROOT))
from tests.rendered_pages import (
    Sample,
    character_error_rate,
    encoded,
    noisy,
    page,
    receipt,
    table,
    two_columns,
)

_WORDS = """
the a of to in is was for with on as by at from it that an be this are which or had not but river
winter station history company number member system between during several increase market report
value table question answer water summer paper letter record
"""
WORDS = _WORDS.split()
RATE, OURS, PEER = "pages/s", "ours", "RapidOCR"


def prose(seed: int, lines: int, words: int) -> list[str]:
    chosen = random.Random(seed)
    return [" ".join(chosen.choices(WORDS, k=words)).capitalize() + "." for _ in range(lines)]


def amounts(seed: int, rows: int, columns: int) -> list[list[str]]:
    chosen = random.Random(seed)
    return [
        [
            chosen.choice(WORDS).capitalize(),
            *(f"{chosen.uniform(1, 900):.2f}" for _ in range(columns - 1)),
        ]
        for _ in range(rows)
    ]


def letter(seed: int) -> Sample:
    lines = prose(seed, 24, 9)
    return Sample(page(lines, 20, 1000, font="serif"), "\n".join(lines))


def columns(seed: int) -> Sample:
    left, right = prose(seed, 18, 6), prose(seed + 1, 18, 6)
    return Sample(two_columns(left, right, 18, "sans"), "\n".join((*left, *right)))


def prices(seed: int) -> Sample:
    rows = amounts(seed, 16, 4)
    return Sample(table(rows, font="sans"), "\n".join(map(" ".join, rows)))


def till(seed: int) -> Sample:
    rows = [(name, amount) for name, amount in amounts(seed, 20, 2)]
    return Sample(noisy(receipt(rows), 12, seed), "\n".join(map(" ".join, rows)))


KINDS: dict[str, Callable[[int], Sample]] = {
    "letter": letter,
    "columns": columns,
    "table": prices,
    "receipt": till,
}


def by_library(library: Any, images: list[bytes]) -> tuple[float, list[Page]]:
    """(seconds, pages), one after the other; its lines are put in our reading order afterwards."""
    start = time.perf_counter()
    answers = [library(image) for image in images]
    seconds = time.perf_counter() - start
    return seconds, [_page(answer) for answer in answers]


def _page(answer: Any) -> Page:
    found = zip(answer.txts or (), answer.scores or (), answer.boxes, strict=True)
    lines = []
    for text, score, box in found:
        polygon: Any = tuple(map(tuple, box.tolist()))
        lines.append(TextLine(text, score, polygon))
    return in_reading_order(answer.img.shape[1], answer.img.shape[0], lines)


def by_ours(engine: TextRecognizer, images: list[bytes]) -> tuple[float, list[Page]]:
    """The same with every page a request of its own, all at once."""
    start = time.perf_counter()
    futures = [engine.submit([OcrRequest((image,))]) for image in images]
    answers = [future.result()[0] for future in futures]
    seconds = time.perf_counter() - start
    return seconds, [answer.pages[0] for answer in answers if isinstance(answer, OcrResult)]


def engine_of(name: str, threads: int) -> TextRecognizer:
    if name == "tesseract":
        from models.ocr.tesseract import TesseractRecognizer

        return TesseractRecognizer(n_threads=threads)
    from models.ocr.rapid import RapidOcrRecognizer

    return RapidOcrRecognizer(n_threads=threads)


def compare(
    found: Report, kind: str, library: Any, engine: TextRecognizer, concurrency: int, rounds: int
) -> None:
    samples = [KINDS[kind](seed) for seed in range(concurrency)]
    images = [encoded(sample.image) for sample in samples]
    read: dict[str, list[Page]] = {}

    def measure(name: str, run: Callable[[], tuple[float, list[Page]]]) -> Measure:
        def once() -> dict[str, float]:
            gc.collect()
            seconds, read[name] = run()
            return {RATE: len(images) / seconds, "CER": _error_rate(samples, read[name])}

        return once

    sides = {
        OURS: measure(OURS, lambda: by_ours(engine, images)),
        PEER: measure(PEER, lambda: by_library(library, images)),
    }
    measured = in_turns(sides, rounds)
    errors = {name: measured.values[name].pop("CER")[0] for name in sides}
    found.compare(kind, measured, OURS, {(PEER, RATE): Goal(1.5)})
    rates = ", ".join(f"{name} {rate:.4f}" for name, rate in errors.items())
    found.note(f"{kind}: character error rate", rates)
    found.note(f"{kind}: lines of other text", _differences(read[OURS], read[PEER]))


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--concurrency", type=int, default=8)
    arguments.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    arguments.add_argument("--engine", choices=("rapidocr", "tesseract"), default="rapidocr")
    options = arguments.parse_args()
    found = report(f"OCR, {options.concurrency} pages at once")
    library = rapidocr.RapidOCR(params={"Global.log_level": "critical"})
    engine = engine_of(options.engine, options.threads)
    for kind in KINDS:
        compare(found, kind, library, engine, options.concurrency, options.rounds)
    engine.close()
    found.write()


def _differences(ours: list[Page], theirs: list[Page]) -> str:
    """How many of our lines the library did not read just so, of all."""
    total = other = 0
    for page_of_ours, page_of_theirs in zip(ours, theirs, strict=True):
        rest = [line.text for line in page_of_theirs.lines]
        for line in page_of_ours.lines:
            total += 1
            if line.text in rest:
                rest.remove(line.text)
            else:
                other += 1
    return f"{other} of {total}"


def _error_rate(samples: list[Sample], pages: list[Page]) -> float:
    rates = [
        character_error_rate(sample.text, found.text)
        for sample, found in zip(samples, pages, strict=True)
    ]
    return sum(rates) / len(rates)


if __name__ == "__main__":
    main()
