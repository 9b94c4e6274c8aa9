"""The page itself: its built files, and the town that the built-in model talks about."""

from __future__ import annotations

import mimetypes
from pathlib import Path
from typing import Final, Literal

from fastapi import APIRouter
from starlette.responses import FileResponse, JSONResponse, Response

from rewardloop.serve.edge.errors import ApiError
from rewardloop.serve.gateway import TheGateway
from rewardloop.serve.work.town import describe_town

router = APIRouter(tags=["page"])

PAGES: Final = Path(__file__).parents[1] / "pages"
_FILES: Final = {
    path.relative_to(PAGES).as_posix(): path for path in (PAGES.rglob("*") if PAGES.is_dir() else ()) if path.is_file()
}
_FOREVER: Final = "public, max-age=31536000, immutable"  # names of assets change with their contents


@router.get("/api/world")
async def world(gateway: TheGateway, language: Literal["en", "zh"] = "en") -> JSONResponse:
    """What is true in the town, and what one might ask there."""
    if not gateway.has_world:
        raise ApiError(404, "only the built-in model has a world; this one may say anything")
    return JSONResponse(describe_town(language))


@router.get("/{path:path}", include_in_schema=False)
async def file(path: str) -> Response:
    """A file of the page; any other address is a place within the page."""
    if path.startswith(("api/", "v1/")):
        raise ApiError(404, "there is nothing at this address")
    found = _FILES.get(path)
    if found is None and ("." in path.rsplit("/", 1)[-1] or "index.html" not in _FILES):
        raise ApiError(404, "there is nothing at this address")
    kind = mimetypes.guess_type(found.name)[0] if found is not None else "text/html"
    kept = _FOREVER if path.startswith("assets/") else "no-cache"
    return FileResponse(found or _FILES["index.html"], media_type=kind, headers={"cache-control": kept})
