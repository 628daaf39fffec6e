"""`python -m weights`: list, fetch, verify and remove the weights of catalogue models."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from config.catalog import (
    ASSET_CATALOG,
    OPTIONAL_CATALOG,
    SHIPPED_CATALOG,
    BuiltinSource,
    Catalog,
    CatalogError,
    ModelSpec,
    PathSource,
    load_catalog,
)
from config.paths import default_weights_dir
from launcher.configuration import read_config, settings_in
from launcher.errors import LaunchError
from models.errors import ModelLoadError
from weights.cache import WeightsCache
from weights.fetch import fetch, locate, share
from weights.store import WeightsStore, open_store

VOCABULARY = "cl100k-base"
"""The asset of embedding models that take OpenAI's token ids."""

OK, FAILED, USAGE = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Invocation:
    """What a command works on."""

    specs: Sequence[ModelSpec]
    everything: bool
    cache: WeightsCache
    roots: Sequence[Path]
    offline: bool


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit status is 0, 1 (something failed) or 2 (wrong usage)."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command == "remove" and not options.models and not options.all:
        parser.error("remove needs the names of models, or --all")
    if options.command == "remove" and options.all and options.store:
        parser.error("remove --all is of the cache alone: name what shall leave the store")
    if options.config:
        _fill_in(options, parser)
    try:
        specs = _select(options)
    except CatalogError as error:
        parser.error(str(error))
    cache = WeightsCache(options.dir or default_weights_dir(), _store(options.store, parser))
    commands = {"list": _list, "fetch": _fetch, "verify": _verify, "remove": _remove}
    invocation = Invocation(specs, options.all, cache, options.root, options.offline)
    return commands[options.command](invocation)


def _fill_in(options: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """What the command line leaves open, from a server's configuration."""
    try:
        settings = next(settings_in(read_config(options.config)), None)
    except LaunchError as error:
        parser.error(f"--config: {error}")
    if settings is None:
        parser.error(f"--config: {options.config.name} has no application of this server")
    options.added = settings.models
    if settings.catalog != SHIPPED_CATALOG:
        options.catalog = options.catalog or settings.catalog
    options.dir = options.dir or settings.weights_dir
    options.store = options.store or settings.weights_url
    options.root = [*options.root, *settings.model_roots]
    options.offline = options.offline or settings.offline


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m weights", description=__doc__)
    parser.add_argument("command", choices=("list", "fetch", "verify", "remove"))
    parser.add_argument(
        "models", nargs="*", metavar="MODEL", help="model ids or aliases (default: the catalogue)"
    )
    parser.add_argument(
        "--all", action="store_true", help="also the optional models; with remove: everything"
    )
    parser.set_defaults(added=())
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="serve_config.yaml whose models and folders to use",
    )
    parser.add_argument("--catalog", type=Path, metavar="FILE", help="catalogue file to use")
    parser.add_argument("--dir", type=Path, metavar="DIR", help="weights cache to use")
    parser.add_argument(
        "--store", metavar="URL", help="store that nodes share: copy from it, give it what it lacks"
    )
    parser.add_argument(
        "--root", type=Path, metavar="DIR", action="append", default=[],
        help="folder below which `path` sources lie (repeatable)",
    )  # fmt: skip
    parser.add_argument("--offline", action="store_true", help="use what is on this machine only")
    return parser


def _store(url: str | None, parser: argparse.ArgumentParser) -> WeightsStore | None:
    try:
        return open_store(url)
    except OSError as error:
        parser.error(f"--store: {error.strerror or error}")


def _assets_of(catalog: Catalog) -> list[ModelSpec]:
    """What the models of a catalogue need beside their weights: a vocabulary, models of layout."""
    needed = {
        spec.engine_options.get(option)
        for spec in catalog.of_task("ocr")
        for option in ("layout", "tables")
    }
    if any(spec.input_vocabulary == "cl100k" for spec in catalog.of_task("embedding")):
        needed.add(VOCABULARY)
    return [asset for asset in load_catalog(ASSET_CATALOG) if asset.id in needed]


def _select(options: argparse.Namespace) -> list[ModelSpec]:
    """The models named, else the whole catalogue. Raises CatalogError for an unknown name."""
    catalog = load_catalog(options.catalog or SHIPPED_CATALOG).extended(options.added)
    others = () if options.catalog else load_catalog(OPTIONAL_CATALOG)
    optional = [spec for spec in others if catalog.find(spec.id) is None]
    needed = catalog.extended(_assets_of(catalog))
    assets = _assets_of(catalog.extended(optional))
    known = catalog.extended(assets).extended(optional)
    if not options.models:
        wants_optional = options.all or options.command in ("list", "verify")
        return list(known if wants_optional else needed)
    specs = {name: known.find(name) for name in options.models}
    unknown = [name for name, spec in specs.items() if spec is None]
    if unknown:
        raise CatalogError(f"the catalogue has no model {', '.join(unknown)}")
    return [spec for spec in specs.values() if spec is not None]


def _list(invocation: Invocation) -> int:
    rows = [("MODEL", "TASK", "SOURCE", "SIZE", "STATE")]
    for spec in invocation.specs:
        size = _megabytes(invocation.cache.size(spec))
        rows.append((spec.id, spec.task, spec.source.kind, size, _state(spec, invocation)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
    print(f"cache: {invocation.cache.root}")
    return OK


def _state(spec: ModelSpec, invocation: Invocation) -> str:
    if isinstance(spec.source, BuiltinSource):
        return "built in"
    try:
        found = locate(spec, cache=invocation.cache, roots=invocation.roots)
    except ModelLoadError:
        return "not found" if isinstance(spec.source, PathSource) else "damaged"
    return "present" if found else "not fetched"


def _fetch(invocation: Invocation) -> int:
    return max((_fetch_one(spec, invocation) for spec in invocation.specs), default=OK)


def _fetch_one(spec: ModelSpec, invocation: Invocation) -> int:
    try:
        found = locate(spec, cache=invocation.cache, roots=invocation.roots)
        if found is None and not isinstance(spec.source, BuiltinSource):
            _fetch_with_bar(spec, invocation)
            print(f"{spec.id}: fetched{_size(spec, invocation)}")
        else:
            state = "already there" if found else "built in"
            shared = ", now shared" if share(spec, cache=invocation.cache) else ""
            print(f"{spec.id}: {state}{_size(spec, invocation)}{shared}")
    except ModelLoadError as error:
        return _failed(error.message)
    return OK


def _fetch_with_bar(spec: ModelSpec, invocation: Invocation) -> None:
    with tqdm(desc=spec.id, unit="B", unit_scale=True, leave=False, disable=None) as bar:

        def progress(done: int, total: int | None) -> None:
            bar.total = total
            bar.update(done - bar.n)

        fetch(
            spec,
            cache=invocation.cache,
            roots=invocation.roots,
            offline=invocation.offline,
            progress=progress,
        )


def _verify(invocation: Invocation) -> int:
    return max((_verify_one(spec, invocation) for spec in invocation.specs), default=OK)


def _verify_one(spec: ModelSpec, invocation: Invocation) -> int:
    manifest = invocation.cache.manifest(spec)
    if manifest is None:
        print(f"{spec.id}: {_state(spec, invocation)}")
        return OK
    damage = invocation.cache.verify(spec)
    for item in damage:
        _failed(f"{spec.id}: {item}")
    if not damage:
        print(f"{spec.id}: all {len(manifest.files)} file(s) intact{_size(spec, invocation)}")
    return FAILED if damage else OK


def _remove(invocation: Invocation) -> int:
    if invocation.everything:
        print(f"removed {invocation.cache.clear()} entries")
        return OK
    for spec in invocation.specs:
        cache = invocation.cache
        with cache.lock(spec):
            removed = cache.remove(spec)
            if cache.store is not None:
                removed |= cache.store.remove(cache.key(spec))
        print(f"{spec.id}: {'removed' if removed else 'nothing to remove'}")
    return OK


def _failed(message: str) -> int:
    print(message, file=sys.stderr)
    return FAILED


def _size(spec: ModelSpec, invocation: Invocation) -> str:
    size = invocation.cache.size(spec)
    return f" ({_megabytes(size)})" if size else ""


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size else "-"


if __name__ == "__main__":
    sys.exit(main())
