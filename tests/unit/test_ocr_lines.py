"""Lines between the networks of a recogniser: boxes joined, crops cut, letters decoded, placed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from models.errors import InvalidInputError, UnsupportedInputError
from models.ocr.boxes import joined
from models.ocr.ctc import read_steps
from models.ocr.languages import ALPHA3, canonical, check_languages
from models.ocr.line_images import batches_by_width, line_input, line_share, line_width
from models.ocr.lines import FoundLine, ReadLine, WordSpan, cut_out, page_of

SQUARE = ((10.0, 20.0), (110.0, 20.0), (110.0, 40.0), (10.0, 40.0))


def box(left: float, top: float, right: float, bottom: float) -> list[tuple[float, float]]:
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def boxes(*corners: list[tuple[float, float]]) -> npt.NDArray[np.float32]:
    return np.array(corners, dtype=np.float32)


def turned(points: npt.NDArray[np.float32], degrees: float) -> npt.NDArray[np.float32]:
    angle = np.radians(degrees)
    matrix = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return np.asarray(points @ matrix, dtype=np.float32)


@pytest.mark.parametrize("degrees", [0.0, 4.0, -4.0])
def test_pieces_of_a_line_that_overlap_become_one(degrees: float) -> None:
    """The second pair is what detection finds in a tight picture of "Invoice 2041"."""
    pieces = boxes(box(0, 100, 50, 120), box(0, 16, 95, 45), box(79, 18, 145, 43))
    found = joined(turned(pieces, degrees))
    wanted = boxes(box(0, 100, 50, 120), box(0, 16, 145, 45))
    assert np.allclose(found, turned(wanted, degrees), atol=1e-3)


def test_many_pieces_are_one_line() -> None:
    pieces = boxes(*(box(40 * n, 10 + n % 2, 40 * n + 50, 40) for n in (2, 0, 3, 1)))
    assert np.allclose(joined(pieces), boxes(box(0, 10, 170, 40)))


@pytest.mark.parametrize(
    "pair",
    [
        (box(0, 0, 100, 30), box(101, 0, 200, 30)),  # side by side, apart
        (box(0, 0, 100, 30), box(0, 20, 100, 50)),  # one above the other
        (box(0, 0, 100, 90), box(90, 30, 200, 50)),  # a headline and a small line
        (box(0, 0, 30, 300), box(25, 0, 55, 300)),  # running downwards
    ],
)
def test_different_lines_stay_apart(pair: tuple[list[tuple[float, float]], ...]) -> None:
    assert np.array_equal(joined(boxes(*pair)), boxes(*pair))


def test_one_box_and_none_are_what_they_are() -> None:
    for count in (0, 1):
        some = boxes(box(0, 0, 9, 9))[:count]
        assert joined(some) is some


def test_a_crop_is_straight() -> None:
    page = np.zeros((60, 200, 3), dtype=np.uint8)
    page[20:40, 30:90] = 255
    crop, turn = cut_out(page, boxes(box(30, 20, 90, 40))[0])
    assert crop.shape == (20, 60, 3)
    assert turn == 0
    assert crop.mean() > 250


def test_text_that_runs_downwards_is_laid_on_its_side() -> None:
    page = np.zeros((200, 60, 3), dtype=np.uint8)
    page[:100] = 255  # the upper half is where its text begins
    crop, turn = cut_out(page, boxes(box(20, 20, 40, 180))[0])
    assert crop.shape == (20, 160, 3)
    assert turn == 1
    assert crop[:, :70].mean() > crop[:, 90:].mean()


READ = ReadLine("ab cd", 0.9, (WordSpan("ab", 0.8, 0.0, 0.4), WordSpan("cd", 1.0, 0.6, 1.0)))


@pytest.mark.parametrize(
    ("turn", "first", "last"),
    [
        (0, box(10, 20, 50, 40), box(70, 20, 110, 40)),
        (1, box(10, 20, 110, 28), box(10, 32, 110, 40)),  # downwards
        (2, box(70, 20, 110, 40), box(10, 20, 50, 40)),  # upside down
    ],
)
def test_words_lie_along_their_line(
    turn: int, first: list[tuple[float, float]], last: list[tuple[float, float]]
) -> None:
    crop = np.zeros((20, 100, 3), dtype=np.uint8)
    page = page_of(200, 100, [FoundLine(SQUARE, crop, turn)], [READ], 0.5)
    (line,) = page.lines
    assert [(word.text, word.confidence) for word in line.words] == [("ab", 0.8), ("cd", 1.0)]
    assert np.allclose(line.words[0].polygon, first)
    assert np.allclose(line.words[1].polygon, last)


def test_empty_and_doubtful_lines_are_left_out() -> None:
    line = FoundLine(SQUARE, np.zeros((20, 100, 3), dtype=np.uint8))
    read = [ReadLine(" ", 0.9), ReadLine("maybe", 0.49), ReadLine(" yes ", 0.5)]
    page = page_of(200, 100, [line] * 3, read, 0.5)
    assert [found.text for found in page.lines] == ["yes"]


def test_turning_a_line_turns_its_pixels() -> None:
    crop = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    line = FoundLine(SQUARE, crop, 1).turned()
    assert line.turn == 3
    assert np.array_equal(line.crop, crop[::-1, ::-1])


ALPHABET = ["blank", "a", "b", " "]


def steps(classes: list[int], chance: float = 0.9) -> npt.NDArray[np.float32]:
    probabilities = np.full((len(classes), len(ALPHABET)), (1 - chance) / 3, dtype=np.float32)
    probabilities[np.arange(len(classes)), classes] = chance
    return probabilities


def test_repeats_are_one_letter_and_a_blank_parts_them() -> None:
    read = read_steps(steps([1, 1, 0, 1, 2, 2]), ALPHABET, 1.0)
    assert (read.text, read.confidence) == ("aab", 0.9)
    assert [(word.text, word.start, word.end) for word in read.words] == [("aab", 0.0, 1.0)]


def test_words_have_their_place_and_their_own_confidence() -> None:
    probabilities = steps([0, 1, 0, 2, 0, 3, 0, 1, 0, 2, 0, 0, 0, 0, 0, 0])
    probabilities[7] = [0.1, 0.5, 0.2, 0.2]
    first, second = read_steps(probabilities, ALPHABET, 11 / 16).words
    assert (first.text, first.confidence) == ("ab", 0.9)
    assert (second.text, second.confidence) == ("ab", 0.7)
    # letters stand at 1.5, 3.5, 7.5, 9.5 of 11 steps, two apart
    assert np.allclose([first.start, first.end], [0.0, 4.5 / 11])
    assert np.allclose([second.start, second.end], [6.5 / 11, 1.0])


@pytest.mark.parametrize("classes", [[], [0, 0, 0], [3]])
def test_no_letters_no_words(classes: list[int]) -> None:
    assert read_steps(steps(classes), ALPHABET, 1.0).words == ()


def test_lines_of_one_width_share_batches() -> None:
    sizes = [(20, 100), (48, 96), (20, 102), (10, 5000), (48, 10), (20, 98)]
    crops = [np.zeros((height, width, 3), dtype=np.uint8) for height, width in sizes]
    assert [line_width(crop) for crop in crops] == [256, 96, 256, 3200, 96, 256]
    assert batches_by_width(crops, 512) == [
        (3200, [3]),
        (256, [0, 2]),
        (256, [5]),
        (96, [1, 4]),
    ]


def test_a_line_is_padded_with_grey() -> None:
    crop = np.full((24, 60, 3), 255, dtype=np.uint8)
    image = line_input(crop, 160)
    assert image.shape == (3, 48, 160)
    assert line_share(crop, 160) == 0.75
    assert np.all(image[:, :, :120] == 1)
    assert np.all(image[:, :, 120:] == 0)


@pytest.mark.parametrize(
    ("written", "code"),
    [
        *[("de", "de"), ("DEU", "de"), ("ger", "de"), ("de-AT", "de"), ("nob", "no")],
        *[("zh", "zh"), ("zh-Hant", "zh-hant"), ("zh_TW", "zh-hant"), ("chi_sim", "zh")],
        *[("ch_tra", "zh-hant"), ("iw", "he"), ("xx", "xx"), (" En ", "en")],
    ],
)
def test_languages_have_many_names(written: str, code: str) -> None:
    assert canonical(written) == code


def test_three_letter_codes_are_unique() -> None:
    assert len(set(ALPHA3.values())) == len(ALPHA3)
    assert all(canonical(three) == two for two, three in ALPHA3.items())


def test_a_language_that_is_not_there_is_named() -> None:
    check_languages(["DE", "eng"], {"de", "en"})
    with pytest.raises(UnsupportedInputError, match=r"'ru'; it reads: de, en\.") as caught:
        check_languages(["de", "ru"], {"en", "de"})
    assert isinstance(caught.value, InvalidInputError)
    assert caught.value.param == "languages"
