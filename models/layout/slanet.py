"""SLANet-plus: the cells of a table, from a picture of it (PaddlePaddle's export to ONNX).

The network writes the table's structure as HTML, tag by tag, and for each the corners of
its cell as shares of the square that the picture was fitted into.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import onnxruntime

from models.encoders.onnx_session import SESSION_ERRORS
from models.errors import ModelLoadError
from models.types.pages import PixelArray, TableCell

SIDE = 488
"""Pixels of the square."""
MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
STD = np.array([0.229, 0.224, 0.225], dtype=np.float32)
"""Of ImageNet, though in the order of BGR, as it was trained."""
SPAN = re.compile(r' (col|row)span="(\d+)"')
SILENT = 4
"""Only what is fatal is logged: the graph's loop warns at every tag."""

Token = tuple[str, tuple[float, float, float, float]]
Floats = npt.NDArray[np.float32]


class TableReader:
    """Finds the cells of one table. Thread-safe; `n_threads` is the CPU share."""

    def __init__(self, file: Path, n_threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = n_threads
        options.inter_op_num_threads = 1
        options.log_severity_level = SILENT
        self._options = onnxruntime.RunOptions()
        self._options.log_severity_level = SILENT
        try:
            self._session: Any = onnxruntime.InferenceSession(
                str(file), options, providers=["CPUExecutionProvider"]
            )
            tokens = self._session.get_modelmeta().custom_metadata_map["character"].split("\n")
        except (*SESSION_ERRORS, KeyError) as error:
            raise ModelLoadError("The table model is not a SLANet graph with tokens.") from error
        self._input = self._session.get_inputs()[0].name
        known = [tag for tag in tokens if tag not in {"<td>", "<td></td>"}]
        self._tokens = ["", *known, "<td></td>", "end"]
        self.memory_bytes = file.stat().st_size

    def cells(self, pixels: PixelArray) -> tuple[TableCell, ...]:
        """Cells in pixels of the picture, row by row."""
        height, width = pixels.shape[:2]
        scale = SIDE / max(height, width)
        size = (max(1, int(width * scale)), max(1, int(height * scale)))
        resized = cv2.resize(pixels[:, :, ::-1], size).astype(np.float32)
        square = np.zeros((SIDE, SIDE, 3), dtype=np.float32)
        square[: size[1], : size[0]] = (resized / 255 - MEAN) / STD
        given = {self._input: square.transpose(2, 0, 1)[np.newaxis]}
        corners, chances = self._session.run(None, given, self._options)
        return tuple(cells_of_tokens(list(self._written(corners[0], chances[0], SIDE / scale))))

    def _written(self, corners: Floats, chances: Floats, side: float) -> Iterator[Token]:
        """Tokens up to the end, with the bounds of their corners in pixels."""
        for place, index in enumerate(chances.argmax(axis=1)):
            tag = self._tokens[index]
            if tag == "end":
                return
            xs, ys = corners[place][0::2] * side, corners[place][1::2] * side
            yield tag, (float(xs.min()), float(ys.min()), float(xs.max()), float(ys.max()))


def cells_of_tokens(tokens: Sequence[Token]) -> list[TableCell]:
    """Places in the grid, from the order of rows and cells and how far each cell spans."""
    taken: set[tuple[int, int]] = set()
    cells: list[TableCell] = []
    row = -1
    for index, (tag, box) in enumerate(tokens):
        if tag == "<tr>":
            row += 1
        elif tag.startswith("<td") and row >= 0:
            spans = _spans(tokens, index + 1) if tag == "<td" else {}
            column = next(c for c in range(len(taken) + 1) if (row, c) not in taken)
            cell = TableCell(row, column, spans.get("row", 1), spans.get("col", 1), box)
            taken |= {
                (row + y, column + x) for y in range(cell.row_span) for x in range(cell.column_span)
            }
            cells.append(cell)
    return cells


def _spans(tokens: Sequence[Token], start: int) -> dict[str, int]:
    """What stands between `<td` and `>`."""
    spans: dict[str, int] = {}
    for tag, _ in tokens[start : start + 2]:
        match = SPAN.fullmatch(tag)
        if match is None:
            break
        spans[match[1]] = int(match[2])
    return spans
