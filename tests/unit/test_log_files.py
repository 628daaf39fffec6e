"""Log files: each line is written once, and they are rotated."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from logging.handlers import MemoryHandler, RotatingFileHandler
from pathlib import Path

import pytest

from deployments.ingress.observing.log_files import write_each_line_once

LIMIT = 100


class Counting(logging.Formatter):
    count = 0

    def format(self, record: logging.LogRecord) -> str:
        self.count += 1
        return super().format(record)


@pytest.fixture(params=[True, False], ids=["buffered", "plain"])
def written(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Counting]:
    """A logger as Serve makes it, with its handlers one behind the other, and one without."""
    formatter = Counting()
    file = RotatingFileHandler(tmp_path / "log", maxBytes=LIMIT, backupCount=1)
    file.setFormatter(formatter)
    handler = MemoryHandler(1, target=file) if request.param else file
    logger = logging.getLogger("test_log_files")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    write_each_line_once(logger.name)
    yield formatter
    logger.removeHandler(handler)
    file.close()


def test_each_line_is_formatted_once_and_in_the_file_at_once(
    written: Counting, tmp_path: Path
) -> None:
    logger = logging.getLogger("test_log_files")
    for index in range(3):
        logger.info("line %d", index)
        assert (tmp_path / "log").read_text().endswith(f"line {index}\n")
    assert written.count == 3


@pytest.mark.usefixtures("written")
def test_a_full_file_is_rotated_and_no_line_is_lost(tmp_path: Path) -> None:
    logger = logging.getLogger("test_log_files")
    line = "x" * (LIMIT - 2)
    logger.info(line)
    assert not (tmp_path / "log.1").exists()  # one more character fits
    logger.info("second")
    logger.info("third")
    assert (tmp_path / "log.1").read_text() == f"{line}\nsecond\n"
    assert (tmp_path / "log").read_text() == "third\n"
