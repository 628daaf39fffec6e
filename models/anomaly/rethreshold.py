"""Another threshold for a fitted detector: its manifest edited, its state as it was."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from typing import Any

from models.anomaly.calibration import Calibration
from models.anomaly.fitted import stored_calibration, stored_info
from models.anomaly.scoring import check_normalization
from models.errors import StorageError
from models.types.anomaly import DetectorInfo, ThresholdRequest


def edited(request: ThresholdRequest, manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    """The manifest of the next version. Raises InvalidInputError or StorageError."""
    info = stored_info(0, manifest)
    try:
        before = stored_calibration(manifest)
    except (KeyError, TypeError) as error:
        raise StorageError("The stored detector cannot be read.") from error
    after = _calibration(before, info, request)
    changed = dataclasses.replace(
        info,
        created=int(time.time()),
        contamination=request.contamination or info.contamination,
        threshold=after.threshold_in(info.normalization),
    )
    return {
        **manifest,
        "info": dataclasses.asdict(changed),
        "calibration": dataclasses.asdict(after),
    }


def _calibration(before: Calibration, info: DetectorInfo, request: ThresholdRequest) -> Calibration:
    if request.threshold is None:
        return before.at_contamination(request.contamination or info.contamination)
    check_normalization(request.normalization)
    return before.at_threshold(request.threshold, request.normalization or info.normalization)
