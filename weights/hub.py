"""Weights in a Hugging Face repository, kept in the cache that all Hugging Face tools share.

The weights cache gets links to the chosen files only, so an engine never sees what else lies in
the snapshot, and a branch that moves on the hub does not change a model that is already here.
"""

from __future__ import annotations

import errno
import glob
import json
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, cast

from config.catalog import HubSource
from models.errors import ModelLoadError
from weights.manifest import sha256_of
from weights.pip_download import Progress
from weights.safety import file_names, stays_inside
from weights.selection import Selection, select, wants_gguf

logger = logging.getLogger(__name__)

NETWORK_TIMEOUT_S = 15.0
_SHA256_NAME = re.compile(r"[0-9a-f]{64}")
_OF_THIS_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM})


class HubUnavailableError(ModelLoadError):
    """The hub cannot be reached, or does not give us the repository."""


class HubClient(Protocol):
    """What is needed of the hub; the real one is `HuggingFaceHub`."""

    def cached(self, repo: str, revision: str) -> Path | None:
        """The local snapshot, whole or not, without network; None when there is none."""

    def listed(self, repo: str, revision: str) -> list[str] | None:
        """All file names of that snapshot's repository, without network; None when not known."""

    def files(self, repo: str, revision: str) -> list[str]:
        """All file names of the repository. Raises HubUnavailableError."""

    def download(
        self, repo: str, revision: str, names: Sequence[str], progress: Progress | None
    ) -> Path:
        """The local snapshot, with at least `names` in it. Raises HubUnavailableError."""


def fetch_hub(
    source: HubSource,
    engine: str,
    files: Path,
    *,
    offline: bool,
    progress: Progress | None = None,
    client: HubClient | None = None,
) -> str:
    """Fill the empty folder `files` with links; what a loader opens in it ("" is the folder).

    A snapshot that is here already is used without network. Raises ModelLoadError.
    """
    hub = client or HuggingFaceHub()
    found = _find_cached(source, engine, hub)
    if found is None and offline:
        raise HubUnavailableError(
            f"'{source.repo}' is not in the local Hugging Face cache and the server is offline."
        )
    folder, selection = found or _download(source, engine, hub, progress)
    for local, name in selection.files.items():
        blob = (folder / name).resolve(strict=True)
        _check_blob(blob, name)
        (files / local).parent.mkdir(parents=True, exist_ok=True)
        (files / local).symlink_to(blob)
    return selection.entry


def _find_cached(source: HubSource, engine: str, hub: HubClient) -> tuple[Path, Selection] | None:
    """A snapshot with every file of the model; an interrupted download leaves some of them."""
    folder = hub.cached(source.repo, source.revision)
    if folder is None:
        return None
    # Of a GGUF file the name tells which parts it has; of a folder only the repository's list.
    tells = wants_gguf(engine, source.file)
    listed = None if tells else hub.listed(source.repo, source.revision)
    try:
        selection = select(_checked(listed) or file_names(folder), engine, source.file)
    except ModelLoadError:
        return None
    return (folder, selection) if _is_whole(folder, selection) else None


def _checked(names: Sequence[str] | None) -> Sequence[str]:
    """The names that a hub has told, which become names of links. Raises ModelLoadError."""
    if names is not None and not all(map(stays_inside, names)):
        raise ModelLoadError("the repository has a file outside of its folder.")
    return names or ()


def _is_whole(folder: Path, selection: Selection) -> bool:
    """Whether the chosen files are there, and those that a sharded model's index names."""
    names = selection.files.values()
    if not all((folder / name).is_file() for name in names):
        return False
    for name in names:
        if name.endswith(".safetensors.index.json"):
            try:
                shards = set(json.loads((folder / name).read_text())["weight_map"].values())
            except (ValueError, KeyError, TypeError, AttributeError):
                return False
            parent = Path(name).parent
            if not all((folder / parent / shard).is_file() for shard in shards):
                return False
    return True


def _download(
    source: HubSource, engine: str, hub: HubClient, progress: Progress | None
) -> tuple[Path, Selection]:
    names = _checked(hub.files(source.repo, source.revision))
    selection = select(names, engine, source.file)
    chosen = list(selection.files.values())
    return hub.download(source.repo, source.revision, chosen, progress), selection


def _check_blob(blob: Path, name: str) -> None:
    """Large files of the cache are named by their sha256: compare."""
    if _SHA256_NAME.fullmatch(blob.name) and sha256_of(blob) != blob.name:
        raise ModelLoadError(
            f"{name} in the Hugging Face cache is damaged: expected sha256 {blob.name}. "
            "Delete it there and fetch again."
        )


class HuggingFaceHub:
    """The hub through `huggingface_hub`: its cache, its endpoint and its token."""

    def cached(self, repo: str, revision: str) -> Path | None:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

        try:
            folder = snapshot_download(
                repo, revision=revision, local_files_only=True, allow_patterns=[]
            )
        except LocalEntryNotFoundError:
            return None
        except HFValidationError as error:
            raise ModelLoadError(f"'{repo}' is not a valid repository name.") from error
        return Path(folder)

    def listed(self, repo: str, revision: str) -> list[str] | None:
        from huggingface_hub import get_cached_repo_tree
        from huggingface_hub.errors import CachedRepoTreeNotFoundError

        try:
            return [file.path for file in get_cached_repo_tree(repo, revision=revision)]
        except CachedRepoTreeNotFoundError:
            return None

    def files(self, repo: str, revision: str) -> list[str]:
        from huggingface_hub import HfApi

        with _explained(repo, revision):
            # unlike list_repo_files, this does not retry for half a minute without a network
            info = HfApi().model_info(repo, revision=revision, timeout=NETWORK_TIMEOUT_S)
        return [sibling.rfilename for sibling in info.siblings or ()]

    def download(
        self, repo: str, revision: str, names: Sequence[str], progress: Progress | None
    ) -> Path:
        from huggingface_hub import snapshot_download

        with _explained(repo, revision):
            folder = snapshot_download(
                repo,
                revision=revision,
                allow_patterns=[glob.escape(name) for name in names],
                tqdm_class=_reporting_bar(progress),
            )
        return Path(folder)


@contextmanager
def _explained(repo: str, revision: str) -> Iterator[None]:
    """Raises HubUnavailableError; OSError for what this machine's disk refuses."""
    try:
        yield
    except _transport_errors() as error:
        if getattr(error, "errno", None) in _OF_THIS_DISK:
            raise
        raise _unavailable(repo, revision, error) from error
    except Exception as error:  # the library for large files raises whatever it likes
        logger.warning("The hub's client failed at %s", repo, exc_info=True)
        raise HubUnavailableError(
            f"fetching '{repo}' failed ({type(error).__name__}): the log has the reason."
        ) from error


def _transport_errors() -> tuple[type[Exception], ...]:
    # the HTTP library under huggingface_hub has changed between releases; the base classes of the
    # hub's own error are that library's base error and OSError, whichever it is
    from huggingface_hub.errors import HfHubHTTPError

    return cast(tuple[type[Exception], ...], HfHubHTTPError.__bases__)


def _unavailable(repo: str, revision: str, error: Exception) -> HubUnavailableError:
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if isinstance(error, RevisionNotFoundError):
        return HubUnavailableError(f"'{repo}' has no revision '{revision}' on the hub.")
    if isinstance(error, GatedRepoError):
        return HubUnavailableError(
            f"'{repo}' is gated: ask for access on its page, and log in with `hf auth login`."
        )
    if isinstance(error, RepositoryNotFoundError):
        return HubUnavailableError(
            f"'{repo}' is not on the hub, or private or gated: log in with `hf auth login`."
        )
    if isinstance(error, HfHubHTTPError):
        return HubUnavailableError(_refusal(repo, error.response.status_code))
    return HubUnavailableError(
        f"the model hub cannot be reached for '{repo}' ({type(error).__name__})."
    )


def _refusal(repo: str, status: int) -> str:
    advice = ": check the token (`hf auth whoami`)" if status in (401, 403) else ""
    return f"the model hub answers {status} for '{repo}'{advice}."


def _reporting_bar(progress: Progress | None) -> type[Any]:
    """A silent tqdm class that passes the bytes written on to `progress`."""
    from tqdm import tqdm

    class ReportingBar(tqdm):  # type: ignore[type-arg]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            self._reports = str(options.get("desc", "")).startswith("Reconstructing")
            super().__init__(*arguments, **{**options, "disable": True})
            self.total = options.get("total")

        def update(self, n: float | None = 1) -> bool | None:
            self.n += n or 0
            if progress is not None and self._reports:
                progress(int(self.n), int(self.total) if self.total else None)
            return None

    return ReportingBar
