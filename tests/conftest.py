"""Fixtures of all tests: no network, one thread, the folder of real data where it is at hand."""

from __future__ import annotations

import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real feedback (`data/`) and small real models (`models/`) beside the project."""
    if not (SHARED / "data").is_dir():
        pytest.skip(f"no real data and models at {SHARED}")
    return SHARED
