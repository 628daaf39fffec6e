"""serve_config.yaml as the launcher needs it: checked before Ray starts, with the chosen port."""

from __future__ import annotations

import copy
import ipaddress
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from config.catalog import CatalogError
from config.settings import AppConfig
from launcher.errors import LaunchError

Document = dict[str, Any]

OUR_APPLICATION = "graph:app"
LOOPBACK = "127.0.0.1"
DEFAULT_PORT = 8000


def read_config(path: Path, port: int | None = None) -> Document:
    """The file's content with the host and port filled in. Raises LaunchError naming the mistake.

    Where the file names no host this is loopback; Serve's own default is every interface.
    """
    try:
        document = yaml.safe_load(path.read_text())
    except OSError as error:
        raise LaunchError(f"{path.name} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise LaunchError(f"{path.name} is not YAML: {error}") from error
    check_form(document, path.name)
    check_arguments(document, path.name)
    document = listening(document, port)
    check_address(document["http_options"], path.name)
    return document


def check_form(document: object, name: str) -> None:
    """Refuse what the launcher cannot read; Serve's own schema says the rest."""
    applications = document.get("applications") if isinstance(document, dict) else None
    if not isinstance(document, dict) or not isinstance(applications, list) or not applications:
        raise LaunchError(f"{name} has no 'applications'.")
    if not isinstance(document.get("http_options", {}), dict):
        raise LaunchError(f"{name}: 'http_options' is not a mapping.")
    for index, application in enumerate(applications):
        if not isinstance(application, dict):
            raise LaunchError(f"{name}: application {index} is not a mapping.")


def check_arguments(document: Document, name: str) -> None:
    """Refuse settings and catalogues that the application's builder would refuse later."""
    try:
        for settings in settings_in(document):
            settings.load_catalog()
    except ValidationError as error:
        raise LaunchError("\n".join(mistakes(error, name))) from None
    except CatalogError as error:
        raise LaunchError(f"{name}: {error}") from None


def mistakes(error: ValidationError, name: str) -> list[str]:
    """One line per mistake: file, dotted key, what is wrong."""
    return [
        f"{name}: {'.'.join(map(str, ('args', *item['loc'])))}: {item['msg']}"
        for item in error.errors(include_url=False)
    ]


def listening(document: Document, port: int | None) -> Document:
    """A copy that says where to listen; `port` overrides the file's."""
    document = copy.deepcopy(document)
    options = document["http_options"] = dict(document.get("http_options") or {})
    if options.get("host") is None:
        options["host"] = LOOPBACK
    if port is not None or options.get("port") is None:
        options["port"] = port or DEFAULT_PORT
    return document


def check_address(options: Document, name: str) -> None:
    """Refuse what nobody can listen on."""
    if not isinstance(options["host"], str):
        raise LaunchError(f"{name}: 'http_options.host' is no address.")
    port = options["port"]
    if type(port) is not int or not 0 < port < 1 << 16:
        raise LaunchError(f"{name}: 'http_options.port' is not a number from 1 to 65535.")


def require_keys(document: Document) -> None:
    """Raises LaunchError if others can reach the server and would need no key."""
    host = document["http_options"]["host"]
    if _is_loopback(host):
        return
    try:
        if all(settings.access.requires_key for settings in settings_in(document)):
            return
    except ValueError as error:
        raise LaunchError(f"{error}.") from None
    raise LaunchError(
        f"Everybody who reaches {host} could use the server: give clients keys "
        "(docs/operations.md, Keys), or start it with --insecure."
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def settings_in(document: Document) -> Iterator[AppConfig]:
    """Those of each of our applications. Raises ValidationError."""
    for application in document["applications"]:
        if application.get("import_path") == OUR_APPLICATION:
            yield AppConfig.model_validate(application.get("args") or {})
