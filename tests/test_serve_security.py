"""What must be refused is refused, as it should be, and nothing is executed, read or kept that should not be."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from rewardloop.serve.edge.access import Role, Scope
from rewardloop.serve.edge.errors import ApiError
from rewardloop.serve.edge.limits import Limits, Rate
from serving import MODEL, PASSWORD, SETUP, Place, a_place

RATING: Any = {"kind": "rating", "value": 4, "target": {"completion_id": "c-1"}}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with a_place(tmp_path_factory.mktemp("place")) as made:
        yield made


def test_every_answer_carries_the_headers_of_safety(place: Place) -> None:
    for path in ("/healthz", "/", "/no/such/place.js", "/api/users", "/v1/models"):
        headers = place.nobody().get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert "require-trusted-types-for 'script'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize("path", ["/nothing.txt", "/api/nothing", "/v1/nothing", "/v1/chat"])
def test_every_error_has_the_envelope(place: Place, path: str) -> None:
    for method in ("GET", "POST", "PUT", "DELETE"):
        reply = place.owner.request(method, path)
        assert reply.status_code in (404, 405)
        error = reply.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["message"]


# ---------------------------------------------------------------- other sites


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
    ],
)
def test_other_sites_change_nothing(place: Place, headers: dict[str, str]) -> None:
    owner, before = place.owner, place.gateway.log.last_seq()
    for method, path, body in [
        ("POST", "/v1/feedback", RATING),
        ("POST", "/api/logout", {}),
        ("PUT", "/api/guidelines", {"text": "x"}),
        ("PATCH", "/api/me", {"language": "zh"}),
        ("DELETE", "/v1/feedback/x", None),
    ]:
        extra = {} if body is None else {"json": body}
        assert owner.request(method, path, headers=headers, **extra).status_code == 403
    assert place.gateway.log.last_seq() == before
    own = {"origin": place.base, "sec-fetch-site": "same-origin"}
    assert owner.post("/v1/feedback", json=RATING, headers=own).status_code == 201


def test_forms_are_not_taken(place: Place) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        reply = place.owner.post("/v1/feedback", content=json.dumps(RATING), headers={"content-type": kind})
        assert reply.status_code == 415


@pytest.mark.parametrize("origin", ["http://evil.example", "null", None])
def test_sockets_of_other_sites_are_refused(place: Place, origin: str | None) -> None:
    cookie = "; ".join(f"{name}={value}" for name, value in place.owner.cookies.items())
    headers = {"Cookie": cookie, "Sec-Fetch-Site": "cross-site"} if origin is None else {"Cookie": cookie}
    with pytest.raises(InvalidStatus):
        connect(place.base.replace("http", "ws") + "/api/socket", origin=origin, additional_headers=headers)  # type: ignore[arg-type]


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "localhost@evil.example", "[::2]"])
def test_other_names_are_not_served(place: Place, host: str) -> None:
    reply = place.nobody().get("/api/state", headers={"host": host})
    assert reply.status_code == 421 if host else reply.status_code in (400, 421)


# ---------------------------------------------------------------- bodies


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b'{"kind": NaN}', b"[" * 100_000, b'{"a":' * 5000 + b"1" + b"}" * 5000],
)
def test_malformed_bodies(place: Place, body: bytes) -> None:
    for path in ("/v1/feedback", "/v1/chat/completions", "/api/login", "/api/queue/tasks"):
        reply = place.owner.post(path, content=body, headers={"content-type": "application/json"})
        assert reply.status_code in (400, 422), (path, reply.text)
        assert reply.json()["error"]["message"]


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 1e999])
def test_numbers_that_are_none(place: Place, value: float) -> None:
    body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "x"}], "temperature": value})
    reply = place.owner.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert reply.status_code == 400


def test_a_body_that_is_too_large(place: Place) -> None:
    large = {"kind": "comment", "text": "x" * (1 << 20), "target": {"completion_id": "c"}}
    assert place.owner.post("/v1/feedback", json=large).status_code == 413


def test_a_body_that_hides_its_size(place: Place) -> None:
    def endless() -> Iterator[bytes]:
        yield b'{"kind": "comment", "text": "'
        for _ in range(200):
            yield b"x" * 65536

    try:
        status = place.owner.post(
            "/v1/feedback", content=endless(), headers={"content-type": "application/json"}
        ).status_code
    except httpx2.HTTPError:  # the server need not read to the end of it
        status = 413
    assert status == 413
    assert place.owner.get("/healthz").status_code == 200


def test_slow_clients_hold_nobody_up(place: Place) -> None:
    host, port = place.base.removeprefix("http://").split(":")
    slow = [socket.create_connection((host, int(port))) for _ in range(100)]
    try:
        for each in slow:
            each.sendall(b"POST /v1/feedback HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n")
        began = time.monotonic()
        assert place.nobody().get("/healthz").status_code == 200
        assert time.monotonic() - began < 5
    finally:
        for each in slow:
            each.close()


def test_headers_that_are_too_long(place: Place) -> None:
    reply = place.nobody().get("/healthz", headers={"x-long": "x" * 40_000})
    assert reply.status_code in (400, 431)


CHUNKED = b"POST /v1/feedback HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("beginning", "more"),
    [
        (b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n", b"x-more: of it\r\n"),
        (b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nx-long: ", b"x" * 100),
        (b"GET /", b"x" * 100),
        (CHUNKED + b"0\r\n", b"x-trailer: more\r\n"),
        (CHUNKED + b"1;", b"extension=" + b"x" * 90),
    ],
    ids=["headers", "one header", "address", "trailers", "extensions"],
)
def test_who_sends_without_an_end_is_cut_off(place: Place, beginning: bytes, more: bytes) -> None:
    host, port = place.base.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as raw:
        raw.sendall(beginning)
        sent = 0
        with pytest.raises(OSError, match=r"(?i)reset|broken pipe"):
            while sent < 32 << 20:
                raw.sendall(more * 100)
                sent += 100 * len(more)
    assert sent < 16 << 20  # far less than it would have sent: what the buffers of the connection hold
    assert place.owner.get("/healthz").status_code == 200


def test_one_judgment_by_the_short_way_and_by_the_long_one(place: Place) -> None:
    """What is wrong with a judgment is said by the route, what is sound is stored; nobody is let in by either."""
    good = place.owner.post("/v1/feedback", json=RATING, headers={"idempotency-key": "short"})
    again = place.owner.post("/v1/feedback", json=RATING, headers={"idempotency-key": "short"})
    assert (good.status_code, again.status_code, good.json()["id"]) == (201, 200, again.json()["id"])
    for wrong, param in [({**RATING, "value": "4"}, "value"), ({**RATING, "more": 1}, "more")]:
        reply = place.owner.post("/v1/feedback", json=wrong)
        assert reply.status_code == 400
        assert param in reply.json()["error"]["param"]
    for key in ("", "x" * 201):
        reply = place.owner.post("/v1/feedback", json=RATING, headers={"idempotency-key": key})
        assert reply.json()["error"]["param"] == "Idempotency-Key"
    assert place.nobody().post("/v1/feedback", json=RATING).status_code == 401
    assert place.person(Role.VIEWER).post("/v1/feedback", json=RATING).status_code == 403
    assert place.program(Scope.INFER).post("/v1/feedback", json=RATING).status_code == 403


def test_more_criteria_than_fit_are_refused_before_they_are_stored(tmp_path: Path) -> None:
    with a_place(tmp_path) as fresh:
        statuses = [fresh.owner.post("/v1/criteria", json={"name": f"c{n}"}).status_code for n in range(33)]
        assert statuses == [201] * 31 + [409] * 2  # beside "overall"
        assert fresh.owner.get("/v1/feedback", params={"after": 2**63}).status_code == 400


@pytest.mark.parametrize(
    "path",
    [
        "/../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/assets/..%2f..%2f..%2fetc%2fpasswd",
        "/assets/%252e%252e%252fetc/passwd",
        "//etc/passwd",
        "/assets/....//....//etc/passwd",
        "/index.html/../../app.py",
        "/..\\..\\app.py",
        "/app.py",
        "/%00index.html",
    ],
)
def test_no_file_but_the_pages_own_is_served(place: Place, path: str) -> None:
    host, port = place.base.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as raw:
        raw.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
        data = b""
        while block := raw.recv(65536):
            data += block
    assert b"root:" not in data
    assert b"import " not in data.partition(b"\r\n\r\n")[2][:2000] or b"<!doctype html>" in data.lower()


# ---------------------------------------------------------------- who is who


def test_the_set_up_link_works_once(tmp_path: Path) -> None:
    with a_place(tmp_path) as fresh:
        wrong = fresh.nobody().post("/api/setup", json={"token": "wrong", "name": "Eve", "password": PASSWORD})
        assert wrong.status_code == 403
        assert fresh.owner.get("/api/users").status_code == 200
        again = fresh.nobody().post("/api/setup", json={"token": SETUP, "name": "Eve", "password": PASSWORD})
        assert again.status_code == 409


def test_an_invitation_works_once_and_can_be_revoked(place: Place) -> None:
    first = place.owner.post("/api/invitations", json={"role": "viewer"}).json()
    second = place.owner.post("/api/invitations", json={"role": "viewer"}).json()
    assert place.owner.delete(f"/api/invitations/{second['id']}").status_code == 204

    def join(invitation: Any, name: str) -> int:
        token = invitation["link"].partition("#")[2]
        reply = place.nobody().post("/api/join", json={"token": token, "name": name, "password": PASSWORD})
        return int(reply.status_code)

    assert (join(first, "Guest"), join(first, "Guest 2"), join(second, "Guest 3")) == (201, 403, 403)
    assert place.person(Role.MANAGER).post("/api/invitations", json={"role": "owner"}).status_code == 403


def test_a_session_changes_at_login_and_ends_at_logout(place: Place) -> None:
    client = place.nobody()
    client.cookies.set("rewardloop_session", "chosen by somebody else")
    given = {"name": "the viewer", "password": PASSWORD}
    place.person(Role.VIEWER)
    first = client.post("/api/login", json=given)
    assert first.status_code == 200
    cookie = first.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    token = first.cookies["rewardloop_session"]
    other = place.nobody(cookie=f"rewardloop_session={token}")
    assert other.get("/api/users").status_code == 403  # a viewer, and signed in
    second = other.post("/api/login", json=given)
    assert second.cookies["rewardloop_session"] != token
    assert place.nobody(cookie=f"rewardloop_session={token}").get("/api/dashboard").status_code == 401
    newest = place.nobody(cookie=f"rewardloop_session={second.cookies['rewardloop_session']}")
    assert newest.get("/api/dashboard").status_code == 200
    assert newest.post("/api/logout").status_code == 204
    assert newest.get("/api/dashboard").status_code == 401


def test_a_new_password_ends_other_sessions(place: Place) -> None:
    invitation = place.owner.post("/api/invitations", json={"role": "viewer"}).json()["link"].partition("#")[2]
    here, there = place.nobody(), place.nobody()
    here.post("/api/join", json={"token": invitation, "name": "Mover", "password": PASSWORD})
    there.post("/api/login", json={"name": "Mover", "password": PASSWORD})
    assert there.get("/api/dashboard").status_code == 200
    wrong = here.patch("/api/me", json={"password": {"old": "not it at all", "new": "another secret"}})
    assert wrong.status_code == 403
    right = here.patch("/api/me", json={"password": {"old": PASSWORD, "new": "another secret"}})
    assert right.status_code == 200
    assert (here.get("/api/dashboard").status_code, there.get("/api/dashboard").status_code) == (200, 401)


def test_unknown_names_look_like_wrong_passwords(place: Place) -> None:
    place.person(Role.VIEWER)
    known = place.nobody().post("/api/login", json={"name": "the viewer", "password": "wrong one"})
    unknown = place.nobody().post("/api/login", json={"name": "nobody at all", "password": "wrong one"})
    assert (known.status_code, known.json()) == (unknown.status_code, unknown.json())
    assert known.status_code == 401


def test_guessing_is_slowed_down(place: Place) -> None:
    client = place.nobody()
    guesses = [{"name": "victim", "password": f"guess {n}"} for n in range(14)]
    statuses = [client.post("/api/login", json=guess).status_code for guess in guesses]
    assert statuses.count(401) <= 10
    last = client.post("/api/login", json={"name": "Victim", "password": "once more"})
    assert last.status_code == 429
    assert int(last.headers["retry-after"]) >= 1


def test_a_bucket_fills_again() -> None:
    now = [0.0]
    limits = Limits(lambda: now[0])
    rate = Rate(burst=2, per_minute=60)
    limits.take(rate, "a")
    limits.take(rate, "a")
    with pytest.raises(ApiError) as refused:
        limits.take(rate, "a")
    assert refused.value.headers["retry-after"] == "1"
    limits.take(rate, "b")
    now[0] = 1.0
    limits.take(rate, "a")
    with pytest.raises(ApiError):
        limits.take(rate, "a")


def test_secrets_are_stored_as_digests_only(place: Place) -> None:
    key = place.key(Scope.INFER)
    session = place.owner.cookies["rewardloop_session"]
    stored = b"".join(path.read_bytes() for path in place.data.rglob("*") if path.is_file())
    for secret in (key, session, PASSWORD, SETUP):
        assert secret.encode() not in stored


def test_revoked_keys_open_nothing(place: Place) -> None:
    made = place.owner.post("/api/keys", json={"name": "x", "scopes": ["infer"]}).json()
    program = place.nobody(authorization=f"Bearer {made['key']}")
    assert program.get("/v1/models").status_code == 200
    assert place.owner.delete(f"/api/keys/{made['id']}").status_code == 204
    assert program.get("/v1/models").status_code == 401


def test_a_disabled_person_is_out_at_once(place: Place) -> None:
    client = place.person(Role.ANNOTATOR)
    user = next(each for each in place.owner.get("/api/users").json()["items"] if each["role"] == "annotator")
    assert place.owner.patch(f"/api/users/{user['id']}", json={"disabled": True}).status_code == 200
    assert client.get("/api/dashboard").status_code == 401
    place.owner.patch(f"/api/users/{user['id']}", json={"disabled": False})


def test_the_last_owner_stays(place: Place) -> None:
    owner = next(each for each in place.owner.get("/api/users").json()["items"] if each["role"] == "owner")
    assert place.owner.patch(f"/api/users/{owner['id']}", json={"role": "viewer"}).status_code == 409
    assert place.owner.patch(f"/api/users/{owner['id']}", json={"disabled": True}).status_code == 409


@pytest.mark.parametrize(
    "name", ["", " ", "a\u202eb", "x" * 65, "\x07bell", "the owner", "THE OWNER", "ｔｈｅ ｏｗｎｅｒ"]
)
def test_names_that_deceive(place: Place, name: str) -> None:
    place.person(Role.OWNER)
    token = place.owner.post("/api/invitations", json={"role": "viewer"}).json()["link"].partition("#")[2]
    reply = place.nobody().post("/api/join", json={"token": token, "name": name, "password": PASSWORD})
    assert reply.status_code in (400, 409)


# ---------------------------------------------------------------- tickets


def test_a_ticket_is_for_one_answer_one_kind_and_a_while(place: Place) -> None:
    program = place.program(Scope.FEEDBACK)
    thumb = {"kind": "rating", "value": 1, "scale": {"low": 0, "high": 1}}
    wanted = {"target": {"external_id": "shop-1"}, "kinds": ["rating"], "expires_s": 600}
    token = program.post("/v1/feedback_tokens", json=wanted).json()["token"]
    browser = place.nobody(authorization=f"Bearer {token}")
    assert browser.post("/v1/feedback", json={**thumb, "target": {"external_id": "shop-1"}}).status_code == 201
    assert browser.post("/v1/feedback", json={**thumb, "target": {"external_id": "shop-2"}}).status_code == 403
    comment = {"kind": "comment", "text": "x", "target": {"external_id": "shop-1"}}
    assert browser.post("/v1/feedback", json=comment).status_code == 403
    assert browser.get("/v1/models").status_code == 403
    forged = place.nobody(authorization=f"Bearer {token[:-2]}xx")
    assert forged.post("/v1/feedback", json={**thumb, "target": {"external_id": "shop-1"}}).status_code == 401
    old = place.gateway.tickets.issue("somebody", {"external_id": "shop-1"}, ["rating"], time.time() - 1)
    late = place.nobody(authorization=f"Bearer {old}")
    assert late.post("/v1/feedback", json={**thumb, "target": {"external_id": "shop-1"}}).status_code == 401


def test_only_programs_speak_for_others(place: Place) -> None:
    reply = place.owner.post("/v1/feedback", json={**RATING, "annotator": {"external_id": "u"}})
    assert reply.status_code == 403
