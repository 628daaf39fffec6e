"""The command line that every benchmark has."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from harness.results import Report, quick


def parser(
    description: str, *, rounds: int = 3, seconds: float = 3, quick_seconds: float = 2
) -> argparse.ArgumentParser:
    """`--rounds` and `--seconds`; with QUICK=1 they default to two rounds of `quick_seconds`."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    short = quick()
    made.add_argument("--rounds", type=int, default=2 if short else rounds)
    made.add_argument("--seconds", type=float, default=quick_seconds if short else seconds)
    return made


def report(title: str) -> Report:
    """An empty report named after the script that runs."""
    script = Path(sys.argv[0])
    words = ["QUICK=1"] if quick() else []
    command = shlex.join([*words, "python", f"benchmarks/{script.name}", *sys.argv[1:]])
    return Report(script.stem, title, command)
