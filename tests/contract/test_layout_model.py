"""The real layout model on a drawn page; fetched, or skipped where that is not possible."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from config.catalog import ASSET_CATALOG, load_catalog
from config.paths import default_weights_dir
from models.errors import ModelLoadError
from models.layout.picodet import LayoutDetector
from models.layout.slanet import TableReader
from weights.cache import WeightsCache
from weights.fetch import fetch


def fetched(name: str) -> Path:
    spec = load_catalog(ASSET_CATALOG).find(name)
    assert spec is not None
    try:
        path = fetch(spec, cache=WeightsCache(default_weights_dir()))
    except ModelLoadError as error:
        pytest.skip(str(error))
    assert path is not None
    return path


@pytest.fixture(scope="module")
def model() -> Path:
    return fetched("layout-cdla")


def drawn() -> Image.Image:
    """Running text, a table with lines, a picture of dots, a caption, a page number."""
    image = Image.new("RGB", (1240, 1754), "white")
    draw = ImageDraw.Draw(image)
    for row in range(8):
        text = "Some running text that tells what has happened in this year, and why."
        draw.text((120, 220 + 40 * row), text, "black", ImageFont.load_default(30))
    for row in range(6):
        for left, right in ((120, 420), (420, 700), (700, 960), (960, 1120)):
            draw.rectangle((left, 600 + 50 * row, right, 650 + 50 * row), outline="black")
            number = ImageFont.load_default(28)
            draw.text((left + 10, 606 + 50 * row), f"{left * row / 7:.2f}", "black", number)
    rng = random.Random(1)
    for _ in range(4000):
        x, y = rng.uniform(200, 1000), rng.uniform(1000, 1400)
        colour = (rng.randrange(256), rng.randrange(256), rng.randrange(256))
        draw.ellipse((x, y, x + 12, y + 12), fill=colour)
    draw.text((420, 1430), "Figure 1: many dots", "black", ImageFont.load_default(26))
    draw.text((600, 1700), "17", "black", ImageFont.load_default(24))
    return image


def test_regions_of_a_page(model: Path) -> None:
    detector = LayoutDetector(model, n_threads=1)
    found = {region.label: region for region in detector.regions(np.asarray(drawn()))}
    expected = {
        "text": (120, 220, 1050, 530),
        "table": (120, 600, 1120, 900),
        "figure": (200, 1000, 1012, 1412),
    }
    for label, box in expected.items():
        assert found[label].confidence > 0.5
        assert found[label].box == pytest.approx(box, abs=60), label
    assert "footer" in found


def test_cells_of_a_table() -> None:
    table = np.asarray(drawn().crop((110, 590, 1130, 910)))
    cells = TableReader(fetched("slanet-plus"), n_threads=1).cells(table)
    assert [(c.row, c.column) for c in cells] == [(r, c) for r in range(6) for c in range(4)]
    assert {(c.row_span, c.column_span) for c in cells} == {(1, 1)}
    assert cells[5].box == pytest.approx((310, 60, 590, 110), abs=40)


def test_a_blank_page_has_no_regions(model: Path) -> None:
    blank = np.full((800, 600, 3), 255, dtype=np.uint8)
    assert LayoutDetector(model, n_threads=1).regions(blank) == ()


def test_what_is_no_layout_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(ModelLoadError):
        LayoutDetector(tmp_path / "model.onnx", n_threads=1)
    with pytest.raises(ModelLoadError):
        TableReader(tmp_path / "model.onnx", n_threads=1)
