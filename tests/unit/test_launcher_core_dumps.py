"""Core dumps hold prompts."""

from __future__ import annotations

import subprocess
import sys

COUNT = "import resource; print(resource.getrlimit(resource.RLIMIT_CORE)[0])"
START = f"""
import resource, subprocess, sys
resource.setrlimit(resource.RLIMIT_CORE, (resource.getrlimit(resource.RLIMIT_CORE)[1],) * 2)
from launcher.core_dumps import write_none
write_none()
sys.stdout.write(subprocess.run([sys.executable, "-c", {COUNT!r}], capture_output=True,
                                text=True, check=True).stdout)
"""


def test_no_process_of_the_server_writes_core_dumps() -> None:
    done = subprocess.run([sys.executable, "-c", START], capture_output=True, text=True, check=True)
    assert done.stdout == "0\n"
