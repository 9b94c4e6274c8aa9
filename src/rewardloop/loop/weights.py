"""Weights as files: safetensors named by their digest, and a manifest that says which version they are.

    weights/
      sha256-<64 hexadecimal digits>.safetensors
      v8.json                 {"version": 8, "digest": "...", "model": "...", "created_at": "...", "metrics": {...}}

Both are written under a temporary name, synced and renamed: a reader sees a version whole or not at all. A digest that
does not fit is found before any weight is used.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from rewardloop.errors import StoreError
from rewardloop.files import write_text, written_whole

_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Manifest:
    """One version of the weights."""

    folder: Path
    version: int
    digest: str  # SHA-256 of the file, hexadecimal
    model: str  # where the untouched model came from
    created_at: str  # ISO 8601, UTC
    metrics: dict[str, float] = field(default_factory=dict)

    @property
    def file(self) -> Path:
        return self.folder / f"sha256-{self.digest}.safetensors"

    @property
    def path(self) -> Path:
        return self.folder / f"v{self.version}.json"


def publish_weights(
    tensors: Mapping[str, Tensor], folder: Path, *, version: int, model: str, metrics: Mapping[str, float] | None = None
) -> Manifest:
    """Write weights and manifest, whole or not at all. Raises StoreError (disk full, version already there)."""
    if (folder / f"v{version}.json").exists():
        raise StoreError(f"{folder} has a version {version} already; versions are never written twice")
    with written_whole(folder / f"weights-{version}") as temporary:
        save_file({name: value.detach().contiguous().cpu() for name, value in tensors.items()}, temporary)
        digest = digest_of(temporary)
    manifest = Manifest(folder, version, digest, model, datetime.now(UTC).isoformat(), dict(metrics or {}))
    (folder / f"weights-{version}").replace(manifest.file)
    plain = {name: value for name, value in asdict(manifest).items() if name != "folder"}
    write_text(manifest.path, json.dumps(plain, ensure_ascii=False))
    return manifest


def read_manifest(path: Path) -> Manifest:
    """The manifest at `path`. Raises StoreError where it is missing or damaged."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        manifest = Manifest(folder=path.parent, **values)
        if int(manifest.digest, 16) < 0 or len(manifest.digest) != 64:
            raise ValueError("the digest is not one")
    except (OSError, ValueError, TypeError) as error:
        raise StoreError(f"no usable manifest of weights at {path}: {error}") from error
    return manifest


def open_weights(manifest: Manifest) -> dict[str, Tensor]:
    """The tensors of a version, verified. Raises StoreError where they are not what the manifest says."""
    try:
        if (found := digest_of(manifest.file)) != manifest.digest:
            raise StoreError(f"{manifest.file} is damaged: its digest is {found}; go back to an earlier version")
        tensors: dict[str, Tensor] = load_file(manifest.file)
        return tensors
    except (OSError, SafetensorError) as error:
        raise StoreError(f"the weights of version {manifest.version} cannot be read: {error}") from error


def digest_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
