"""A state machine that submits, retries, undoes, lets answers arrive in any order, jumps the clock and crashes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from log_events import derived, finished, retracted, said, started
from rewardloop.feedback.log.event_log import EventLog
from rewardloop.feedback.log.events import Appended, NewEvent
from rewardloop.feedback.log.failures import IdempotencyError
from rewardloop.feedback.log.settled import SETTLING_S, settled_feedback

COMPLETIONS = [f"c{number}" for number in range(4)]
NAMES = st.sampled_from(["e0", "e1"])
TALKS = st.sampled_from([None, "t0"])

STEPS = int(os.environ.get("REWARDLOOP_MACHINE_STEPS", "30"))  # of each run; before a release, thousands


class LogMachine(RuleBasedStateMachine):
    """The log beside a model of it: a list of what was acknowledged, and plain loops over that list."""

    new_url: Any  # set by the test: makes an empty database

    sent = Bundle("sent")

    @initialize()
    def open(self) -> None:
        self.url = type(self).new_url()
        self.now = 1_800_000_000.0
        self.log = EventLog(self.url, lambda: self.now)
        self.acknowledged: list[tuple[NewEvent, Appended]] = []
        self.position, self.learned = 0, set[str]()

    def _append(self, *events: NewEvent) -> list[Appended]:
        replies = self.log.append(list(events))
        for event, reply in zip(events, replies, strict=True):
            if reply.outcome == "stored":
                self.acknowledged.append((event, reply))
        return replies

    # ---------------------------------------------------------------- what can happen

    @rule(completion=st.sampled_from(COMPLETIONS), external=st.none() | NAMES, talk=TALKS)
    def start(self, completion: str, external: str | None, talk: str | None) -> None:
        self._append(started(completion, external=external, talk=talk))

    @rule(completion=st.sampled_from(COMPLETIONS), external=st.none() | NAMES, talk=TALKS)
    def finish(self, completion: str, external: str | None, talk: str | None) -> None:
        self._append(finished(completion, external=external, talk=talk))

    @rule(
        target=sent,
        place=st.sampled_from(COMPLETIONS).map(lambda name: {"completion_id": name})
        | NAMES.map(lambda name: {"external_id": name})
        | st.just({"conversation_id": "t0"}),
        by=st.sampled_from(["ann", "bob"]),
        key=st.integers(0, 5),
    )
    def submit(self, place: dict[str, str], by: str, key: int) -> NewEvent:
        event = said(place, by=by, key=str(key))
        before = self._known(event)
        if before is None:
            (reply,) = self._append(event)
            assert reply.outcome == "stored"
        elif before[0].payload_hash == event.payload_hash:
            self.retry(event)
        else:
            with pytest.raises(IdempotencyError):
                self.log.append([said("c0"), event])
        return event

    @rule(event=sent)
    def retry(self, event: NewEvent) -> None:
        before = self._known(event)
        assert before is not None
        if before[0].payload_hash == event.payload_hash:
            (reply,) = self.log.append([event])
            assert (reply.seq, reply.id, reply.outcome) == (before[1].seq, before[1].id, "replayed")

    @rule(event=sent)
    def undo(self, event: NewEvent) -> None:
        before = self._known(event)
        assert before is not None
        self._append(retracted(before[1].id))

    @rule(completion=st.sampled_from(COMPLETIONS), external=NAMES)
    def all_in_one_append(self, completion: str, external: str) -> None:
        thumb = said({"external_id": external})
        self._append(thumb, started(completion, external=external), finished(completion), said(completion))

    @rule(seconds=st.sampled_from([-86_400.0, -1.0, 0.5, 4.0, 86_400.0]))
    def clock_jumps(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def crash(self) -> None:
        """Nothing is closed in order; the connections are just gone."""
        self.log.writer.dispose()
        self.log.reader.dispose()
        self.log._release()
        self.log = EventLog(self.url, lambda: self.now)

    @rule()
    def learn(self) -> None:
        page = settled_feedback(self.log, self.position, self.now)
        for item in page.items:
            assert item.id not in self.learned, "learned twice"
            assert abs(self.now - item.ts) >= SETTLING_S
            self.learned.add(item.id)
        assert page.last_seq >= self.position
        self.position = page.last_seq

    # ---------------------------------------------------------------- what must always hold

    @invariant()
    def nothing_acknowledged_is_lost_or_doubled(self) -> None:
        stored = self.log.read()
        assert [event.seq for event in stored] == list(range(1, len(stored) + 1))
        assert [(e.id, e.kind, e.body) for e in stored] == [(r.id, e.kind, e.body) for e, r in self.acknowledged]

    @invariant()
    def feedback_means_the_right_answers(self) -> None:
        assert {row[0]: row[6] for row in derived(self.log)[1]} == self._ready()

    def teardown(self) -> None:
        if not hasattr(self, "log"):
            return
        live = derived(self.log)
        self.log.rebuild()
        assert derived(self.log) == live
        self.now += 1e6
        self.learn()
        ready = {feedback for feedback, seq in self._ready().items() if seq is not None}
        assert ready <= self.learned, "never given to the learner"
        self.log.close()

    # ---------------------------------------------------------------- the model

    def _known(self, event: NewEvent) -> tuple[NewEvent, Appended] | None:
        same = ((e, r) for e, r in self.acknowledged if (e.actor_id, e.idem_key) == (event.actor_id, event.idem_key))
        return next(same, None)

    def _ready(self) -> dict[str, int | None]:
        """ready_seq of all feedback that stands, by looking through the whole list for each."""
        taken_back = {event.target_id for event, _ in self.acknowledged if event.kind == "feedback.retracted"}
        return {
            reply.id: self._ready_seq(event.body["target"], reply.seq)
            for event, reply in self.acknowledged
            if event.kind == "feedback.created" and reply.id not in taken_back
        }

    def _ready_seq(self, target: dict[str, Any], seq: int) -> int | None:
        name = target.get("completion_id") or self._meant(target, seq)
        end = self._first("completion.finished", name)
        return None if end is None else max(seq, end)

    def _meant(self, target: dict[str, Any], seq: int) -> str | None:
        """The latest before, else the first after."""
        places: list[tuple[int, str]] = []
        for name in COMPLETIONS:
            first = next(((e, r) for e, r in self.acknowledged if e.target_id == name and "completion" in e.kind), None)
            if first is None:
                continue
            if "external_id" in target:
                if first[0].body.get("external_id") == target["external_id"]:
                    places.append((first[1].seq, name))
            elif first[0].conversation_id == target["conversation_id"]:
                end = self._first("completion.finished", name)
                places += [(end, name)] if end is not None else []
        before = [place for place in places if place[0] < seq]
        return max(before)[1] if before else min(places)[1] if places else None

    def _first(self, kind: str, name: str | None) -> int | None:
        return next((r.seq for e, r in self.acknowledged if e.kind == kind and e.target_id == name), None)


def _run(machine: type[LogMachine], examples: int, steps: int) -> None:
    quick = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(machine, settings=quick)


def test_any_order_of_things_on_sqlite(tmp_path: Path) -> None:
    numbers = iter(range(10**6))

    class OnSqlite(LogMachine):
        new_url = staticmethod(lambda: f"sqlite:///{tmp_path}/{next(numbers)}/rewardloop.db")

    _run(OnSqlite, examples=6 if STEPS <= 30 else 1, steps=STEPS)


def test_any_order_of_things_on_postgresql(postgres: Any) -> None:
    class OnPostgresql(LogMachine):
        new_url = staticmethod(postgres.new_database)

    _run(OnPostgresql, examples=3 if STEPS <= 30 else 1, steps=STEPS)
