"""Whether the gateway lives, whether it can answer, and what Prometheus wants to know."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from rewardloop.serve.gateway import TheGateway
from rewardloop.serve.routes.dashboard import count_settled

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def alive() -> JSONResponse:
    """This process answers."""
    return JSONResponse({"status": "ok"})


@router.get("/readyz", responses={503: {"description": "The engine is not there"}})
async def ready(gateway: TheGateway) -> JSONResponse:
    """The engine answers, too."""
    up = await gateway.engine.healthy()
    return JSONResponse({"status": "ok" if up else "starting"}, 200 if up else 503)


@router.get("/metrics")
async def metrics(gateway: TheGateway) -> Response:
    """Everything measured, in Prometheus' text form."""
    gateway.telemetry.backlog.set(gateway.writer.backlog)
    settling_s = gateway.preferences.settings.settling_s
    to_learn = await gateway.read(count_settled, gateway.log, settling_s, gateway.policy.learned)
    policy = gateway.policy
    newest = policy.newest
    gateway.telemetry.show_policy(
        newest.metrics if newest else {},
        newest=newest.version if newest else 0,
        active=policy.serving,
        paused=policy.paused,
        to_learn=to_learn,
    )
    return Response(gateway.telemetry.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/openapi.json", include_in_schema=False)
async def openapi(http: Request) -> JSONResponse:
    """This interface, described."""
    return JSONResponse(http.app.openapi())
