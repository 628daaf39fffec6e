"""Boxes of text as a detector finds them: pieces of one line become one box."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.ocr.lines import UPRIGHT_ASPECT
from models.ocr.reading_order import page_angle

SAME_LINE_OVERLAP = 0.6
"""Of the lower box's height: less is a neighbouring line."""
MAX_HEIGHT_RATIO = 2.0

Boxes = npt.NDArray[np.float32]
"""[boxes, 4, 2] pixels, each clockwise from the top left."""
Bounds = npt.NDArray[np.float64]
"""[boxes, 4]: left, top, right, bottom along the page's own axes."""


@dataclass(frozen=True, slots=True)
class _Frame:
    """The page's own axes: as the text runs, not as the pixels lie."""

    axes: npt.NDArray[np.float64]

    def bounds(self, boxes: Boxes) -> Bounds:
        turned = boxes @ self.axes.T
        return np.concatenate([turned.min(axis=1), turned.max(axis=1)], axis=1)

    def box(self, bounds: Bounds) -> Boxes:
        left, top, right, bottom = bounds
        corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
        return np.asarray(corners @ self.axes, dtype=np.float32)


def joined(boxes: Boxes) -> Boxes:
    """Boxes of which those that overlap along one line have become one.

    Detection of small pictures, which it enlarges, finds pieces of a line; each is a little larger
    than its text, so that a letter at the seam would be read twice. The order is that of the first
    piece. Lines of which every piece stands alone keep their box as it is.
    """
    if len(boxes) < 2:
        return boxes
    angle = page_angle(boxes)
    frame = _Frame(np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]))
    groups = _groups(frame.bounds(boxes))
    return np.stack([_union(boxes[group], frame) for group in groups])


def _union(pieces: Boxes, frame: _Frame) -> Boxes:
    if len(pieces) == 1:
        return np.asarray(pieces[0])
    bounds = frame.bounds(pieces)
    return frame.box(np.concatenate([bounds[:, :2].min(axis=0), bounds[:, 2:].max(axis=0)]))


def _groups(bounds: Bounds) -> list[list[int]]:
    """Indices of boxes that hang together, groups by their first index."""
    together = _on_one_line_and_overlapping(bounds)
    group = np.arange(len(bounds))
    for index in range(len(bounds)):
        for other in np.flatnonzero(together[index, :index]):
            group[group == group[index]] = group[other]
    groups: dict[int, list[int]] = {}
    for index, name in enumerate(group.tolist()):
        groups.setdefault(name, []).append(index)
    return list(groups.values())


def _on_one_line_and_overlapping(bounds: Bounds) -> npt.NDArray[np.bool_]:
    left, top, right, bottom = bounds.T
    width, height = right - left, bottom - top
    overlap_x = np.minimum.outer(right, right) - np.maximum.outer(left, left)
    overlap_y = np.minimum.outer(bottom, bottom) - np.maximum.outer(top, top)
    lower = np.minimum.outer(height, height)
    alike = np.maximum.outer(height, height) <= MAX_HEIGHT_RATIO * lower
    # two that run downwards side by side are two lines
    upright = height >= UPRIGHT_ASPECT * width
    downwards = np.logical_and.outer(upright, upright)
    on_one_line = overlap_y >= SAME_LINE_OVERLAP * lower
    return np.asarray((overlap_x > 0) & on_one_line & alike & ~downwards)
