"""Finding lines, then reading those of all pages: with networks made up for the test."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from models.errors import ModelError, UnsupportedInputError
from models.ocr.lines import ReadLine
from models.ocr.two_stage import LineNetworks, TwoStageRecognizer
from models.types.pages import OcrRequest, OcrResult, PixelArray

WAIT = 60.0


def lines_of(*marks: int) -> PixelArray:
    """A page of lines of 40 x 20 pixels, each with its mark in blue, and red at its left end."""
    page = np.zeros((40 * len(marks), 200, 3), dtype=np.uint8)
    for row, mark in enumerate(marks):
        page[40 * row : 40 * row + 20, 50:90, 2] = mark
        page[40 * row : 40 * row + 20, 50:60, 0] = 255
    return page


class Networks:
    """Finds a box per mark; reads a mark as a number, surely only if the red end is on the left."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.alone: list[bool] = []
        self.doubtful: set[int] = set()

    def find(self, page: PixelArray, alone: bool) -> np.ndarray:
        self.alone.append(alone)
        tops = range(0, page.shape[0], 40) if page[:, :, 0].any() else []
        corners = [[(50, y), (90, y), (90, y + 20), (50, y + 20)] for y in tops]
        return np.array(corners, dtype=np.float32).reshape(-1, 4, 2)

    def upside_down(self, crops: Sequence[PixelArray]) -> list[bool]:
        return [int(crop[:, :, 0].max()) in self.doubtful for crop in crops]

    def read(self, crops: Sequence[PixelArray]) -> list[ReadLine]:
        self.batches.append(len(crops))
        return [
            ReadLine(str(crop[10, 20, 0]), 0.9 if crop[10, 4, 2] > 99 else 0.6) for crop in crops
        ]


@pytest.fixture
def networks() -> Networks:
    return Networks()


@pytest.fixture
def recognizer(networks: Networks) -> Iterator[TwoStageRecognizer]:
    engine = TwoStageRecognizer(
        LineNetworks(
            find=networks.find,
            upside_down=networks.upside_down,
            read=networks.read,
            languages=frozenset({"en"}),
            memory_bytes=7,
        ),
        n_threads=2,
    )
    yield engine
    engine.close()


def read(engine: TwoStageRecognizer, *requests: OcrRequest) -> list[OcrResult | ModelError]:
    return engine.submit(requests).result(WAIT)


def texts(result: OcrResult | ModelError) -> list[str]:
    assert isinstance(result, OcrResult), result
    return [page.text for page in result.pages]


def test_lines_of_all_pages_are_read_together(
    recognizer: TwoStageRecognizer, networks: Networks
) -> None:
    first = OcrRequest((lines_of(11, 12), lines_of(13)))
    second = OcrRequest((np.zeros((40, 200, 3), dtype=np.uint8), lines_of(14)))
    results = read(recognizer, first, second)
    assert [texts(result) for result in results] == [["11\n12", "13"], ["", "14"]]
    assert networks.batches == [4]
    assert networks.alone == [False] * 4
    assert texts(read(recognizer, OcrRequest((lines_of(15),)))[0]) == ["15"]
    assert networks.alone[4:] == [True]
    assert recognizer.memory_bytes == 7


def test_a_line_taken_for_upside_down_is_read_the_surer_way(
    recognizer: TwoStageRecognizer, networks: Networks
) -> None:
    """The first was judged wrongly; the second does stand on its head."""
    networks.doubtful = {21, 22}
    upright, turned = lines_of(21), lines_of(22)[::-1, ::-1]
    page = np.concatenate([upright, np.roll(turned, (-20, -60), axis=(0, 1))])
    (result,) = read(recognizer, OcrRequest((np.ascontiguousarray(page),)))
    assert texts(result) == ["21\n22"]
    assert isinstance(result, OcrResult)
    assert [line.confidence for line in result.pages[0].lines] == [0.9, 0.9]
    assert networks.batches == [4]


def test_another_language_fails_its_own_request(recognizer: TwoStageRecognizer) -> None:
    page = lines_of(31)
    bad, good = read(recognizer, OcrRequest((page,), ("ru",)), OcrRequest((page,), ("eng",)))
    assert isinstance(bad, UnsupportedInputError)
    assert texts(good) == ["31"]
