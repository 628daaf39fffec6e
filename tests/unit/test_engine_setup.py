"""Which options an engine refuses."""

from __future__ import annotations

import pytest

from models.continuous_batching.engine_setup import check_counts
from models.errors import ModelLoadError


def test_counts_below_one_are_refused() -> None:
    check_counts(None, 1, 7)
    with pytest.raises(ModelLoadError, match="smaller than one"):
        check_counts(1, 0)
