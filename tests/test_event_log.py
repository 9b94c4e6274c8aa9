"""The contract of the event log, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from sqlalchemy import Engine
from sqlalchemy import event as sqlalchemy_event

from log_events import derived, finished, retracted, said, sampled, started
from postgres_server import Server
from rewardloop.errors import DataError
from rewardloop.feedback.log.event_log import EventLog, LogReader
from rewardloop.feedback.log.events import KINDS, NewEvent, new_id
from rewardloop.feedback.log.failures import IdempotencyError, StoreBusyError, StoreUnavailableError
from rewardloop.feedback.log.settled import before_newest, load_completion, settled_feedback
from rewardloop.feedback.log.writer import Writer
from rewardloop.serve.state.people import Measured, People

ODD = 'half a pair \ud83d, nothing \x00, a line\u2028end, 蜂蜜, "quotes"'


class Clock:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log(database_url: str, clock: Clock) -> Iterator[EventLog]:
    with EventLog(database_url, clock) as opened:
        yield opened


# ---------------------------------------------------------------- the log


def test_what_is_appended_comes_back_in_order_also_after_opening_again(log: EventLog, clock: Clock) -> None:
    given = [
        NewEvent(kind="conversation.started", actor_id="ann", actor_kind="user", body={"title": ODD, "x": [1, None]}),
        started("c1", external="e1", talk="t1"),
        finished("c1", talk="t1"),
        said("c1", key="k"),
    ]
    stored = log.append(given)
    assert [one.seq for one in stored] == [1, 2, 3, 4]
    log.close()
    with LogReader(log.url) as reader:
        back = reader.read()
        assert [event.id for event in back] == [one.id for one in stored]
        for one, event in zip(given, back, strict=True):
            for name in ("kind", "actor_id", "actor_kind", "subject_id", "target_id", "conversation_id", "idem_key"):
                assert getattr(event, name) == getattr(one, name)
            assert (event.body, event.ts) == (one.body, clock.now)
        assert [event.seq for event in reader.read(after=1, limit=2)] == [2, 3]
        assert [event.seq for event in reader.read(kinds=["feedback.created", "completion.started"])] == [2, 4]
        assert reader.event(stored[2].id) == back[2]
        assert reader.event(new_id()) is None
        assert reader.last_seq() == 4


def test_arrays_come_back_bit_for_bit(log: EventLog) -> None:
    log.append([started("c1"), finished("c1", "At the mill.")])
    found, wanted = log.sampled(2), sampled("At the mill.")
    assert found is not None
    for name in ("prompt_ids_P", "token_ids_T", "logprobs_T", "weight_versions_T", "ends_T"):
        ours, theirs = getattr(found, name), getattr(wanted, name)
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
    assert log.sampled(1) is None


def test_ids_are_uuids_of_version_7_in_order_of_time() -> None:
    early, late = UUID(new_id(1000.0)), UUID(new_id(1000.001))
    assert early.version == late.version == 7
    assert early.variant == late.variant == UUID("01900000-0000-7000-8000-000000000000").variant
    assert early < late
    assert early.int >> 80 == 1_000_000


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "feedback.destroyed"},
        {"actor_id": ""},
        {"actor_id": "a" * 201},
        {"idem_key": "two\nlines"},
        {"target_id": "\ud83d"},
        {"body": {"score": float("nan")}},
        {"body": {"when": object()}},
    ],
)
def test_what_cannot_be_stored_is_refused_before_it_is_sent(wrong: dict[str, object]) -> None:
    good: dict[str, object] = {"kind": "conversation.started", "actor_id": "ann", "actor_kind": "user"}
    with pytest.raises(DataError):
        NewEvent(**(good | wrong))  # type: ignore[arg-type]


def test_every_kind_of_event_is_described_and_fits_its_column() -> None:
    assert all(said and len(kind) <= 64 for kind, said in KINDS.items())


# ---------------------------------------------------------------- idempotency


def test_the_same_key_and_body_give_the_first_reply_again_also_in_one_append_and_after_retraction(
    log: EventLog, clock: Clock
) -> None:
    log.append([started("c1"), finished("c1")])
    first, again = log.append([said("c1", key="k"), said("c1", key="k")])
    assert (first.outcome, again.outcome) == ("stored", "replayed")
    log.append([retracted(first.id)])
    clock.now += 1e9  # keys never expire
    (late,) = log.append([said("c1", key="k")])
    assert {(one.seq, one.id, one.ts) for one in (first, again, late)} == {(3, first.id, first.ts)}
    assert log.last_seq() == 4


def test_the_same_key_with_another_body_is_a_conflict_and_nothing_of_that_append_is_stored(log: EventLog) -> None:
    log.append([said("c1", key="k")])
    with pytest.raises(IdempotencyError, match="'k'"):
        log.append([said("c2", key="new"), said("c2", key="k")])
    with pytest.raises(IdempotencyError):
        log.append([said("c2", key="twice"), said("c3", key="twice")])
    assert log.last_seq() == 1
    (mine,) = log.append([said("c2", by="bob", key="k")])  # the key of another actor
    assert mine.outcome == "stored"
    good, bad, fine = log.append_each([[said("c5")], [said("c6"), said("c7", key="k")], [said("c8", key="new")]])
    assert isinstance(bad, IdempotencyError)
    assert [one.seq for one in (*good, *fine)] == [3, 4]


@pytest.mark.parametrize(
    "key", ['"quoted"', "back\\slash", "$[0]", "12", "1e3", "null", "true", "键🙂", "e\u0301", "' OR 1=1 --", "[]"]
)
def test_any_printable_key_and_actor_is_known_again(log: EventLog, key: str) -> None:
    given = [said("c1", by=name, key=key) for name in (key, "ann", f"{key} ")]
    assert [each.outcome for each in log.append(given)] == ["stored"] * 3
    assert [each.outcome for each in log.append(given)] == ["replayed"] * 3
    assert log.append([said("c1", by="ann", key=f"{key}.")])[0].outcome == "stored"


def test_more_keys_in_one_commit_than_a_statement_takes_parameters(log: EventLog) -> None:
    groups = [[said("c1", key=f"{group}/{at}") for at in range(100)] for group in range(170)]
    first, again = (log.append_each(groups) for _ in range(2))
    assert [[(each.seq, each.outcome) for each in group] for group in again] == [
        [(each.seq, "replayed") for each in group] for group in first
    ]


def test_arrays_are_part_of_what_a_key_means(log: EventLog) -> None:
    one = finished("c1", "abc")
    values = {name: getattr(one, name) for name in ("kind", "actor_id", "actor_kind", "target_id", "body")}
    log.append([NewEvent(**values, idem_key="k", arrays=b"1")])
    with pytest.raises(IdempotencyError):
        log.append([NewEvent(**values, idem_key="k", arrays=b"2")])


# ---------------------------------------------------------------- feedback finds its answer


def test_a_thumb_by_external_id_waits_for_the_answer_and_joins_when_it_arrives(log: EventLog, clock: Clock) -> None:
    (early,) = log.append([said({"external_id": "e1"}, key="k")])
    assert early.waiting
    clock.now += 60
    assert settled_feedback(log, 0, clock.now).items == ()
    log.append([started("c1", external="e1")])
    assert settled_feedback(log, 0, clock.now).items == ()  # the answer is not whole yet
    passed = settled_feedback(log, 0, clock.now).last_seq
    log.append([finished("c1")])
    (item,) = settled_feedback(log, passed, clock.now).items  # a reader that was past it does not miss it
    assert (item.seq, item.ready_seq, item.completions[0].completion_id) == (1, 3, "c1")
    (again,) = log.append([said({"external_id": "e1"}, key="k")])
    assert again.waiting  # the first reply again
    (late,) = log.append([said({"external_id": "e1"})])
    assert not late.waiting


def test_an_external_id_used_twice_means_the_latest_answer_before_the_thumb(log: EventLog, clock: Clock) -> None:
    log.append([started("c1", external="e"), finished("c1"), said({"external_id": "e"})])
    log.append([started("c2", external="e"), finished("c2"), said({"external_id": "e"})])
    items = settled_feedback(log, 0, clock.now + 60).items
    assert [item.completions[0].completion_id for item in items] == ["c1", "c2"]


def test_feedback_on_a_conversation_means_its_last_whole_answer(log: EventLog, clock: Clock) -> None:
    log.append([started("c1", talk="t"), finished("c1", talk="t"), started("c2", talk="t")])
    log.append([said({"conversation_id": "t"}, kind="dialogue", reply="Thanks!"), finished("c2", talk="t")])
    log.append([said({"conversation_id": "t"}, kind="dialogue", reply="No."), said({"conversation_id": "u"})])
    log.append([started("c3", talk="u"), finished("c3", talk="u")])
    items = settled_feedback(log, 0, clock.now + 60).items
    assert [item.completions[0].completion_id for item in items] == ["c1", "c2", "c3"]


def test_a_preference_is_ready_when_both_of_its_answers_are(log: EventLog, clock: Clock) -> None:
    both = [{"completion_id": "c1", "choice": 0}, {"completion_id": "c1", "choice": 1}]
    log.append(
        [started("c1", choices=2), finished("c1", "one"), said("", kind="preference", targets=both, choice="tie")]
    )
    assert settled_feedback(log, 0, clock.now + 60).items == ()
    log.append([finished("c1", "two", choice=1)])
    (item,) = settled_feedback(log, 0, clock.now + 60).items
    assert (item.ready_seq, [one.completion.text for one in item.completions]) == (4, ["one", "two"])
    assert load_completion(log, "c1", 2) is None


# ---------------------------------------------------------------- settling and retraction


def test_feedback_settles_after_three_seconds_and_a_retraction_before_that_leaves_no_trace(
    log: EventLog, clock: Clock
) -> None:
    log.append([started("c1"), finished("c1")])
    slip, meant = log.append([said("c1"), said("c1", value=0)])
    clock.now += 2.9
    early = settled_feedback(log, 0, clock.now)
    assert (early.items, early.last_seq) == ((), 2)
    log.append([retracted(slip.id)])
    clock.now += 0.2
    page = settled_feedback(log, early.last_seq, clock.now)
    assert [item.id for item in page.items] == [meant.id]
    assert (page.withdrawn, page.last_seq) == ((slip.id,), 5)
    log.append([retracted(meant.id)])
    later = settled_feedback(log, page.last_seq, clock.now)
    assert (later.items, later.withdrawn, later.last_seq) == ((), (meant.id,), 6)


def test_a_clock_set_back_does_not_hold_up_feedback(log: EventLog, clock: Clock) -> None:
    log.append([started("c1"), finished("c1"), said("c1")])
    assert len(settled_feedback(log, 0, clock.now - 3600).items) == 1
    assert len(settled_feedback(log, 0, clock.now - 1).items) == 0


def test_pages_part_nothing_that_became_ready_together(log: EventLog, clock: Clock) -> None:
    log.append([said({"external_id": "e"}, by=f"p{number}") for number in range(5)])
    log.append([started("c1", external="e"), finished("c1"), said("c1"), said("c1")])
    first = settled_feedback(log, 0, clock.now + 60, limit=2)
    assert ([item.seq for item in first.items], first.last_seq) == ([1, 2, 3, 4, 5], 7)
    second = settled_feedback(log, first.last_seq, clock.now + 60, limit=2)
    assert ([item.seq for item in second.items], second.last_seq) == ([8, 9], 9)


@pytest.mark.parametrize(("count", "found"), [(1, [10]), (2, [9, 10]), (3, [8, 9, 10]), (4, [1, 8, 9, 10]), (9, None)])
def test_the_newest_are_those_that_became_ready_last(log: EventLog, count: int, found: list[int] | None) -> None:
    everything = [1, 2, 4, 8, 9, 10]
    log.append([said({"external_id": "late"}), said("c1"), said({"external_id": "never"}), said("c1")])
    log.append([started("c1"), finished("c1"), finished("late", external="late"), said("c1"), said("c1"), said("c1")])
    page = settled_feedback(log, before_newest(log, count), time.time() + 60)
    assert sorted(item.seq for item in page.items) == (found or everything)


def test_only_the_newest_judgments_are_measured_and_kept(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rewardloop.serve.state.people.NEWEST", 3)
    people = People(log)

    def counted() -> dict[str, int]:
        people._measured = Measured()  # not fresh
        return {name: kinds["rating"] for name, kinds in asyncio.run(people.measured()).by_kind.items()}

    log.append([started("c1"), finished("c1"), *(said("c1", by=name) for name in ("ann", "ben", "cat", "dan"))])
    assert counted() == {"ben": 1, "cat": 1, "dan": 1}
    (eva, _) = log.append([said("c1", by="eva"), said("c1", by="eva")])
    assert counted() == {"dan": 1, "eva": 2}
    log.append([retracted(eva.id)])
    assert counted() == {"dan": 1, "eva": 1}
    log.append([said("c1", by="fay") for _ in range(5)])
    assert counted() == {"fay": 3}
    assert len(people._seen) == 3


# ---------------------------------------------------------------- derived tables


def test_rebuilt_tables_are_the_live_ones(log: EventLog) -> None:
    (waits, *_) = log.append([said({"external_id": "e"}), said({"external_id": "never"}), started("c1", external="e")])
    log.append([finished("c1"), said("c1"), started("c2", choices=3), finished("c2", choice=2)])
    lease = {"task_id": "t", "annotator_id": "ann", "lease_until": 5.0}
    queue = {"actor_id": "ann", "actor_kind": "user"}
    (given,) = log.append([NewEvent(kind="queue.assigned", body=lease, **queue)])
    moves = [
        ("queue.answered", {"feedback_id": waits.id}),
        ("queue.undone", {"lease_until": 9.0}),
        ("queue.skipped", {}),
    ]
    for kind, body in moves:
        log.append([NewEvent(kind=kind, body=body, target_id=given.id, **queue)])
        live = derived(log)
        log.rebuild()
        assert derived(log) == live
    assert live[-1] == [(given.id, given.seq, "t", "ann", 9.0, "skipped", None)]
    log.append([retracted(waits.id)])
    live = derived(log)
    log.rebuild()
    assert derived(log) == live
    assert len(live[1]) == 2


# ---------------------------------------------------------------- the writer


def test_a_commit_costs_the_same_however_much_is_stored_and_waits(tmp_path: Path) -> None:
    """In steps of SQLite's machine: a statement that walked through a table would take more with each event."""
    short, long = (_steps_of_a_commit(tmp_path / f"{stored}.db", stored) for stored in (200, 4000))
    assert short > 1000
    assert long < 1.5 * short


def _steps_of_a_commit(file: Path, stored: int) -> int:
    with EventLog(f"sqlite:///{file}") as log:
        given = _of_everything(log, stored)
        steps = 0

        def count() -> int:
            nonlocal steps
            steps += 1
            return 0

        with closing(log.writer.raw_connection()) as connection:
            connection.driver_connection.set_progress_handler(count, 1)
        log.append(given)
        return steps


def _of_everything(log: EventLog, stored: int) -> list[NewEvent]:
    """Fill the log; a commit with keys, targets of each kind, answers that others wait for, a retraction."""
    for at in range(stored // 20):
        some = [f"{at}-{one}" for one in range(4)]
        log.append([started(one, external=f"e{one}", talk=f"t{one}") for one in some])
        log.append([said(one) for one in some])
        log.append([said({"external_id": f"never {one}"}, key=one) for one in some])
        log.append([said({"conversation_id": f"never {one}"}) for one in some])
        log.append([finished(one, talk=f"t{one}") for one in some])
    return [
        *(said("0-0", key=f"new {at}", by=f"ann {at}") for at in range(20)),
        *(said({"external_id": f"e0-{at}"}) for at in range(4)),
        *(said({"conversation_id": f"t0-{at}"}) for at in range(4)),
        *(said({"external_id": "soon"}), started("c1", external="soon"), finished("c1", external="soon")),
        retracted(log.append([said("0-1")])[0].id, key="back"),
    ]


def test_postgresql_finds_by_an_index_what_a_commit_asks_for(postgres: Server) -> None:
    with EventLog(postgres.new_database()) as log:
        given = _of_everything(log, 40)
        run: list[tuple[str, Any]] = []

        def listen(*seen: Any) -> None:
            _, _, statement, parameters, _, many = seen
            run.append((statement, parameters[0] if many else parameters))

        with sqlalchemy_listener(log.writer, listen):
            log.append(given)
        plans = []
        with log.writer.connect() as connection:
            for statement, parameters in run:
                if statement.startswith(("SELECT event", "SELECT feedback", "SELECT max", "UPDATE feedback", "DELETE")):
                    rows = connection.exec_driver_sql(f"EXPLAIN {statement}", parameters)
                    plans.append("\n".join(row[0] for row in rows))
        assert len(plans) >= 7
        assert not [plan for plan in plans if "Seq Scan" in plan]


@contextmanager
def sqlalchemy_listener(engine: Engine, listen: Callable[..., None]) -> Iterator[None]:
    sqlalchemy_event.listen(engine, "before_cursor_execute", listen)
    try:
        yield
    finally:
        sqlalchemy_event.remove(engine, "before_cursor_execute", listen)


def test_many_threads_get_their_own_replies_after_the_commit(log: EventLog) -> None:
    log.append([started("c1"), finished("c1")])
    seen: list[int] = []
    log.on_commit(seen.append)
    replies: dict[tuple[int, int], int] = {}

    def client(number: int) -> None:
        for turn in range(10):
            (mine,) = writer.submit([said("c1", by=f"p{number}", key=str(turn))]).result(timeout=60)
            replies[number, turn] = mine.seq

    with Writer(log) as writer:
        threads = [threading.Thread(target=client, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    stored = log.read(kinds=["feedback.created"])
    assert {(int(e.actor_id[1:]), int(e.idem_key or "")): e.seq for e in stored} == replies
    assert seen == sorted(set(seen))
    assert seen[-1] == log.last_seq() == 82


def test_a_conflict_fails_its_caller_alone(log: EventLog) -> None:
    log.append([said("c1", key="k")])
    with Writer(log) as writer, log.exclusive():  # so that all of them wait together
        futures = [
            writer.submit([said("c1")]),
            writer.submit([said("c2", key="k")]),
            writer.submit([said("c1", key="k")]),
        ]
        time.sleep(0.05)
    wait(futures, timeout=60)
    assert futures[0].result()[0].outcome == "stored"
    assert isinstance(futures[1].exception(), IdempotencyError)
    assert futures[2].result()[0].outcome == "replayed"


def test_a_full_queue_and_a_closed_writer_refuse_at_once(log: EventLog) -> None:
    writer = Writer(log, queued=2)
    with log.exclusive():
        futures = [writer.submit([said("c1")])]
        while writer.backlog:
            time.sleep(0.001)
        futures += [writer.submit([said("c1")]) for _ in range(2)]
        with pytest.raises(StoreBusyError, match="2 writes are waiting"):
            writer.submit([said("c1")])
    writer.close()
    assert [future.result()[0].outcome for future in futures] == ["stored"] * 3
    with pytest.raises(StoreUnavailableError, match="closed"):
        writer.submit([said("c1")])


def test_waiting_ends_with_the_commit_here_and_in_another_reader(log: EventLog) -> None:
    with LogReader(log.url) as reader:
        assert reader.wait(after=0, timeout_s=0.01) == log.wait(after=0, timeout_s=0.01) == 0
        found: list[int] = []
        threads = [
            threading.Thread(target=lambda one=one: found.append(one.wait(after=0, timeout_s=60)))
            for one in (log, reader)
        ]
        for thread in threads:
            thread.start()
        log.append([said("c1")])
        for thread in threads:
            thread.join(timeout=60)
    assert found == [1, 1]


def test_several_writers_of_one_postgresql_take_turns_and_a_reader_misses_nothing(postgres: Server) -> None:
    url = postgres.new_database()
    with EventLog(url) as one, EventLog(url) as two, LogReader(url) as reader:

        def append(log: EventLog, name: str) -> None:
            for number in range(30):
                log.append([said("c1", by=name, key=str(number))] * (1 + number % 3))

        threads = [threading.Thread(target=append, args=(log, f"p{n}")) for n, log in enumerate((one, two, one, two))]
        for thread in threads:
            thread.start()
        seen: list[int] = []
        while len(seen) < 120 and (any(t.is_alive() for t in threads) or reader.last_seq() > len(seen)):
            seen += [event.seq for event in reader.read(after=seen[-1] if seen else 0)]
        for thread in threads:
            thread.join()
    assert seen == list(range(1, 121))


@pytest.mark.parametrize("body", [{}, {"b": [1, None, 2.5], "a": {"字": "é\n"}}, {"text": 'a "quote"'}])
def test_the_hash_of_a_payload_is_of_everything_that_makes_requests_the_same(body: dict[str, Any]) -> None:
    """As earlier versions computed it: a request that is repeated after an update must not look like another one."""
    given = NewEvent(kind="feedback.created", actor_id="a", actor_kind="user", target_id="é", body=body, arrays=b"xy")
    parts = ["feedback.created", "é", None, None, body]
    text = json.dumps(parts, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    assert given.payload_hash == hashlib.sha256(text.encode() + b"xy").hexdigest()
