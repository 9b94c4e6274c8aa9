"""The weight registry: versions of what was learned, as files. A version is a *generation*, one atomic bundle.

    weights/
      sha256-<64 hexadecimal digits>.safetensors   a part: the policy's weights, the potential, the learner's state ...
      v8.json          {"version": 8, "parts": {"policy": "<digest>", ...}, "model": "...", "created_at": "...", ...}
      active.json      {"version": 7}: what the engine serves; it reads this when it starts

Parts first, then the manifest that names them; each is written under a temporary name, synced and renamed. So a reader
sees a version whole or not at all, and a part that two versions share is there once. A digest that does not fit is
found before anything is used.

Nothing here reads a tensor, so that whoever only asks which versions there are needs no torch; `weights` does.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from rewardloop.errors import StoreError
from rewardloop.files import write_text

POLICY: Final = "policy"  # the part that every version has
POTENTIAL: Final = "potential"  # what foresees the reward of a token; reads the states of the untouched model
ACTIVE: Final = "active.json"
WEIGHTS: Final = "weights"  # the registry's folder in a data directory

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
        return manifest_path(self.folder, self.version)

    @property
    def digest(self) -> str:
        """Of the policy's weights."""
        return self.parts[POLICY]

    def file(self, part: str = POLICY) -> Path:
        return self.folder / f"sha256-{self.parts[part]}.safetensors"


def manifest_path(folder: Path, version: int) -> Path:
    """Where the manifest of a version is, or would be."""
    return folder / f"v{version}.json"


def read_manifest(path: Path) -> Manifest:
    """The manifest at `path`. Raises StoreError where it is missing or damaged."""
    try:
        manifest = Manifest(folder=path.parent, **json.loads(path.read_text(encoding="utf-8")))
        if POLICY not in manifest.parts or not all(_DIGEST.fullmatch(digest) for digest in manifest.parts.values()):
            raise ValueError("it names no digest")
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise StoreError(f"no usable manifest of weights at {path}: {error}") from error
    return manifest


def list_versions(folder: Path) -> list[Manifest]:
    """All versions whose manifest can be read, newest first."""
    numbers = [int(match[1]) for path in folder.glob("v*.json") if (match := _MANIFEST.fullmatch(path.name))]
    found = []
    for number in sorted(numbers, reverse=True):
        with suppress(StoreError):
            found.append(read_manifest(manifest_path(folder, number)))
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
