"""Fixtures of all tests: no network, one thread, the folder of real data where it is at hand."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest

from postgres_server import Server, running_server


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--device", choices=["best", "foreign"], default="best", help="where models go (foreign_device.py)"
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--device") == "foreign":
        import foreign_device
        from rewardloop import hardware

        foreign_device.install(Path(config.rootpath) / ".pytest_cache" / "device")
        hardware.best_device = lambda: foreign_device.NAME


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    if collection_path.name != "test_elsewhere.py":
        return None
    from rewardloop import hardware

    return hardware.best_device() == "cpu" or None


SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real feedback (`data/`) and small real models (`models/`) beside the project."""
    if not (SHARED / "data").is_dir():
        pytest.skip(f"no real data and models at {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A PostgreSQL server for this session of tests."""
    with running_server() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new empty database, once of each sort."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/data/rewardloop.db"
    server: Server = request.getfixturevalue("postgres")
    return server.new_database()
