"""Searching, exporting, importing, erasing; queue, annotators, dashboard: through the front door."""

from __future__ import annotations

import io
import json
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rewardloop.feedback.reading import read_feedback
from rewardloop.serve.edge.access import Role, Scope
from rewardloop.serve.state.disagreements import differ
from serving import Place, StubEngine, a_place


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with a_place(tmp_path / "data") as made:
        made.owner.put("/api/settings", json={"settling_s": 0})
        yield made


def rate(place: Place, value: int, words: str = "What does the bun cost?") -> dict[str, Any]:
    answer = place.say(messages=[{"role": "user", "content": words}])
    given = {"kind": "rating", "value": value, "target": {"completion_id": answer["id"]}}
    reply = place.owner.post("/v1/feedback", json=given)
    assert reply.status_code == 201
    return dict(reply.json())


EVERY_KIND: list[tuple[dict[str, Any], str]] = [
    ({"kind": "rating", "value": 4}, "4 / 5"),
    ({"kind": "rating", "value": 1, "scale": {"low": 0, "high": 1}}, "1 / 1"),
    ({"kind": "edit", "corrected": "Two coins."}, "Two coins."),
    ({"kind": "comment", "text": "too short"}, "too short"),
    ({"kind": "dialogue", "reply": "No, three."}, "No, three."),
    ({"kind": "dialogue", "reply": "So?", "evaluation": -1, "rewrite": "Three."}, "So?"),
    ({"kind": "live", "value": -1, "token_index": 2, "reaction_ms": 400}, "-1 @ 2"),
    ({"kind": "live", "value": 1, "offset": 5, "reaction_ms": 0}, "+1 @ 5"),
    ({"kind": "span", "start": 0, "end": 3, "category": "rude"}, "rude"),
    ({"kind": "flag", "reason": "spam"}, "spam"),
]


@pytest.mark.parametrize(("given", "summary"), EVERY_KIND)
def test_every_kind_of_judgment_is_shown(place: Place, given: dict[str, Any], summary: str) -> None:
    """In each form that it may be sent in; one that could not be shown would hide all others."""
    target = {"completion_id": place.say()["id"]}
    assert place.owner.post("/v1/feedback", json={**given, "target": target}).status_code == 201
    (shown,) = place.owner.get("/api/data").json()["items"]
    assert (shown["kind"], shown["summary"]) == (given["kind"], summary)
    assert place.owner.get("/api/dashboard").status_code == 200
    assert place.owner.get("/api/annotators").status_code == 200


def test_search(place: Place) -> None:
    first, second = rate(place, 5, "the price of 面包 100%"), rate(place, 1, "another _question_")

    def found(**query: str) -> list[str]:
        return [item["id"] for item in place.owner.get("/api/data", params=query).json()["items"]]

    assert found() == [second["id"], first["id"]]
    assert found(q="面包") == [first["id"]]
    assert found(q="100%") == [first["id"]]
    assert found(q="_question_") == [second["id"]]
    assert found(q="nowhere") == []
    assert found(kind="rating") == [second["id"], first["id"]]
    assert found(kind="edit") == found(annotator="somebody else") == []
    page = place.owner.get("/api/data", params={"limit": 1}).json()
    assert [item["id"] for item in page["items"]] == [second["id"]]
    assert found(after=str(page["next"])) == [first["id"]]
    place.owner.delete(f"/v1/feedback/{second['id']}")
    assert [item["status"] for item in place.owner.get("/api/data").json()["items"]] == ["retracted", "settled"]


def test_what_is_exported_is_read_back(place: Place, tmp_path: Path) -> None:
    rate(place, 5)
    rate(place, 2)
    made = place.owner.post("/api/exports", json={"layout": "rewardloop"}).json()
    assert made["rows"] == 2
    archive = zipfile.ZipFile(io.BytesIO(place.owner.get(made["url"]).content))
    archive.extractall(tmp_path / "out")
    assert [judgment.value for judgment in read_feedback(tmp_path / "out")] == [5, 2]  # type: ignore[union-attr]
    with a_place(tmp_path / "other") as other:
        other.owner.put("/api/settings", json={"settling_s": 0})
        lines = (tmp_path / "out" / "conversations.jsonl").read_bytes()
        brought = other.owner.post("/api/imports", content=lines).json()
        assert (brought["read"], brought["stored"], brought["known"]) == (2, 2, 0)
        assert other.owner.post("/api/imports", content=lines).json()["known"] == 2
        again = other.owner.post("/api/exports", json={"layout": "rewardloop"}).json()
        assert again["rows"] == 2


def test_a_bad_import_stores_nothing(place: Place) -> None:
    before = place.gateway.log.last_seq()
    good = json.dumps({"kind": "rating", "prompt": "p", "completion": "c", "value": 3})
    reply = place.owner.post("/api/imports", content=f"{good}\n{{broken\n".encode())
    assert reply.status_code == 400
    assert "2" in reply.json()["error"]["message"]  # the line
    assert place.gateway.log.last_seq() == before
    assert place.owner.get("/api/exports/../../tickets.secret").status_code == 404


def test_erased_is_gone(place: Place) -> None:
    words = "what somebody said who will leave"
    annotator = place.person(Role.ANNOTATOR)
    who = next(user for user in place.owner.get("/api/users").json()["items"] if user["role"] == "annotator")
    place.say()
    given = {"kind": "comment", "text": words, "target": {"external_id": "x"}}
    annotator.post("/v1/feedback", json=given)
    place.say(metadata={"external_id": "x"})
    place.owner.post("/api/exports", json={})
    assert holds(place.data, words)
    assert place.owner.post("/api/erase", json={"annotator_id": who["id"]}).status_code == 200
    assert not holds(place.data, words)
    assert not holds(place.data, "the annotator")
    assert annotator.get("/api/dashboard").status_code == 401
    assert place.owner.post("/api/erase", json={"annotator_id": who["id"]}).status_code == 404


def holds(folder: Path, words: str) -> bool:
    return any(words.encode() in path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_everything_is_as_it_was_after_a_restart(tmp_path: Path) -> None:
    with a_place(tmp_path) as before:
        key = before.key(Scope.INFER)
        before.owner.put("/api/guidelines", json={"text": "Be fair."})
        before.owner.post("/api/queue/tasks", json={"task": "rate", "prompts": ["a", "b"], "overlap": 1})
        question = wait_for_question(before)
        cookie = before.owner.cookies["rewardloop_session"]
    with a_place(tmp_path) as after:
        again = after.nobody(cookie=f"rewardloop_session={cookie}")
        assert again.get("/api/state").json()["user"]["role"] == "owner"
        assert again.get("/api/settings").json()["guidelines"] == "Be fair."
        assert after.nobody(authorization=f"Bearer {key}").get("/v1/models").status_code == 200
        deadline = time.monotonic() + 10
        while again.get("/api/queue/tasks").json()["items"][0]["progress"]["ready"] < 2:
            assert time.monotonic() < deadline
        assert again.post("/api/queue/next").json()["assignment_id"] == question["assignment_id"]


def wait_for_question(place: Place, client: Any = None) -> dict[str, Any]:
    """The next question, once the answers to it are made."""
    deadline = time.monotonic() + 10
    while (reply := (client or place.owner).post("/api/queue/next")).status_code == 204:
        assert time.monotonic() < deadline, "no question came"
        time.sleep(0.02)
    return dict(reply.json())


def test_the_queue(tmp_path: Path) -> None:
    with a_place(tmp_path, Varied()) as place:
        made = place.owner.post(
            "/api/queue/tasks",
            json={"task": "compare", "prompts": [f"question {n}" for n in range(4)], "overlap": 2, "repeat_share": 0},
        ).json()
        assert made["prompts"] == 4
        annotator = place.person(Role.ANNOTATOR)
        wait_until_ready(place, 4)
        seen = []
        for _ in range(4):
            question = wait_for_question(place, annotator)
            assert wait_for_question(place, annotator)["assignment_id"] == question["assignment_id"]
            assert len({candidate["text"] for candidate in question["candidates"]}) == 2
            seen.append(str(question["prompt"]))
            url = f"/api/queue/{question['assignment_id']}"
            assert place.owner.post(f"{url}/answer", json={"choice": "first"}).status_code == 404
            assert annotator.post(f"{url}/answer", json={"value": 1}).status_code == 400
            headers = {"idempotency-key": question["assignment_id"]}
            first = annotator.post(f"{url}/answer", json={"choice": "first"}, headers=headers)
            again = annotator.post(f"{url}/answer", json={"choice": "first"}, headers=headers)
            assert (first.status_code, again.status_code) == (201, 200)
            assert first.json()["id"] == again.json()["id"]
        assert sorted(seen) == [f"question {n}" for n in range(4)]
        assert annotator.post("/api/queue/next").status_code == 204
        undone = annotator.post("/api/queue/undo").json()
        assert undone["assignment_id"] == question["assignment_id"]
        assert annotator.post(f"{url}/skip", json={"reason": "unclear"}).status_code == 204
        progress = annotator.get("/api/queue/progress").json()
        assert progress["mine"]["done"] == 3
        assert progress["all"] == {"done": 3, "total": 8, "overlap": 2}
        # the winner is the text that was shown first, whichever side it was sampled on
        for item in place.owner.get("/api/data", params={"kind": "preference"}).json()["items"]:
            choices = [target.get("choice", 0) for target in item["body"]["targets"]]
            assert sorted(choices) == [0, 1]


def test_a_manager_decides_where_people_disagree(tmp_path: Path) -> None:
    with a_place(tmp_path, Varied()) as place:
        given = {"prompts": [f"question {n}" for n in range(3)], "overlap": 2, "repeat_share": 0}
        place.owner.post("/api/queue/tasks", json=given)
        wait_until_ready(place, 3)
        people = [place.person(Role.ANNOTATOR), place.person(Role.MANAGER)]
        preferred = {  # by prompt, the text that each person prefers
            "question 0": ("answer 0", "answer 0"),
            "question 1": ("answer 0", "answer 1"),
            "question 2": ("answer 1", "tie"),
        }
        for number, person in enumerate(people):
            for _ in range(3):
                question = wait_for_question(place, person)
                wish = preferred[str(question["prompt"])][number]
                sides = [str(candidate["text"]).startswith(wish) for candidate in question["candidates"]]
                choice = ("first", "second")[sides.index(True)] if any(sides) else wish
                person.post(f"/api/queue/{question['assignment_id']}/answer", json={"choice": choice})

        owner = place.owner
        found = disagreements(owner)
        said = {each["prompt"]: sorted(one["choice"] for one in each["judgments"]) for each in found["items"]}
        assert said == {"question 1": ["first", "second"], "question 2": ["second", "tie"]}
        assert (found["open"], found["decided"]) == (2, 0)
        assert len({one["annotator"]["name"] for one in found["items"][0]["judgments"]}) == 2

        (item,) = [each for each in found["items"] if each["prompt"] == "question 1"]
        url = f"/api/queue/disagreements/{item['id']}/verdict"
        assert owner.post(url, json={"value": 3}).status_code == 400
        assert owner.post(url.replace(item["id"], "queue-x-1"), json={"choice": "tie"}).status_code == 404
        first = owner.post(url, json={"choice": "second"}, headers={"idempotency-key": "one"})
        again = owner.post(url, json={"choice": "second"}, headers={"idempotency-key": "one"})
        assert (first.status_code, again.status_code, again.json()["id"]) == (201, 200, first.json()["id"])
        other = owner.post(url, json={"choice": "first"}, headers={"idempotency-key": "two"})
        late = owner.post(url, json={"choice": "second"}, headers={"idempotency-key": "one"})
        assert (other.status_code, late.status_code) == (201, 200)
        (decided,) = disagreements(owner, decided=True)["items"]
        assert (decided["id"], decided["verdict"]["choice"]) == (item["id"], "first")
        assert disagreements(owner)["open"] == 1

        # The verdict counts as a judgment, the one that it replaced does not, and those of the people stay.
        stored = {row["id"]: row for row in owner.get("/api/data").json()["items"]}
        assert stored[other.json()["id"]]["body"]["metadata"] == {"verdict": True}
        assert stored[first.json()["id"]]["status"] == "retracted"
        assert sum(row["status"] != "retracted" for row in stored.values()) == 7

        # Who is excluded disagrees with nobody.
        loser = item["judgments"][0]["annotator"]["id"]
        owner.post(f"/api/annotators/{loser}/exclude", json={"reason": "asleep"})
        left = disagreements(owner)
        assert (left["open"], left["decided"]) == (0, 0)
        owner.post(f"/api/annotators/{loser}/include")
        cookie = place.owner.cookies["rewardloop_session"]
    with a_place(tmp_path, Varied()) as after:
        owner = after.nobody(cookie=f"rewardloop_session={cookie}")
        deadline = time.monotonic() + 10
        while not (found := disagreements(owner, decided=True))["items"]:
            assert time.monotonic() < deadline
        assert found["items"][0]["verdict"]["choice"] == "first"


def disagreements(client: Any, *, decided: bool = False) -> dict[str, Any]:
    return dict(client.get("/api/queue/disagreements", params={"decided": decided}).json())


@pytest.mark.parametrize(
    ("kind", "values", "wanted"),
    [
        ("compare", ["first", "first"], False),
        ("compare", ["tie", "both_bad"], True),
        ("rate", [3, 4, 4], False),
        ("rate", [2, 4], True),
        ("edit", ["the text", "the text"], False),
        ("edit", ["another", "a third"], False),
        ("edit", ["another", "the text"], True),
        ("edit", ["another"], False),
    ],
)
def test_what_is_a_disagreement(kind: Any, values: list[Any], wanted: bool) -> None:
    assert differ(kind, values, "the text") is wanted


class Varied(StubEngine):
    """Every choice says something else."""

    async def _events(self, asked: dict[str, Any]) -> Any:
        for number in range(asked.get("n", 1)):
            self.text = f"answer {number} to {asked.get('prompt')}"
            async for event in super()._events({**asked, "n": 1}):
                if b"DONE" in event or b'"usage"' in event:
                    continue
                document = json.loads(event.removeprefix(b"data: "))
                for choice in document["choices"]:
                    choice["index"] = number
                yield f"data: {json.dumps(document)}\n\n".encode()
        used = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
        yield f"data: {json.dumps({'choices': [], 'usage': used})}\n\n".encode()
        yield b"data: [DONE]\n\n"


def wait_until_ready(place: Place, count: int) -> None:
    deadline = time.monotonic() + 10
    while place.owner.get("/api/queue/tasks").json()["items"][0]["progress"]["ready"] < count:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_gold_items_are_marked_for_managers_only(tmp_path: Path) -> None:
    with a_place(tmp_path, Varied()) as place:
        gold = [{"prompt": f"gold {n}", "better": "true", "worse": "false"} for n in range(3)]
        given = {
            "task": "compare",
            "prompts": [f"q{n}" for n in range(18)],
            "gold": gold,
            "gold_share": 0.5,
            "overlap": 1,
        }
        place.owner.post("/api/queue/tasks", json=given)
        wait_until_ready(place, 21)
        answered = 0
        while (reply := place.owner.post("/api/queue/next")).status_code == 200:
            question = reply.json()
            assert "gold" not in json.dumps({name: value for name, value in question.items() if name != "prompt"})
            texts = [candidate["text"] for candidate in question["candidates"]]
            choice = "second" if texts[1] == "true" else "first"
            place.owner.post(f"/api/queue/{question['assignment_id']}/answer", json={"choice": choice})
            answered += texts[0] in ("true", "false")
        assert answered
        (me,) = place.owner.get("/api/annotators").json()["items"]
        assert me["gold_accuracy"] == 1.0


CAREFUL: dict[str, dict[str, dict[str, Any]]] = {  # by kind and text
    "rate": {"true": {"value": 4}, "false": {"value": 2}},
    "edit": {"true": {"corrected": "true"}, "false": {"corrected": "true"}},
}


@pytest.mark.parametrize("kind", ["rate", "edit"])
@pytest.mark.parametrize("careful", [True, False])
def test_ratings_and_corrections_have_gold_items(tmp_path: Path, kind: str, careful: bool) -> None:
    with a_place(tmp_path, Varied()) as place:
        gold = [{"prompt": f"gold {n}", "better": "true", "worse": "false"} for n in range(4)]
        prompts = [f"q{n}" for n in range(24)]
        given = {"task": kind, "prompts": prompts, "gold": gold, "gold_share": 0.5, "overlap": 1}
        place.owner.post("/api/queue/tasks", json=given)
        wait_until_ready(place, 28)
        shown = set()
        while (reply := place.owner.post("/api/queue/next")).status_code == 200:
            question = reply.json()
            (candidate,) = question["candidates"]
            text = candidate["text"]
            said = CAREFUL[kind]["true" if careful or kind == "rate" else "false"]
            if text in ("true", "false"):
                shown.add(text)
                said = CAREFUL[kind][text]
                if not careful:
                    said = {"value": 3} if kind == "rate" else {"corrected": f" {text}"}
            place.owner.post(f"/api/queue/{question['assignment_id']}/answer", json=said)
        assert shown == ({"true", "false"} if kind == "rate" else {"false"})
        (me,) = place.owner.get("/api/annotators").json()["items"]
        assert me["gold_accuracy"] == careful


@pytest.mark.parametrize("task", ["compare", "rate", "edit"])
def test_the_town_brings_gold_items_of_its_own(tmp_path: Path, task: str) -> None:
    with a_place(tmp_path, Varied()) as place:
        given = {"task": task, "source": "world", "count": 20}
        assert place.owner.post("/api/queue/tasks", json=given).json()["gold"] == 2
        assert place.owner.post("/api/queue/tasks", json=given | {"gold_share": 0}).json()["gold"] == 0


def test_what_teaches_most_is_asked_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is known of half of the items; of the others somebody has chosen already."""
    with a_place(tmp_path, Varied()) as place:
        turns = [[{"role": "user", "content": f"question {n}"}] for n in range(12)]
        given = {"prompts": turns, "overlap": 2, "repeat_share": 0}
        place.owner.post("/api/queue/tasks", json=given)
        wait_until_ready(place, 12)
        people = [place.person(Role.ANNOTATOR), place.person(Role.MANAGER)]

        def work(who: Any, count: int) -> list[str]:
            asked = []
            for _ in range(count):
                question = wait_for_question(place, who)
                asked.append(question["prompt"][0]["content"])
                url = f"/api/queue/{question['assignment_id']}/answer"
                assert who.post(url, json={"choice": "first"}).status_code == 201
            return asked

        known = set(work(people[0], 6))
        monkeypatch.setattr("rewardloop.serve.state.people.FRESH_S", 0)
        place.owner.get("/api/annotators")  # measured
        asked = work(people[1], 6)
        purposes = [each.lease.purpose for each in place.gateway.queue.assignments.values()][6:]
        assert set(purposes) <= {"random", "informative"}
        informed = [prompt for prompt, purpose in zip(asked, purposes, strict=True) if purpose == "informative"]
        assert informed  # of six, where one in five is random
        assert not known & set(informed)


def test_annotators_and_exclusions(place: Place) -> None:
    rate(place, 5)
    (me,) = place.owner.get("/api/annotators").json()["items"]
    assert (me["judgments"], me["by_kind"], me["excluded"], len(me["daily"])) == (1, {"rating": 1}, None, 14)
    excluded = place.owner.post(f"/api/annotators/{me['id']}/exclude", json={"reason": "on holiday"}).json()
    assert excluded["excluded"]["reason"] == "on holiday"
    assert place.owner.post(f"/api/annotators/{me['id']}/include").json()["excluded"] is None
    assert place.owner.post("/api/annotators/nobody/exclude", json={"reason": "x"}).status_code == 404


def test_a_straight_line_is_told_with_question_answer_and_length(place: Place) -> None:
    program, answer = place.program(Scope.FEEDBACK), place.say()["id"]
    items = [
        {"kind": "rating", "target": {"completion_id": answer}, "value": value, "annotator": {"external_id": name}}
        for at in range(40)
        for name, value in (("asleep", 4), ("ann", 1 + at % 5), ("ben", 1 + at * 3 % 5))
    ]
    for start in range(0, len(items), 60):
        assert program.post("/v1/feedback/batch", json={"items": items[start : start + 60]}).status_code == 201
    people = {one["name"]: one["straight_lining"] for one in place.owner.get("/api/annotators").json()["items"]}
    assert people["asleep"] == {"question": "rating 1-5", "answer": "4", "length": 40}
    assert people["ann"] is None
    assert people["ben"] is None


def test_the_dashboard_counts(place: Place) -> None:
    rate(place, 5)
    rate(place, 3)
    shown = place.owner.get("/api/dashboard").json()
    assert shown["totals"]["completions"] == shown["totals"]["feedback"] == 2
    assert shown["pipeline"]["saved"] == shown["pipeline"]["settled"] == 2
    assert shown["series"]["rating_mean"]["mean"] == [0.75]  # 5 of 5 and 3 of 5: the mean of 1 and .5
    assert shown["series"]["feedback_by_kind"]["kinds"] == {"rating": [2]}
    metrics = place.owner.get("/metrics").text
    assert 'rewardloop_feedback_total{kind="rating"} 2.0' in metrics
    assert "rewardloop_weight_version 3.0" in metrics


def test_the_record_has_no_secrets(place: Place) -> None:
    place.key(Scope.INFER)
    place.person(Role.VIEWER)
    items = place.owner.get("/api/audit").json()["items"]
    kinds = {item["kind"] for item in items}
    assert {"auth.account_created", "auth.key_created", "auth.login", "settings.changed"} <= kinds
    assert not {"password", "digest"} & {name for item in items for name in item["body"]}
