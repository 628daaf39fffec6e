"""PP-OCRv6 in torch: PaddlePaddle's own safetensors in the architectures of transformers.

For GPUs, where lines gain from batches; on CPUs ONNX Runtime is twice as fast. The processors of
transformers need torchvision, so pages and lines are prepared as for RapidOCR, whose classifier of
upside-down lines is used as well.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rapidocr.ch_ppocr_det.utils import DBPostProcess, DetPreProcess
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import (
    PPOCRV6SmallDetConfig,
    PPOCRV6SmallDetForObjectDetection,
    PPOCRV6SmallRecConfig,
    PPOCRV6SmallRecForTextRecognition,
)

from models.batching import BatchListener
from models.errors import ModelLoadError
from models.ocr.boxes import Boxes
from models.ocr.ctc import read_steps
from models.ocr.line_images import batches_by_width, line_input, line_share
from models.ocr.lines import ReadLine
from models.ocr.orientation import UpsideDown
from models.ocr.rapid import LANGUAGES
from models.ocr.rapid_detection import NO_BOXES
from models.ocr.two_stage import LineNetworks, TwoStageRecognizer
from models.torch_cpu import use_cpu_threads
from models.types.pages import PixelArray

DETECTION, RECOGNITION, LETTERS = (
    "PP-OCRv6_det_small.safetensors",
    "PP-OCRv6_rec_small.safetensors",
    "ppocrv6_dict.txt",
)
CPU_COLUMNS, GPU_COLUMNS = 2560, 40_960
"""Pixels of width in one batch of lines: eight of 320 pixels, and 128."""
UNCOUNTED = "num_batches_tracked"
"""Of batch normalisation in training; PaddlePaddle does not store it."""

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SHORTEST_SIDE = 736
Block = tuple[int, int, int, int, bool]
"""Kernel, channels in and out, stride, squeeze and excitation."""
STAGES: tuple[tuple[Block, ...], ...] = (
    ((3, 48, 48, 1, True), (3, 48, 48, 1, False)),
    ((3, 48, 96, 2, False), (3, 96, 96, 1, True), (3, 96, 96, 1, False)),
    (
        (3, 96, 192, 2, False),
        (3, 192, 192, 1, True),
        (3, 192, 192, 1, False),
        (3, 192, 192, 1, True),
        (3, 192, 192, 1, False),
    ),
    ((3, 192, 384, 2, False), (3, 384, 384, 1, True), (3, 384, 384, 1, False)),
)
"""Of the detector's backbone, as its weights say; transformers' defaults are another model's."""


class PaddleTorchRecognizer(TwoStageRecognizer):
    """A `TextRecognizer` from a folder with DETECTION, RECOGNITION and LETTERS."""

    def __init__(
        self,
        path: Path,
        *,
        n_threads: int,
        device: str = "cpu",
        max_pixels: int = 40_000_000,
        max_queued: int = 256,
        on_batch: BatchListener | None = None,
    ) -> None:
        self._device = torch.device(device)
        self._n_threads = n_threads
        self._one_at_a_time = threading.Lock()
        self._alphabet = _alphabet(path / LETTERS)
        self._detector = _loaded(
            PPOCRV6SmallDetForObjectDetection(_detector_config()), path / DETECTION, self._device
        )
        self._reader = _loaded(
            PPOCRV6SmallRecForTextRecognition(
                PPOCRV6SmallRecConfig(head_out_channels=len(self._alphabet))
            ),
            path / RECOGNITION,
            self._device,
        )
        self._boxes = DBPostProcess(box_thresh=0.5, unclip_ratio=1.6, use_dilation=True)
        upside_down = UpsideDown()
        networks = LineNetworks(
            find=self._find,
            upside_down=upside_down,
            read=self._read_lines,
            languages=LANGUAGES,
            memory_bytes=upside_down.memory_bytes
            + sum((path / name).stat().st_size for name in (DETECTION, RECOGNITION)),
        )
        super().__init__(
            networks,
            n_threads=n_threads,
            max_pixels=max_pixels,
            max_queued=max_queued,
            on_batch=on_batch,
        )

    def _find(self, page: PixelArray, alone: bool) -> Boxes:
        del alone
        prepared = DetPreProcess(SHORTEST_SIDE, "min", MEAN, DEVIATION)(page)
        if prepared is None:
            return NO_BOXES
        boxes, _ = self._boxes(self._forward(self._detector, prepared), page.shape[:2])
        return np.asarray(boxes, dtype=np.float32) if len(boxes) else NO_BOXES

    def _read_lines(self, crops: Sequence[PixelArray]) -> list[ReadLine]:
        read: dict[int, ReadLine] = {}
        columns = CPU_COLUMNS if self._device.type == "cpu" else GPU_COLUMNS
        for width, indices in batches_by_width(crops, columns):
            images = np.stack([line_input(crops[index], width) for index in indices])
            for index, steps in zip(indices, self._forward(self._reader, images), strict=True):
                share = line_share(crops[index], width)
                read[index] = read_steps(steps, self._alphabet, share)
        return [read[index] for index in range(len(crops))]

    def _forward(self, network: Any, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """One at a time: torch itself spreads over the threads of this process."""
        with self._one_at_a_time, torch.inference_mode():
            use_cpu_threads(self._n_threads)
            output = network(torch.from_numpy(images).to(self._device)).last_hidden_state
            array: npt.NDArray[np.float32] = output.float().cpu().numpy()
        return array


def is_paddle_folder(path: Path) -> bool:
    """Whether both networks lie in the folder."""
    return all((path / name).is_file() for name in (DETECTION, RECOGNITION))


def _detector_config() -> PPOCRV6SmallDetConfig:
    channels = [stage[-1][2] for stage in STAGES]
    backbone = {
        "model_type": "pp_lcnet_v4",
        "stem_channels": [3, 24, 48],
        "stem_strides": [2, 1, 1, 2, 1],
        "out_features": [f"stage{number}" for number in range(1, len(STAGES) + 1)],
        "block_configs": [[list(block) for block in stage] for stage in STAGES],
    }
    return PPOCRV6SmallDetConfig(backbone_config=backbone, layer_list_out_channels=channels)


def _loaded(network: Any, path: Path, device: torch.device) -> Any:
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelLoadError(f"{path.name} is missing or is not safetensors") from error
    try:
        missing, unexpected = network.load_state_dict(weights, strict=False)
    except RuntimeError as error:  # tensors of another shape
        raise _misfit(path) from error
    if unexpected or not all(name.endswith(UNCOUNTED) for name in missing):
        raise _misfit(path)
    return network.eval().to(device)


def _misfit(path: Path) -> ModelLoadError:
    return ModelLoadError(f"{path.name} does not fit the architecture of PP-OCRv6 small")


def _alphabet(path: Path) -> list[str]:
    """The blank, a letter per line of the file, and the space."""
    try:
        letters = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelLoadError(f"{path.name} is missing or is not UTF-8") from error
    if letters[-1] == "":
        del letters[-1]
    return ["", *(letter.rstrip("\r") for letter in letters), " "]
