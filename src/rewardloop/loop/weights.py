"""The tensors of the weight registry (`manifests`): writing a version, reading a part of one."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from rewardloop.errors import StoreError
from rewardloop.files import write_text, written_whole
from rewardloop.loop.manifests import POLICY, Manifest, digest_of, manifest_path


def publish_version(
    folder: Path,
    version: int,
    parts: Mapping[str, Mapping[str, Tensor]],
    *,
    model: str,
    metrics: Mapping[str, float] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Manifest:
    """Write a version, whole or not at all. Raises StoreError (disk full, version already there)."""
    if manifest_path(folder, version).exists():
        raise StoreError(f"{folder} has a version {version} already; versions are never written twice")
    digests = {name: _write_part(folder, tensors) for name, tensors in parts.items()}
    created_at = datetime.now(UTC).isoformat()
    manifest = Manifest(folder, version, digests, model, created_at, dict(metrics or {}), dict(facts or {}))
    plain = {name: value for name, value in asdict(manifest).items() if name != "folder"}
    write_text(manifest.path, json.dumps(plain, ensure_ascii=False, allow_nan=False))
    return manifest


def open_part(manifest: Manifest, part: str = POLICY) -> dict[str, Tensor]:
    """The tensors of a part, verified. Raises StoreError where they are not what the manifest says."""
    try:
        file = manifest.file(part)
        if (found := digest_of(file)) != manifest.parts[part]:
            raise StoreError(f"{file} is damaged: its digest is {found}; go back to an earlier version")
        tensors: dict[str, Tensor] = load_file(file)
        return tensors
    except (OSError, KeyError, SafetensorError) as error:
        raise StoreError(f"the {part} of version {manifest.version} cannot be read: {error}") from error


def _write_part(folder: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write tensors under their digest, which is returned."""
    waiting = folder / f".part.{os.getpid()}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}, waiting)
        digest = digest_of(waiting)
        target = folder / f"sha256-{digest}.safetensors"
        with written_whole(target) as temporary:
            waiting.replace(temporary)
    except (OSError, SafetensorError) as error:
        if isinstance(error, StoreError):
            raise
        raise StoreError(f"could not write weights into {folder}: {error}; nothing was changed there") from error
    finally:
        waiting.unlink(missing_ok=True)
    return digest
