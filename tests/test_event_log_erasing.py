"""One person's data are gone: from the tables, from what a learner reads, and from every byte of the data directory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from log_events import derived, finished, retracted, said, sampled, started
from rewardloop.feedback.log.arrays import pack
from rewardloop.feedback.log.database import database_file, is_sqlite
from rewardloop.feedback.log.erasing import erase_subject
from rewardloop.feedback.log.event_log import EventLog
from rewardloop.feedback.log.events import NewEvent
from rewardloop.feedback.log.schema import metadata
from rewardloop.feedback.log.settled import settled_feedback
from rewardloop.feedback.log.submissions import feedback_event, parse_submission

SECRET, EVA = "Zanzibar-4711", "eva-geheim"
TRACES = (SECRET, EVA, "蜂蜜很甜")


@pytest.fixture
def log(database_url: str) -> Iterator[EventLog]:
    """Eva chats and is judged, Eva judges others, Bob does, too."""
    with EventLog(database_url) as log:
        eva = {"actor_id": EVA, "actor_kind": "user"}
        asked = {"prompt": f"{SECRET} 蜂蜜很甜", "external_id": f"{EVA}-7"}
        answer = NewEvent(
            kind="completion.finished",
            target_id="eva-1",
            conversation_id="talk-1",
            body={"text": SECRET * 500, "finish_reason": "stop"},
            arrays=pack(sampled("abc")),
            **eva,
        )
        edit = {"kind": "edit", "target": {"completion_id": "eva-1"}, "corrected": f"{SECRET}, mended"}
        named = {"kind": "comment", "target": {"completion_id": "bob-1"}, "text": SECRET}
        by_key = parse_submission(named | {"annotator": {"external_id": EVA}})
        log.append(
            [
                NewEvent(kind="conversation.started", conversation_id="talk-1", body={"title": SECRET}, **eva),
                NewEvent(kind="completion.started", target_id="eva-1", conversation_id="talk-1", body=asked, **eva),
                answer,
                feedback_event(parse_submission(edit), "bob", "user", idem_key="k1"),  # Bob about Eva's answer
                started("bob-1"),
                finished("bob-1", "Bob's own answer."),
                said("bob-1", by="bob", kind="comment", text="Bob's remark", key="k2"),
                said("bob-1", by=EVA, kind="comment", text=SECRET, key=f"{EVA}-key"),
                feedback_event(by_key, "key-1", "key"),
                NewEvent(kind="queue.assigned", body={"annotator_id": EVA, "lease_until": 1.0}, **eva),
                NewEvent(kind="annotator.excluded", target_id=EVA, actor_id="bob", actor_kind="user"),
                NewEvent(kind="settings.changed", body={"settling_s": 3}, **eva),
            ]
        )
        mistake, *_ = log.append([said("bob-1", by="bob")])
        log.append([retracted(mistake.id, by=EVA)])
        yield log


def test_nothing_is_left_in_any_table_and_the_rest_stays(log: EventLog) -> None:
    before = {event.seq: event for event in log.read()}
    assert traces_in_tables(log) == set(TRACES)
    erased = erase_subject(log, EVA, actor_id="owner")
    erased_key = erase_subject(log, f"external:{EVA}", actor_id="owner")
    assert (erased.events, erased.completions, len(erased.feedback), len(erased_key.feedback)) == (9, 1, 2, 1)
    assert traces_in_tables(log) == set()
    for event in log.read(kinds=["completion.started", "completion.finished", "feedback.created"]):
        assert event == before[event.seq]
    assert [event.kind for event in log.read()].count("erased") == 8
    (setting,) = log.read(kinds=["settings.changed"])
    assert (setting.actor_id, setting.body) == ("erased", {"settling_s": 3})
    live = derived(log)
    log.rebuild()
    assert derived(log) == live
    assert log.sampled(3) is None


def test_a_learner_hears_what_to_forget_and_gets_the_rest(log: EventLog) -> None:
    first = settled_feedback(log, 0, now=1e12)
    assert len(first.items) == 4
    erased = erase_subject(log, EVA, actor_id=EVA)
    page = settled_feedback(log, first.last_seq, now=1e12)
    assert (page.items, set(page.withdrawn)) == ((), set(erased.feedback))
    anew = settled_feedback(log, 0, now=1e12).items
    assert {item.annotator for item in anew} == {"bob", f"external:{EVA}"}
    assert log.read(kinds=["subject.erased"])[0].actor_id == "erased"


def test_no_byte_is_left_in_the_data_directory(log: EventLog) -> None:
    if not is_sqlite(log.url):
        pytest.skip("the files of PostgreSQL belong to its server")
    folder = database_file(log.url).parent
    for name in ("backups", "exports"):
        (folder / name).mkdir()
        (folder / name / "copy.jsonl").write_text(f"{SECRET} {EVA}")
    (folder / "exports" / "whole").mkdir()
    with log.reader.connect() as reading:  # the write-ahead log holds pages, too
        reading.exec_driver_sql("SELECT 1")
        assert traces_in_files(folder) == set(TRACES)
    erased = erase_subject(log, EVA, actor_id="owner")
    erase_subject(log, f"external:{EVA}", actor_id="owner")
    assert len(erased.files) == 3
    assert traces_in_files(folder) == set()
    log.append([said("bob-1", by="bob")])  # and it goes on
    assert traces_in_files(folder) == set()


def traces_in_tables(log: EventLog) -> set[str]:
    with log.reader.connect() as connection:
        rows = [str(row) for table in metadata.tables.values() for row in connection.execute(table.select())]
    return {trace for trace in TRACES if any(trace in row for row in rows)}


def traces_in_files(folder: Path) -> set[str]:
    files = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    return {trace for trace in TRACES if any(trace.encode() in data for data in files)}
