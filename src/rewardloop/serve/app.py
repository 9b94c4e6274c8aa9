"""The application: every route, the table of access before it, the shell around it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any, Final

from fastapi import Depends, FastAPI
from starlette.types import ASGIApp

import rewardloop
from rewardloop.serve.edge.access import require_complete
from rewardloop.serve.edge.errors import ErrorEnvelope, install_error_handlers
from rewardloop.serve.edge.shell import Shell
from rewardloop.serve.gateway import Gateway, admitted
from rewardloop.serve.routes import (
    accounts,
    annotators,
    conversations,
    dashboard,
    data,
    feedback,
    health,
    openai,
    page,
    policy,
    queue,
    settings,
    socket,
    transfer,
    verdicts,
)
from rewardloop.serve.routes.ingest import Ingest
from rewardloop.serve.work.activating import keep_up
from rewardloop.serve.work.kitchen import Kitchen

# Routes are tried in this order: what is asked most comes first. The page's catch-all is last: whatever is not an
# address of the interface is a place in the page.
ROUTERS: Final = (
    feedback.router,
    openai.router,
    health.router,
    accounts.router,
    conversations.router,
    queue.router,
    verdicts.router,
    annotators.router,
    dashboard.router,
    data.router,
    transfer.router,
    settings.router,
    policy.router,
    page.router,
)
_REFUSALS: Final[dict[int | str, dict[str, Any]]] = {
    status: {"model": ErrorEnvelope}
    for status in (400, 401, 403, 404, 409, 413, 415, 421, 422, 429, 431, 500, 503, 507)
}


def make_app(gateway: Gateway, hosts: Collection[str]) -> ASGIApp:
    """The gateway as an ASGI application that answers to the names in `hosts`."""

    kitchen = Kitchen(gateway)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        kitchen.resume()
        keeping_up = asyncio.create_task(keep_up(gateway))
        yield
        keeping_up.cancel()
        await asyncio.gather(keeping_up, return_exceptions=True)
        await kitchen.close()
        await gateway.close()

    app = FastAPI(
        title="rewardloop",
        version=rewardloop.__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        responses=_REFUSALS,
    )
    app.state.gateway, app.state.kitchen = gateway, kitchen
    install_error_handlers(app)

    require_complete((socket.router, *ROUTERS))
    app.include_router(socket.router)  # lets nobody in by itself: a WebSocket is refused in its own way
    for router in ROUTERS:
        app.include_router(router, dependencies=[Depends(admitted)])
    return Shell(Ingest(app, gateway), hosts=hosts, telemetry=gateway.telemetry)
