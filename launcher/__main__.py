"""`python -m launcher`: start the server, say where it is, end it cleanly."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from launcher import core_dumps
from launcher.configuration import Document, read_config, require_keys
from launcher.descendants import Descendants
from launcher.edge import (
    PORTS,
    behind_front,
    haproxy_available,
    haproxy_binary,
    haproxy_wanted,
    private_variables,
    without_haproxy,
)
from launcher.errors import LaunchError
from launcher.front import Front
from launcher.idle_memory import keep_idle_memory_low
from launcher.launch import Launch
from launcher.ports import free_ports, require_free
from launcher.private_folder import private_folder, ray_variables, write_token
from launcher.probe import HttpProbe, url_of
from launcher.ray_server import RayServer
from launcher.terminal import own_foreground_group

ROOT = Path(__file__).parents[1]
FAILED = 1
PRIORITIES = {"RAY_worker_niceness": "5"}
"""Ray's own 15 would leave four degrees between urgent replicas and those that step aside."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until stopped. Exit status 0 after Ctrl-C or SIGTERM, 1 if the server cannot run."""
    options = _parser().parse_args(arguments)
    try:
        document = read_config(options.config, options.port)
        http = document["http_options"]
        if not options.insecure:
            require_keys(document)
        require_free(http["host"], http["port"])
        with own_foreground_group(), private_folder() as folder:
            front, document = _fronted(document, folder)
            return Launch(
                RayServer(_prepared(document, folder), options.num_gpus),
                front, url_of(http["host"], http["port"]),
                HttpProbe(document["http_options"]["host"], document["http_options"]["port"]),
                Descendants(os.getpid()), folder, options.drain_s,
            ).run()  # fmt: skip
    except LaunchError as error:
        print(error, file=sys.stderr)
        return FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m launcher", description=__doc__)
    parser.add_argument("--port", type=_port, help="port to listen on (default: the file's)")
    parser.add_argument(
        "--config", type=Path, default=ROOT / "serve_config.yaml", metavar="FILE",
        help="Serve configuration (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--insecure", action="store_true",
        help="serve other machines although nobody needs a key",
    )  # fmt: skip
    parser.add_argument(
        "--drain-s", type=_seconds, default=30.0, metavar="SECONDS",
        help="how long requests under way may keep a server that shall end (default: 30)",
    )  # fmt: skip
    parser.add_argument(
        "--num-gpus", type=_gpus, metavar="NUMBER",
        help="GPUs of this machine (default: those Ray finds, which are none of Apple's)",
    )  # fmt: skip
    return parser


def _port(text: str) -> int:
    port = int(text)
    if not 0 < port < 1 << 16:
        raise argparse.ArgumentTypeError(f"{port} is not a port (1 to 65535)")
    return port


def _gpus(text: str) -> int:
    gpus = int(text)
    if gpus < 0:
        raise argparse.ArgumentTypeError(f"{text} is no number of GPUs")
    return gpus


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds")
    return seconds


def _fronted(document: Document, folder: Path) -> tuple[Front | None, Document]:
    """What clients reach, and the document of what stands behind it."""
    if not haproxy_available():
        print("HAProxy does not run here: Serve's proxy is slower and drains nothing.")
        return None, document
    http = document["http_options"]
    port = free_ports(1)[0]
    front = Front(haproxy_binary(), http["host"], http["port"], port, folder)
    return front, behind_front(document, port)


def _prepared(document: Document, folder: Path) -> Document:
    """The document for this machine; the environment of all processes to come is set."""
    core_dumps.write_none()
    os.environ.update(ray_variables(write_token(folder)))
    for name, value in PRIORITIES.items():
        os.environ.setdefault(name, value)
    keep_idle_memory_low()
    if not haproxy_wanted(document):
        return document
    if not haproxy_available():
        return without_haproxy(document)
    os.environ.update(private_variables(folder, free_ports(len(PORTS))))
    return document


if __name__ == "__main__":
    sys.exit(main())
