"""The stand-in as an application with the headers of the gateway."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Request, WebSocket
from fastapi.responses import FileResponse, JSONResponse

from web_mock.accounts import accounts
from web_mock.judging import judging
from web_mock.looking import looking, talking
from web_mock.streaming import serve_socket
from web_mock.town import Refusal, Town

PAGES = Path(__file__).resolve().parents[2] / "src" / "rewardloop" / "serve" / "pages"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "font-src 'self'; require-trusted-types-for 'script'; trusted-types dompurify; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'self'"
)


def create_app(town: Town) -> FastAPI:
    app = FastAPI(docs_url=None, redoc_url=None)

    @app.middleware("http")
    async def harden(request: Request, answer: Any) -> Any:
        response = await answer(request)
        response.headers["content-security-policy"] = POLICY
        response.headers["x-content-type-options"] = "nosniff"
        return response

    @app.exception_handler(Refusal)
    async def refuse(_: Request, why: Refusal) -> JSONResponse:
        error = {"message": why.message, "type": "invalid_request_error", "param": why.param, "code": None}
        return JSONResponse({"error": error}, why.status)

    @app.exception_handler(HTTPException)
    async def missing(_: Request, why: HTTPException) -> JSONResponse:
        return JSONResponse({"error": {"message": why.detail, "type": "not_found", "param": None, "code": None}}, 404)

    app.include_router(accounts(town))
    app.include_router(talking(town))
    app.include_router(judging(town))
    app.include_router(looking(town))

    @app.websocket("/api/socket")
    async def listen(socket: WebSocket, tab: str = "") -> None:
        await serve_socket(town, socket, tab)

    @app.get("/{path:path}")
    async def page(path: str) -> FileResponse:
        if path.startswith(("api/", "v1/")):
            raise Refusal(404, f"no such path: /{path}")
        found = (PAGES / path).resolve()
        return FileResponse(found if found.is_file() and PAGES in found.parents else PAGES / "index.html")

    return app
