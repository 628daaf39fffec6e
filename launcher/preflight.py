"""Says what this machine lacks, before anything is downloaded. `make` runs it with any Python.

Standard library and old syntax only: it must also run, and answer, on a Python that is too old.
"""

import importlib.util
import os
import shutil
import sys

OLDEST, NEWEST = (3, 11), (3, 14)
"""What the code needs, and what Ray has wheels for."""
C_COMPILERS = ("cc", "gcc", "clang")
CXX_COMPILERS = ("c++", "g++", "clang++")
HOW_TO_GET_COMPILERS = (
    "Debian and Ubuntu: apt-get install build-essential; Fedora: dnf install gcc-c++; "
    "macOS: xcode-select --install"
)


def main() -> int:
    """0 if everything is there; else 1, and one line on stderr for each thing missing."""
    found = problems(sys.version_info[:2], os.environ.get("CC"), os.environ.get("CXX"))
    for problem in found:
        sys.stderr.write(f"missing: {problem}\n")
    return 1 if found else 0


def problems(version: "tuple[int, ...]", cc: "str | None", cxx: "str | None") -> "list[str]":
    """What is missing, each with what to do about it; `cc` and `cxx` as in the environment."""
    found = []
    if not OLDEST <= version <= NEWEST:
        wanted = f"{dotted(OLDEST)} to {dotted(NEWEST)}"
        found.append(f"Python {wanted}, this is {dotted(version)} (make PYTHON=... names another)")
    if importlib.util.find_spec("ensurepip") is None:
        found.append("Python's venv module (Debian and Ubuntu: apt-get install python3-venv)")
    for language, chosen, usual in (("C", cc, C_COMPILERS), ("C++", cxx, CXX_COMPILERS)):
        if not has_compiler(chosen, usual):
            found.append(f"a {language} compiler, for llama.cpp ({HOW_TO_GET_COMPILERS})")
    return found


def has_compiler(chosen: "str | None", usual: "tuple[str, ...]") -> bool:
    """Whether the chosen compiler (a command line), or else one of the usual, is on the PATH."""
    names = chosen.split()[-1:] if chosen else usual  # CC may be "ccache gcc"
    return any(shutil.which(name) for name in names)


def dotted(version: "tuple[int, ...]") -> str:
    return ".".join(map(str, version))


if __name__ == "__main__":
    sys.exit(main())
