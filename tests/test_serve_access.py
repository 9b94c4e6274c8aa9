"""Every route times everybody: who is let in is what the table says, and nothing is served that the table lacks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import APIRouter
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from rewardloop.serve.app import ROUTERS
from rewardloop.serve.edge.access import TABLE, Role, Scope, require_complete, routes_of
from rewardloop.serve.routes.socket import router as socket_router
from serving import Place, a_place

PEOPLE = ["nobody", "expired", "system", "stranger", *Role, *Scope]
ROUTES = sorted(route for route in TABLE if route[0] != "WEBSOCKET")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with a_place(tmp_path_factory.mktemp("place")) as made:
        yield made


@pytest.fixture(scope="module")
def clients(place: Place) -> dict[str, httpx2.Client]:
    expired = place.nobody()
    expired.cookies.set("rewardloop_session", "a session that is over")
    stranger = place.nobody(authorization="Bearer the secret of nobody")
    people: dict[str, httpx2.Client] = {"nobody": place.nobody(), "expired": expired, "stranger": stranger}
    people["system"] = place.operator()
    people |= {role: place.person(role) for role in Role}
    return people | {scope: place.program(scope) for scope in Scope}


def test_the_table_has_every_route_and_no_other() -> None:
    assert set(routes_of((socket_router, *ROUTERS))) == set(TABLE)


def test_a_route_without_an_entry_is_not_served() -> None:
    router = APIRouter()
    router.add_api_route("/api/new", lambda: None)
    with pytest.raises(AssertionError, match="/api/new"):
        require_complete([router])


@pytest.mark.parametrize("who", PEOPLE)
@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_who_is_let_in(clients: dict[str, httpx2.Client], who: str, method: str, path: str) -> None:
    access = TABLE[method, path]
    if path in ("/api/logout", "/api/login", "/api/setup", "/api/join"):
        pytest.skip("changes who is signed in; test_serve_security has it")
    allowed = access.anyone or who in access.roles or who in access.scopes or (who == "system" and access.system)
    # A body that is no good: whoever is let in hears so, and nothing is changed.
    address = path.replace("{path:path}", "").replace("{", "x").replace("}", "")
    body: dict[str, Any] = {} if method in ("GET", "DELETE") else {"json": {"no such field": 1}}
    status = clients[who].request(method, address, **body).status_code
    if allowed:
        assert status not in (401, 403) or (path, status) == ("/api/queue/next", 403), status
    else:
        assert status == (401 if who in ("nobody", "expired", "stranger") else 403)


@pytest.mark.parametrize("who", PEOPLE)
def test_who_may_open_a_socket(place: Place, clients: dict[str, httpx2.Client], who: str) -> None:
    client = clients[who]
    headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in client.cookies.items())}
    headers["Origin"] = place.base
    if "authorization" in client.headers:
        headers["Authorization"] = client.headers["authorization"]
    address = place.base.replace("http", "ws") + "/api/socket"
    if who in set(Role):
        with connect(address, additional_headers=headers) as ws:
            ws.send('{"type": "ping"}')
            assert "pong" in str(ws.recv(timeout=5))
    else:
        with pytest.raises(InvalidStatus):
            connect(address, additional_headers=headers)


def test_what_is_not_mine_is_not_there(place: Place, tmp_path: Path) -> None:
    owner, annotator = place.owner, place.person(Role.ANNOTATOR)
    conversation = owner.post("/api/conversations", json={}).json()["id"]
    judged = owner.post(
        "/v1/feedback", json={"kind": "comment", "text": "fine", "target": {"completion_id": "c"}}
    ).json()["id"]
    for method, path in [
        ("GET", f"/api/conversations/{conversation}"),
        ("GET", f"/api/feedback/mine?conversation_id={conversation}"),
        ("GET", f"/v1/feedback/{judged}"),
        ("DELETE", f"/v1/feedback/{judged}"),
        ("DELETE", f"/api/conversations/{conversation}"),
    ]:
        other, mine = annotator.request(method, path), owner.request(method, path)
        missing = annotator.request(method, path.replace(conversation, "nothing").replace(judged, "nothing"))
        assert (other.status_code, other.json()) == (missing.status_code, missing.json()) == (404, other.json())
        assert mine.status_code < 300
