"""What the benchmarks share: servers, loads, interleaved rounds, and what they leave.

Absolute figures say little on a shared machine: everything is measured beside a peer, in
interleaved rounds of one run, and reported as the ratio of medians.
"""

from harness.load import Load, load
from harness.options import parser, report
from harness.results import Goal, Report, counted, quick, ratio, spread
from harness.rounds import Measure, Rounds, bystanders, in_turns
from harness.server import ROOT, Server, first_answer, free_port, serving

__all__ = [
    "ROOT",
    "Goal",
    "Load",
    "Measure",
    "Report",
    "Rounds",
    "Server",
    "bystanders",
    "counted",
    "first_answer",
    "free_port",
    "in_turns",
    "load",
    "parser",
    "quick",
    "ratio",
    "report",
    "serving",
    "spread",
]
