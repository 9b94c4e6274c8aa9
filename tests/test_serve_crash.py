"""A killed gateway loses nothing that it acknowledged and stores nothing twice; a killed engine is said to be gone."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Any

import httpx2

from gateway_under_fire import running, stored, under_fire
from serving import MODEL, StubEngine, a_place, served


def test_a_killed_gateway(tmp_path: Path) -> None:
    with (
        served(StubEngine().app(), uds=str(tmp_path / "e.sock")),
        running(tmp_path / "data", tmp_path / "e.sock") as (
            gateway,
            key,
        ),
    ):
        fire = under_fire(gateway, key, kills=3, clients=8, seed=0)
        found = stored(gateway, key)
    assert len(fire.acknowledged) > 8
    assert not fire.changed
    assert set(fire.acknowledged) <= set(found)
    assert set(found.values()) == {1}
    with sqlite3.connect(tmp_path / "data" / "rewardloop.db") as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    database.close()


def test_an_engine_that_is_not_there(tmp_path: Path) -> None:
    asked: Any = {"model": MODEL, "messages": [{"role": "user", "content": "x"}]}
    with a_place(tmp_path) as place:
        (tmp_path / "e.sock").unlink()
        began = time.monotonic()
        while (reply := place.owner.post("/v1/chat/completions", json=asked)).status_code == 200:
            assert time.monotonic() - began < 20  # connections that are open still may answer
        assert reply.status_code == 503
        assert reply.json()["error"]["code"] == "engine_unavailable"
        assert place.owner.get("/readyz").status_code == 503
        assert place.owner.get("/healthz").status_code == 200
        given = {"kind": "comment", "text": "still here", "target": {"external_id": "x"}}
        assert place.owner.post("/v1/feedback", json=given).status_code == 201


def test_a_full_disk_is_said_and_gets_over_itself(tmp_path: Path, monkeypatch: Any) -> None:
    given = {"kind": "comment", "text": "x", "target": {"external_id": "x"}}
    with a_place(tmp_path) as place:
        owner = place.owner
        with place.gateway.log.writer.connect() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
            connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
        statuses = [refused(owner, given, number) for number in range(40)]
        assert 507 in statuses
        assert owner.get("/healthz").status_code == 200
        assert owner.get("/api/dashboard").status_code == 200
        accepted = statuses.count(201)
        with place.gateway.log.writer.connect() as connection:
            connection.exec_driver_sql("PRAGMA max_page_count=1000000")
        assert owner.post("/v1/feedback", json=given).status_code == 201
        found = owner.get("/v1/feedback", params={"limit": 1000}).json()["items"]
        assert len(found) == accepted + 1


def test_a_failing_sync_acknowledges_nothing_and_gets_over_itself(tmp_path: Path, monkeypatch: Any) -> None:
    def fail(*_: object) -> None:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
        raise error

    given = {"kind": "comment", "text": "x", "target": {"external_id": "x"}}
    with a_place(tmp_path) as place:
        owner = place.owner
        with monkeypatch.context() as patch:
            patch.setattr(place.gateway.log.writer.dialect, "do_commit", fail)
            for number in range(5):
                reply = owner.post("/v1/feedback", json=given, headers={"idempotency-key": str(number)})
                assert (reply.status_code, reply.json()["error"]["code"]) == (503, "storage_unavailable")
                assert "retry-after" in reply.headers
            assert owner.get("/healthz").status_code == 200
            assert owner.get("/v1/feedback").json()["items"] == []
        reply = owner.post("/v1/feedback", json=given, headers={"idempotency-key": "0"})
        assert reply.status_code == 201
        assert len(owner.get("/v1/feedback").json()["items"]) == 1


def refused(owner: httpx2.Client, given: dict[str, Any], number: int) -> int:
    return owner.post("/v1/feedback", json={**given, "text": f"{number} " * 2000}).status_code
