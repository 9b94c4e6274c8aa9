"""The weight registry: versions of what was learned, as files. A version is a *generation*, one atomic bundle.

    weights/
      sha256-<64 hexadecimal digits>.safetensors   a part: the policy's weights, the potential, the learner's state ...
      v8.json          {"version": 8, "parts": {"policy": "<digest>", ...}, "model": "...", "created_at": "...", ...}
      active.json      {"version": 7}: what the engine serves; it reads this when it starts

Parts first, then the manifest that names them; each is written under a temporary name, synced and renamed. So a reader
sees a version whole or not at all, and a part that two versions share is there once. A digest that does not fit is
found before anything is used.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from rewardloop.errors import StoreError
from rewardloop.files import write_text, written_whole

POLICY: Final = "policy"  # the part that every version has
POTENTIAL: Final = "potential"  # what foresees the reward of a token; reads the states of the untouched model
ACTIVE: Final = "active.json"

_BLOCK = 1 << 20
_DIGEST = re.compile(r"[0-9a-f]{64}")
_MANIFEST = re.compile(r"v(\d+)\.json")


@dataclass(frozen=True, slots=True)
class Manifest:
    """One version."""

    folder: Path
    version: int
    parts: dict[str, str]  # name -> SHA-256 of the file, hexadecimal
    model: str  # where the untouched model came from
    created_at: str  # ISO 8601, UTC
    metrics: dict[str, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)  # what else must be known to go on from here; JSON

    @property
    def path(self) -> Path:
        return self.folder / f"v{self.version}.json"

    @property
    def digest(self) -> str:
        """Of the policy's weights."""
        return self.parts[POLICY]

    def file(self, part: str = POLICY) -> Path:
        return self.folder / f"sha256-{self.parts[part]}.safetensors"


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
    if (folder / f"v{version}.json").exists():
        raise StoreError(f"{folder} has a version {version} already; versions are never written twice")
    digests = {name: _write_part(folder, tensors) for name, tensors in parts.items()}
    created_at = datetime.now(UTC).isoformat()
    manifest = Manifest(folder, version, digests, model, created_at, dict(metrics or {}), dict(facts or {}))
    plain = {name: value for name, value in asdict(manifest).items() if name != "folder"}
    write_text(manifest.path, json.dumps(plain, ensure_ascii=False, allow_nan=False))
    return manifest


def read_manifest(path: Path) -> Manifest:
    """The manifest at `path`. Raises StoreError where it is missing or damaged."""
    try:
        manifest = Manifest(folder=path.parent, **json.loads(path.read_text(encoding="utf-8")))
        if POLICY not in manifest.parts or not all(_DIGEST.fullmatch(digest) for digest in manifest.parts.values()):
            raise ValueError("it names no digest")
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise StoreError(f"no usable manifest of weights at {path}: {error}") from error
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


def list_versions(folder: Path) -> list[Manifest]:
    """All versions whose manifest can be read, newest first."""
    numbers = [int(match[1]) for path in folder.glob("v*.json") if (match := _MANIFEST.fullmatch(path.name))]
    found = []
    for number in sorted(numbers, reverse=True):
        with suppress(StoreError):
            found.append(read_manifest(folder / f"v{number}.json"))
    return found


def is_intact(manifest: Manifest) -> bool:
    """Whether every part is there and is what the manifest says."""
    try:
        return all(digest_of(manifest.file(part)) == digest for part, digest in manifest.parts.items())
    except OSError:
        return False


def active_version(folder: Path) -> int | None:
    """What is being served; None for the model as it was given. Raises StoreError where the note is damaged."""
    try:
        return int(json.loads((folder / ACTIVE).read_text(encoding="utf-8"))["version"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{folder / ACTIVE} does not say which version is active: {error}") from error


def set_active(folder: Path, version: int) -> None:
    """Note which version an engine shall serve when it starts."""
    write_text(folder / ACTIVE, json.dumps({"version": version}))


def collect_versions(folder: Path, keep: Collection[int]) -> list[int]:
    """Remove all versions but `keep`, every part that none of those names, and what killed writers left behind.

    Only the one writer of the folder may call this. Returns the versions that are gone.
    """
    versions = list_versions(folder)
    gone = [manifest for manifest in versions if manifest.version not in keep]
    needed = {digest for manifest in versions if manifest.version in keep for digest in manifest.parts.values()}
    for manifest in gone:
        manifest.path.unlink(missing_ok=True)
    for path in folder.glob("sha256-*.safetensors"):
        if path.name[len("sha256-") : -len(".safetensors")] not in needed:
            path.unlink(missing_ok=True)
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)
    return [manifest.version for manifest in gone]


def digest_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


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
