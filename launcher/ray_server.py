"""Ray, Serve and the applications of one configuration, in this process and its children."""

from __future__ import annotations

import logging
import warnings
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

from launcher.configuration import Document
from launcher.errors import LaunchError

OBJECT_STORE_BYTES = 512 << 20
"""Only what is too large for a message goes through it, and it is taken as it is used."""


class RayServer:
    """Ray reads the environment when it is imported: that happens in `start`, not before.

    `num_gpus` is what this machine has; None: what Ray finds, which knows no GPU of Apple's.
    """

    def __init__(self, document: Document, num_gpus: int | None = None) -> None:
        self._document = document
        self._num_gpus = num_gpus

    def start(self) -> None:
        """Start Ray and Serve and submit the applications; returns before they run.

        Without Ray's dashboard, which `serve run` would start: a dozen processes.
        Raises LaunchError for a document that Serve refuses.
        """
        import ray
        from ray import serve

        warnings.filterwarnings("ignore", module=r"ray\.")  # for its authors, not for operators
        schema = self._schema()
        ray.init(
            address="local",
            namespace="serve",
            include_dashboard=False,
            num_gpus=self._num_gpus,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=OBJECT_STORE_BYTES,
        )
        self._end_unused_processes()
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        serve.start(
            proxy_location=schema.proxy_location,
            http_options=schema.http_options.model_dump(),
            grpc_options=schema.grpc_options.model_dump(),
            controller_options=schema.controller_options,
            logging_config=schema.logging_config,
        )
        self._submit(schema)

    def _end_unused_processes(self) -> None:
        """A quarter of what Ray takes while idle; `ray.init` has no setting for any of them.

        The autoscaler has no machines to start, nobody reads the workers' output (it is in files),
        and of the dashboard only usage statistics run, which are off.
        """
        from ray._private import worker

        node = worker._global_node
        for end in (node.kill_monitor, node.kill_log_monitor, node.kill_dashboard):
            end(check_alive=False)

    def _schema(self) -> Any:
        from pydantic import ValidationError
        from ray.serve.schema import ServeDeploySchema

        try:
            return ServeDeploySchema.model_validate(self._document)
        except ValidationError as error:
            raise LaunchError(f"Serve refuses the configuration: {error}") from None

    def _submit(self, schema: Any) -> None:
        """What `serve run FILE` does; Serve has no public call that takes a whole file."""
        from ray.serve.context import _get_global_client

        _get_global_client().deploy_apps(schema)

    def failure(self) -> str | None:
        """Why an application cannot run; None while all may yet."""
        from ray import serve

        for name, application in serve.status().applications.items():
            if application.status.value == "DEPLOY_FAILED":
                cause = application.message.strip()
                last = cause.splitlines()[-1] if cause else "Serve gives no reason."
                return f"{cause}\n\nThe application '{name}' cannot be deployed: {last}"
        return None

    def stop(self) -> bool:
        """End the applications, Serve, then Ray; False if Ray has not been started (completely)."""
        import ray
        from ray import serve

        if not ray.is_initialized():
            return False
        with redirect_stdout(StringIO()):  # Ray reports each clean end of Serve as a failed task
            serve.shutdown()
            ray.shutdown()
        return True
