"""One server of weightless models for all of these tests, in one event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.security.toys import ToyServer, toy_server


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def toys(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ToyServer]:
    async with toy_server(tmp_path_factory.mktemp("data")) as server:
        yield server
