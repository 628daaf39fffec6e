"""How clients name a fitted detector: `pump`, `pump@3`, `pump@latest`, an alias, a file name.

LlamaFarm's runtime names the latest version `pump-latest` and what it has stored
`pump_isolation_forest.joblib`; both mean the detector where there is none of exactly that name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from models.errors import ModelNotFoundError
from models.stores.artefact_index import Pointer
from models.stores.artefacts import ArtefactStore

VERSION = re.compile(r"(?P<name>[^@]{1,64})@(?P<version>[0-9]{1,9}|latest)")
LATEST = "-latest"
FILE_NAME = re.compile(r"(?P<name>.+)_(?P<backend>[a-z][a-z0-9_]*?)\.(?:joblib|pkl|pt|json|skops)")
BACKEND_WORDS = 4
"""Words in the longest name of a backend."""


def split(reference: str) -> tuple[str, int | None]:
    """The name and the version that it says, None for the current one."""
    match = VERSION.fullmatch(reference)
    if match is None:
        return reference, None
    version = match["version"]
    return match["name"], None if version == "latest" else int(version)


def find(store: ArtefactStore, reference: str) -> tuple[str, int | None, Pointer]:
    """The stored name that is meant, the version asked for, and where that is.

    Raises ModelNotFoundError or StorageError.
    """
    name, version = split(reference)
    for candidate in _candidates(name):
        try:
            return candidate, version, store.pointer(candidate, version)
        except ModelNotFoundError:
            target = store.alias_of(candidate)
        if target is not None:
            stored, pinned = split(target)
            wanted = version or pinned
            return stored, wanted, store.pointer(stored, wanted)
    raise ModelNotFoundError(reference)


def _candidates(name: str) -> Iterator[str]:
    yield name
    if name.endswith(LATEST):
        yield name.removesuffix(LATEST)
    match = FILE_NAME.fullmatch(name)
    if match:
        # Both the name and the backend may have underscores: the longest name first.
        words = f"{match['name']}_{match['backend']}".split("_")
        for count in range(1, min(BACKEND_WORDS, len(words))):
            yield "_".join(words[:-count])
