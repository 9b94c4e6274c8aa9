"""Versions through the front door: reported, served, gone back to, kept through crashes; and who hears of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import torch
from starlette.applications import Starlette
from websockets.sync.client import connect

from rewardloop.loop.live.stage import GatewayStage
from rewardloop.loop.manifests import active_version, manifest_path, read_manifest
from rewardloop.loop.processes.engine_server import load_server, make_app
from rewardloop.loop.weights import publish_version
from rewardloop.serve.edge.access import Role
from rewardloop.serve.engine.client import EngineClient
from serving import OPERATORS, Place, StubEngine, a_place
from tiny_models import save_tiny


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with a_place(tmp_path / "data", StubEngine(version=0)) as made:
        made.owner.put("/api/settings", json={"settling_s": 0})
        yield made


def publish(place: Place, version: int, last_seq: int = 0, **more: Any) -> None:
    """A version in the registry, and its report."""
    weights = {"policy": {"weight": torch.full((3,), float(version))}}
    manifest = publish_version(place.gateway.weights, version, weights, model="town", facts={"last_seq": last_seq})
    body = {"version": version, "parent": version - 1, "digest": manifest.digest, "last_seq": last_seq, "feedback": 7}
    report(place, "policy.published", {**body, "reward_version": "phi-1", "metrics": {"policy/kl": 0.5}, **more})


def report(place: Place, kind: str, body: dict[str, Any], **headers: str) -> httpx2.Response:
    reply = place.operator().post("/api/policy/reports", json={"kind": kind, "body": body}, headers=headers)
    assert reply.status_code in (200, 201), reply.text
    return reply


def activate(client: httpx2.Client, version: int, reason: str = "") -> httpx2.Response:
    return client.post("/api/policy/activate", json={"version": version, "reason": reason})


def policy(place: Place) -> dict[str, Any]:
    return dict(place.owner.get("/api/policy").json())


def policy_events(place: Place) -> list[tuple[str, str, dict[str, Any]]]:
    kinds = ("policy.activated", "policy.rolled_back", "policy.paused", "policy.resumed")
    return [(each.kind, each.actor_id, each.body) for each in place.gateway.log.read(0, kinds)]


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def test_a_version_is_reported_served_and_gone_back_from(place: Place) -> None:
    publish(place, 1, last_seq=10)
    publish(place, 2, last_seq=20)
    metrics = {"held_out/win_rate": 0.7, "held_out/win_rate_low": 0.6, "held_out/win_rate_high": 0.8}
    report(place, "policy.gated", {"version": 2, "passed": True, "reasons": [], "metrics": metrics})
    shown = policy(place)
    assert (shown["active"], shown["before"], shown["learned"], shown["live"]) == (0, None, 20, 0)
    assert [version["version"] for version in shown["versions"]] == [2, 1, 0]
    assert shown["versions"][0]["metrics"] == {"policy/kl": 0.5, **metrics}

    assert activate(place.operator(), 1, "gate").json()["active"] == 1
    assert activate(place.owner, 2, "looks good").json()["before"] == 1
    assert (place.engine.version, active_version(place.gateway.weights)) == (2, 2)
    assert activate(place.owner, 2).status_code == 200  # it is: nothing more to record

    began = time.monotonic()
    reply = place.owner.post("/api/policy/rollback", json={"reason": "it rambles"})
    assert time.monotonic() - began < 2
    assert (reply.json()["active"], reply.json()["live"], place.engine.version) == (1, 10, 1)
    assert active_version(place.gateway.weights) == 1
    me = place.owner.get("/api/state").json()["user"]["id"]
    assert policy_events(place) == [
        ("policy.activated", "learner", {"version": 1, "before": 0, "reason": "gate", "last_seq": 10}),
        ("policy.activated", me, {"version": 2, "before": 1, "reason": "looks good", "last_seq": 20}),
        ("policy.rolled_back", me, {"version": 1, "from": 2, "reason": "it rambles"}),
    ]
    again = place.owner.post("/api/policy/rollback", json={"leaving": 2})  # its reply was lost: it was left already
    assert (again.status_code, again.json()["active"]) == (200, 1)
    place.owner.post("/api/policy/rollback", json={"leaving": 1})
    assert (place.engine.version, policy(place)["active"]) == (0, 0)  # the model as it was given, which is always there
    refused = place.owner.post("/api/policy/rollback", json={})
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "no_earlier")


def test_what_cannot_be_served_changes_nothing(place: Place) -> None:
    publish(place, 1)
    publish(place, 2)
    activate(place.owner, 1)
    recorded = policy_events(place)
    assert activate(place.owner, 9).status_code == 404
    place.engine.unfit.add(2)
    refused = activate(place.owner, 2)
    assert (refused.status_code, refused.json()["error"]["message"]) == (409, "version 2 is damaged")
    manifest_path(place.gateway.weights, 2).write_text("{}")
    assert activate(place.owner, 2).status_code == 409
    manifest_path(place.gateway.weights, 2).unlink()
    gone = activate(place.owner, 2)
    assert (gone.status_code, gone.json()["error"]["code"]) == (409, "gone")
    assert policy_events(place) == recorded
    assert (place.engine.version, active_version(place.gateway.weights)) == (1, 1)


def test_a_version_that_its_gate_held_is_for_people_to_serve(place: Place) -> None:
    publish(place, 1)
    report(place, "policy.gated", {"version": 1, "passed": False, "reasons": ["length"], "metrics": {}})
    assert activate(place.operator("learner"), 1).status_code == 409
    assert place.engine.version == 0
    assert activate(place.operator("operator"), 1).status_code == 200
    assert policy(place)["versions"][0]["reasons"] == ["length"]


def test_only_what_the_contract_names_can_be_reported(place: Place) -> None:
    learner = place.operator()
    for wrong in (
        {"kind": "policy.activated", "body": {"version": 1}},
        {"kind": "feedback.created", "body": {}},
        {"kind": "policy.published", "body": {"digest": "x"}},
        {"kind": "policy.published", "body": {"version": 1, "digest": "x", "last_seq": None}},
        {"kind": "policy.alarm", "body": {"name": "x", "text": "x", "metrics": {"kl": "a lot"}}},
        {"kind": "policy.paused", "body": {}, "more": 1},
    ):
        reply = learner.post("/api/policy/reports", json=wrong)
        assert (reply.status_code, "error" in reply.json()) == (400, True)
    nothing = {"parent": None, "last_seq": None, "feedback": None, "reward_version": None, "metrics": {}}
    report(place, "policy.published", {"version": 0, "digest": "x", **nothing})  # the model as it was given
    assert (policy(place)["learned"], policy(place)["versions"][0]["digest"]) == (0, "x")
    first = report(place, "policy.alarm", {"name": "kl", "text": "It wanders."}, **{"idempotency-key": "a"})
    again = report(place, "policy.alarm", {"name": "kl", "text": "It wanders."}, **{"idempotency-key": "a"})
    assert (first.status_code, again.status_code, first.json()) == (201, 200, again.json())
    assert [alarm["text"] for alarm in policy(place)["alarms"]] == ["It wanders."]


def test_learning_rests_and_goes_on(place: Place) -> None:
    place.owner.post("/api/policy/learning", json={"paused": True, "reason": "holidays"})
    place.owner.post("/api/policy/learning", json={"paused": True, "reason": "again"})
    assert (policy(place)["paused"], policy(place)["pause_reason"]) == (True, "holidays")
    assert "holidays" in json.dumps(place.owner.get("/api/dashboard").json()["alarms"])
    place.operator("operator").post("/api/policy/learning", json={"paused": False, "reason": ""})
    assert not policy(place)["paused"]
    assert [(kind, who) for kind, who, _ in policy_events(place)][1:] == [("policy.resumed", "operator")]


def test_everything_is_as_it_was_after_a_restart(tmp_path: Path) -> None:
    with a_place(tmp_path, StubEngine(version=0)) as before:
        for version in (1, 2):
            publish(before, version, last_seq=version)
            activate(before.owner, version)
        report(before, "policy.paused", {"reason": "roll_backs"})
        found, cookie = policy(before), before.owner.cookies["rewardloop_session"]
    with a_place(tmp_path, StubEngine(version=2)) as after:
        assert after.nobody(cookie=f"rewardloop_session={cookie}").get("/api/policy").json() == found


def test_an_engine_that_was_started_again_is_brought_back(place: Place) -> None:
    publish(place, 1)
    publish(place, 2)
    activate(place.owner, 1)
    place.engine.version = 0  # as one that could not read its version when it started
    wait_for(lambda: place.engine.version == 1)


def test_a_crash_between_engine_and_event_leaves_what_the_log_has(tmp_path: Path) -> None:
    with a_place(tmp_path, StubEngine(version=0)) as before:
        publish(before, 1)
        publish(before, 2)
        activate(before.owner, 1)
    (tmp_path / "weights" / "active.json").unlink()
    with a_place(tmp_path, StubEngine(version=2)) as after:
        wait_for(lambda: after.engine.version == 1)
        wait_for(lambda: active_version(tmp_path / "weights") == 1)


def test_an_engine_that_will_not_is_said(place: Place) -> None:
    publish(place, 1)
    activate(place.owner, 1)
    place.engine.unfit.add(1)
    place.engine.version = 0
    wait_for(lambda: policy(place)["trouble"] is not None)
    (alarm,) = place.owner.get("/api/dashboard").json()["alarms"]
    assert "version 1 is damaged" in alarm["text"]
    place.engine.unfit.clear()
    wait_for(lambda: policy(place)["trouble"] is None)
    assert place.engine.version == 1


@contextmanager
def no_engine(place: Place) -> Iterator[None]:
    """Nobody listens where the engine should be."""
    there = place.gateway.engine
    place.gateway.engine = EngineClient(socket=str(place.data / "nobody.sock"))
    place.gateway.engine.last = there.last
    yield
    place.gateway.engine = there


def test_without_an_engine_people_decide_what_it_begins_with(place: Place) -> None:
    for version in (1, 2, 3):
        publish(place, version)
    activate(place.owner, 1)
    activate(place.owner, 2)
    assert place.owner.get("/api/models").json()["engine"] == "ready"
    with no_engine(place):
        back = place.owner.post("/api/policy/rollback", json={"reason": "it rambles"})
        assert (back.status_code, back.json()["active"]) == (200, 1)
        assert active_version(place.gateway.weights) == 1
        assert "will begin with version 1" in back.json()["trouble"]
        assert activate(place.owner, 3).json()["active"] == 3
        assert active_version(place.gateway.weights) == 3
        shown = place.owner.get("/api/models").json()
        assert (shown["engine"], [item["version"] for item in shown["items"] if item["active"]]) == ("down", ["v3"])
        assert shown["items"][0]["context"] == 512  # as it was known before
    assert [body["version"] for _, _, body in policy_events(place)] == [1, 2, 1, 3]
    wait_for(lambda: place.engine.version == 3)  # it was started meanwhile, and had read the note too early
    wait_for(lambda: policy(place)["trouble"] is None)
    assert place.owner.get("/api/models").json()["engine"] == "ready"


def test_without_an_engine_nothing_damaged_is_promised_and_the_learner_waits(place: Place) -> None:
    publish(place, 1)
    publish(place, 2)
    file = read_manifest(manifest_path(place.gateway.weights, 2)).file()
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with no_engine(place):
        assert activate(place.operator(), 1, "gate").status_code == 503
        refused = activate(place.owner, 2)
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "damaged")
        assert place.owner.get("/api/models").json()["engine"] == "down"
    assert policy_events(place) == []


def test_an_engine_that_dies_of_a_version_does_not_get_it_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(place, 1)

    async def die(*_: Any, **__: Any) -> None:
        raise httpx2.ReadError("the connection broke off")

    monkeypatch.setattr(place.gateway.engine._http, "post", die)
    assert activate(place.owner, 1).status_code == 503
    assert policy_events(place) == []
    assert active_version(place.gateway.weights) is None


def test_what_the_log_says_is_noted_before_the_engine_begins(place: Place) -> None:
    publish(place, 1)
    activate(place.owner, 1)
    with no_engine(place):
        (place.gateway.weights / "active.json").unlink()  # as a crash between event and note would have it
        wait_for(lambda: active_version(place.gateway.weights) == 1)


def test_what_is_gone_comes_in_pages(place: Place) -> None:
    for version in range(1, 8):
        report(place, "policy.published", {"version": version, "last_seq": version})
    publish(place, 8)

    def page(**asked: int) -> tuple[list[int], int | None]:
        found = place.owner.get("/api/policy", params=asked).json()
        return [row["version"] for row in found["versions"]], found["next"]

    assert page(limit=3) == ([8, 7, 6, 5, 0], 5)  # what is kept is always there
    assert page(limit=3, older_than=5) == ([4, 3, 2], 2)
    assert page(limit=3, older_than=2) == ([1], None)
    assert page() == ([8, 7, 6, 5, 4, 3, 2, 1, 0], None)
    assert place.owner.get("/api/policy", params={"limit": 0}).status_code == 400
    shown = place.owner.get("/api/models", params={"older_than": 4}).json()
    assert ([row["version"] for row in shown["items"]], shown["next"]) == (["v3", "v2", "v1"], None)
    assert len(place.owner.get("/api/models").json()["items"]) == 9


def test_what_was_stored_and_not_heard_to_be_is_stored_once(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = GatewayStage(place.base, OPERATORS["learner"])
    send, lost = stage._once, ["the first reply"]

    def deaf(*given: Any) -> None:
        send(*given)
        if lost:
            raise ConnectionResetError(lost.pop())

    monkeypatch.setattr(stage, "_once", deaf)
    alarm = {"name": "kl", "text": "It wanders.", "version": 0, "newest": 3, "metrics": {"policy/kl": 9.0}}
    stage.report("policy.alarm", alarm)
    stage.report("policy.alarm", alarm | {"newest": 4})
    lost.append("one more")
    stage.report("policy.paused", {"reason": "roll_backs", "newest": 4})
    kinds = [event.kind for event in place.gateway.log.read(0, ("policy.alarm", "policy.paused"))]
    assert kinds == ["policy.alarm", "policy.alarm", "policy.paused"]


def test_open_pages_hear_of_it(place: Place) -> None:
    given = {"kind": "comment", "text": "x", "target": {"completion_id": place.say()["id"]}}
    seq = place.owner.post("/v1/feedback", json=given).json()["seq"]
    headers = {"Cookie": f"rewardloop_session={place.owner.cookies['rewardloop_session']}", "Origin": place.base}
    with connect(place.base.replace("http", "ws") + "/api/socket", additional_headers=headers) as ws:

        def hear() -> dict[str, Any]:
            return {name: value for name, value in json.loads(ws.recv(timeout=10)).items() if name not in ("s", "at")}

        ws.send('{"type": "ping"}')
        assert hear() == {"type": "pong"}
        publish(place, 1, last_seq=seq)
        assert hear() == {"type": "policy", "learned": seq, "live": 0, "active": 0, "paused": False}
        activate(place.operator(), 1)
        assert hear() == {"type": "policy", "learned": seq, "live": seq, "active": 1, "paused": False}
        doing = {"phase": "practice", "iteration": 2, "of": 6, "judgments": 31}
        assert place.operator().put("/api/policy/progress", json={**doing, "unknown": 1}).status_code == 200
        assert hear() == {"type": "learner", **doing}
        assert policy(place)["progress"].items() > doing.items()
    with connect(place.base.replace("http", "ws") + "/api/socket?tab=new", additional_headers=headers) as ws:
        assert hear() == {"type": "policy", "learned": seq, "live": seq, "active": 1, "paused": False}


def test_how_far_judgments_have_come(place: Place) -> None:
    seqs = []
    for _ in range(4):
        given = {"kind": "rating", "value": 4, "target": {"completion_id": place.say()["id"]}}
        seqs.append(place.owner.post("/v1/feedback", json=given).json()["seq"])
    publish(place, 1, last_seq=seqs[1])
    publish(place, 2, last_seq=seqs[2], metrics={"policy/kl": 1.5, "held_out/win_rate": 0.6, "not/finite": None})
    activate(place.owner, 1)
    shown = place.owner.get("/api/dashboard").json()
    assert shown["pipeline"] | {"lag_s": 0} == {"saved": 4, "settled": 4, "learned": 3, "live": 2, "lag_s": 0}
    assert 0 < shown["pipeline"]["lag_s"] < 60
    assert shown["versions"]["version"] == [1, 2]
    assert shown["versions"]["metrics"]["policy/kl"] == [0.5, 1.5]
    assert shown["versions"]["metrics"]["held_out/win_rate"] == [None, 0.6]
    assert [row["status"] for row in place.owner.get("/api/data").json()["items"]] == [
        "settled",
        "learned",
        "live",
        "live",
    ]
    metrics = place.owner.get("/metrics").text
    assert 'rewardloop_policy_metric{name="policy/kl"} 1.5' in metrics
    assert "rewardloop_policy_active_version 1.0" in metrics
    assert "rewardloop_policy_newest_version 2.0" in metrics
    assert "rewardloop_learner_backlog 1.0" in metrics


def test_the_lag_is_from_a_judgment_to_the_first_version_with_it(place: Place) -> None:
    given = {"kind": "rating", "value": 4, "target": {"completion_id": place.say()["id"]}}
    judged = place.owner.post("/v1/feedback", json=given).json()
    publish(place, 1, last_seq=judged["seq"])
    activate(place.owner, 1)
    publish(place, 2, last_seq=judged["seq"] + 1)
    time.sleep(0.3)
    activate(place.owner, 2)
    events = place.gateway.log.read(0, ("feedback.created", "policy.activated"))
    lag = place.owner.get("/api/dashboard").json()["pipeline"]["lag_s"]
    assert lag == pytest.approx(events[1].ts - events[0].ts)


def test_models_are_listed_newest_first(place: Place) -> None:
    publish(place, 1, last_seq=5)
    report(place, "policy.gated", {"version": 1, "passed": False, "reasons": ["kl"], "metrics": {"policy/kl": 9.0}})
    learned, given = place.owner.get("/api/models").json()["items"]
    assert (learned["version"], learned["active"], learned["source"], learned["kept"]) == ("v1", False, "learned", True)
    assert (learned["passed"], learned["reasons"], learned["metrics"]["policy/kl"]) == (False, ["kl"], 9.0)
    assert (given["version"], given["active"], given["source"]) == ("v0", True, "given")


def test_viewers_look_and_do_not_touch(place: Place) -> None:
    publish(place, 1)
    viewer = place.person(Role.VIEWER)
    assert viewer.get("/api/policy").status_code == 200
    assert activate(viewer, 1).status_code == 403
    assert place.engine.version == 0


class RealEngine(StubEngine):
    """The engine itself with a tiny model, in place of the stub."""

    def __init__(self, model: Path) -> None:
        super().__init__()
        self.server = load_server(str(model), "tiny", slots=2)

    def app(self) -> Starlette:
        return make_app(self.server)


def test_what_is_served_is_what_was_published(tmp_path: Path) -> None:
    """With the engine itself: the words of the weights of each version, a roll-back, and damaged files."""
    save_tiny(tmp_path / "tiny", "llama")
    engine = RealEngine(tmp_path / "tiny")
    given = {name: value.clone() for name, value in engine.server.lm.model.state_dict().items()}
    with a_place(tmp_path / "data", engine) as place:
        asked = {"model": "tiny", "prompt": "abc", "max_tokens": 16, "temperature": 0, "logprobs": 0}

        def say() -> tuple[str, list[float]]:
            reply = place.owner.post("/v1/completions", json=asked).json()
            return reply["system_fingerprint"], reply["choices"][0]["logprobs"]["token_logprobs"]

        first = say()
        for version in (1, 2):
            tensors = {name: value + 0.05 * version for name, value in given.items()}
            publish_version(
                place.gateway.weights, version, {"policy": tensors}, model="tiny", facts={"last_seq": version}
            )
            report(place, "policy.published", {"version": version, "last_seq": version, "digest": "x"})
        assert activate(place.operator(), 1).status_code == 200
        second = say()
        assert activate(place.operator(), 2).status_code == 200
        third = say()
        assert len({str(said) for _, said in (first, second, third)}) == 3
        assert [name for name, _ in (first, second, third)] == ["v0", "v1", "v2"]
        began = time.monotonic()
        assert place.owner.post("/api/policy/rollback", json={}).status_code == 200
        assert time.monotonic() - began < 2
        assert say() == second
        file = read_manifest(manifest_path(place.gateway.weights, 2)).file()
        file.write_bytes(file.read_bytes()[:-1] + b"x")
        refused = activate(place.owner, 2)
        assert refused.status_code == 409
        assert "damaged" in refused.json()["error"]["message"]
        assert say() == second
        assert place.owner.post("/api/policy/rollback", json={}).status_code == 200
        assert say() == first
