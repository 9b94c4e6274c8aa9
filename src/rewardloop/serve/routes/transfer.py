"""Feedback out of this place, and into it, as files in nine layouts."""

from __future__ import annotations

import re
import tempfile
import time
import zipfile
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse

from rewardloop.feedback.exporting import Format, Manifest, export_feedback
from rewardloop.feedback.log.erasing import EXPORTS
from rewardloop.feedback.log.events import NewEvent, new_id
from rewardloop.feedback.log.settled import SETTLING_S
from rewardloop.feedback.log.transfer import export_from, import_into
from rewardloop.feedback.reading import import_feedback
from rewardloop.serve.edge.access import Caller
from rewardloop.serve.edge.errors import ApiError
from rewardloop.serve.gateway import Gateway, TheCaller, TheGateway

router = APIRouter(tags=["page"])

Layout = Literal[
    "rewardloop",
    "trl-preference",
    "trl-unpaired",
    "trl-prompt-completion",
    "trl-stepwise",
    "hh",
    "argilla",
    "label-studio",
    "open-webui",
]
ARCHIVE: Final = "export.zip"
_ID: Final = re.compile(r"[0-9a-f-]{36}")


class Filter(BaseModel):
    """Which judgments; what is left out does not narrow."""

    model_config = ConfigDict(extra="forbid")
    kinds: Annotated[list[str], Field(max_length=9)] | None = None
    annotators: Annotated[list[str], Field(max_length=1000)] | None = None
    criterion: Annotated[str, Field(max_length=64)] | None = None


class ExportRequest(BaseModel):
    """What is wanted, and in which form."""

    model_config = ConfigDict(extra="forbid")
    layout: Layout = "rewardloop"
    format: Format = "jsonl"
    filter: Filter = Filter()


@router.post("/api/exports", status_code=201)
async def export(given: ExportRequest, gateway: TheGateway, caller: TheCaller) -> JSONResponse:
    """Everything that has been said, as files with a manifest."""
    export_id = new_id()
    manifest = await gateway.read(_export, gateway, given, gateway.data / EXPORTS / export_id)
    body = {"layout": given.layout, "format": given.format, "rows": manifest.rows, "sha256": manifest.sha256}
    await gateway.append(_event("data.exported", caller, export_id, body))
    files = [{"name": file.name, "rows": file.rows, "sha256": file.sha256} for file in manifest.files]
    reply = {"id": export_id, **body, "files": files, "left_out": dict(manifest.left_out)}
    return JSONResponse({**reply, "url": f"/api/exports/{export_id}"}, 201)


@router.get("/api/exports/{export_id}")
async def download(export_id: str, gateway: TheGateway) -> FileResponse:
    """The files of an export, in an archive."""
    path = gateway.data / EXPORTS / export_id / ARCHIVE if _ID.fullmatch(export_id) else None
    if path is None or not path.is_file():
        raise ApiError(404, "there is no such export; it may have been erased with somebody's data", param="export_id")
    return FileResponse(path, media_type="application/zip", filename=f"rewardloop-{export_id[:13]}.zip")


@router.post("/api/imports", status_code=201)
async def bring_in(
    http: Request,
    gateway: TheGateway,
    caller: TheCaller,
    layout: Annotated[str | None, Query(max_length=64, description="default: found by looking")] = None,
    suffix: Literal["jsonl", "json", "csv", "tsv", "parquet"] = "jsonl",
) -> JSONResponse:
    """Judgments from a file in the body; all of it is read before anything is stored."""
    if layout is not None and not re.fullmatch(r"[a-z0-9-]+", layout):
        raise ApiError(400, f"no layout is called {layout!r}", param="layout")
    with tempfile.TemporaryDirectory(dir=gateway.data) as folder:
        path = Path(folder) / f"import.{suffix}"
        with path.open("wb") as file:
            async for block in http.stream():
                file.write(block)
        found = await gateway.read(import_feedback, path, layout)
    stored = await gateway.read(import_into, gateway.log, found.feedback, caller.id)
    body = {"read": len(found.feedback), "stored": stored.stored, "known": stored.known}
    await gateway.append(_event("data.imported", caller, None, body))
    skipped = Counter(found.skipped) + Counter(stored.skipped)
    left_out = [{"reason": reason, "count": count} for reason, count in skipped.items()]
    return JSONResponse({**body, "skipped": left_out}, 201)


def _export(gateway: Gateway, given: ExportRequest, folder: Path) -> Manifest:
    feedback, seq_range = export_from(gateway.log, time.time() + SETTLING_S)
    wanted = given.filter
    chosen = [
        judgment
        for judgment in feedback
        if (wanted.kinds is None or type(judgment).__name__.lower() in wanted.kinds)
        and (wanted.annotators is None or judgment.annotator in wanted.annotators)
        and (wanted.criterion is None or judgment.criterion == wanted.criterion)
    ]
    manifest = export_feedback(chosen, folder, given.layout, given.format, seq_range)
    with zipfile.ZipFile(folder / ARCHIVE, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.iterdir()):
            if path.name != ARCHIVE:
                archive.write(path, path.name)
    return manifest


def _event(kind: str, caller: Caller, target_id: str | None, body: dict[str, Any]) -> NewEvent:
    return NewEvent(kind=kind, actor_id=caller.id, actor_kind=caller.kind, target_id=target_id, body=body)
