"""The event log: `LogReader` reads it from anywhere, `EventLog` is the one place that appends to it.

    log = EventLog("sqlite:///data/rewardloop.db")
    (stored,) = log.append([NewEvent(kind="conversation.started", actor_id="u1", actor_kind="user")])
    log.read(after=0)

Appended means on the disk: `append` returns after the commit.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, Final, Self

from sqlalchemy import JSON, Connection, Row, bindparam, cast, delete, func, insert, or_, select, text, tuple_, update

from rewardloop.errors import StoreError
from rewardloop.feedback.log.arrays import Sampled, unpack
from rewardloop.feedback.log.database import (
    CHANNEL,
    WriteLock,
    database_file,
    is_sqlite,
    open_reader,
    open_writer,
    reading,
    writing,
)
from rewardloop.feedback.log.derived import apply
from rewardloop.feedback.log.events import Appended, Event, NewEvent, new_id, stored_event
from rewardloop.feedback.log.failures import IdempotencyError
from rewardloop.feedback.log.migrating import check_version, migrate, schema_version
from rewardloop.feedback.log.schema import (
    DERIVED,
    HEAD,
    Encoded,
    applied,
    blob,
    completion,
    event,
    feedback_target,
    to_json,
)

REBUILD_CHUNK: Final = 1000  # events
POLL_S: Final = 0.05  # how often a reader in another process looks for new events

EVENT_FIELDS: Final = [field.name for field in fields(Event)]
EVENT_COLUMNS: Final = [event.c[name] for name in EVENT_FIELDS]

# What every commit runs, built once: to build a statement takes longer than to run it.
_LAST_SEQ: Final = select(func.max(event.c.seq))
_ADD_EVENT: Final = insert(event)
_ADD_BLOB: Final = insert(blob)
# Pairs come as one parameter, JSON: SQLite walks through the whole log for a list of pairs, and for those that come out
# of a query it takes the index; PostgreSQL runs out of stack at a long one.
_PAIR_SQLITE: Final = func.json_each(bindparam("keyed")).table_valued("value").c.value
_PAIR_POSTGRESQL: Final = func.json_array_elements(cast(bindparam("keyed"), JSON)).column_valued("pair")
_PAIRS: Final = {
    "sqlite": select(func.json_extract(_PAIR_SQLITE, "$[0]"), func.json_extract(_PAIR_SQLITE, "$[1]")),
    "postgresql": select(_PAIR_POSTGRESQL.op("->>")(0), _PAIR_POSTGRESQL.op("->>")(1)),
}
_FIND_KEYS: Final = {
    dialect: select(
        event.c.actor_id, event.c.idem_key, event.c.seq, event.c.id, event.c.ts, event.c.payload_hash
    ).where(tuple_(event.c.actor_id, event.c.idem_key).in_(pairs))
    for dialect, pairs in _PAIRS.items()
}
_FIND_WAITING: Final = (
    select(feedback_target.c.feedback_id)
    .select_from(
        feedback_target.outerjoin(
            completion,
            (completion.c.completion_id == feedback_target.c.completion_id)
            & (completion.c.choice == feedback_target.c.choice),
        )
    )
    .where(
        feedback_target.c.feedback_id.in_(bindparam("ids", expanding=True)),
        or_(completion.c.started_seq.is_(None), completion.c.started_seq > feedback_target.c.seq),
    )
)


class LogReader:
    """Reads a log, also while another process writes it. Thread-safe."""

    def __init__(self, url: str) -> None:
        """Raises StoreError where there is no database, or not one of this schema."""
        if is_sqlite(url) and not database_file(url).is_file():
            raise StoreError(f"no database at {database_file(url)}; `rewardloop up` makes one")
        self.url = url
        self.reader = open_reader(url)
        try:
            self._check_schema()
        except BaseException:
            self.reader.dispose()
            raise

    def _check_schema(self) -> None:
        have = schema_version(self.reader)
        check_version(self.reader, have)
        if have != HEAD:
            raise StoreError(f"{self.url} has schema {have or 'none'}, not {HEAD}; `rewardloop up` updates it")

    def read(self, after: int = 0, kinds: Collection[str] | None = None, limit: int = 1000) -> list[Event]:
        """Up to `limit` events with seq > `after`, in order, of `kinds` (all if None)."""
        query = select(*EVENT_COLUMNS).where(event.c.seq > after).order_by(event.c.seq).limit(limit)
        if kinds is not None:
            query = query.where(event.c.kind.in_(list(kinds)))
        with reading(self.reader) as connection:
            return [as_event(row) for row in connection.execute(query)]

    def event(self, event_id: str) -> Event | None:
        """The event with this id."""
        with reading(self.reader) as connection:
            row = connection.execute(select(*EVENT_COLUMNS).where(event.c.id == event_id)).first()
        return None if row is None else as_event(row)

    def about(self, target_id: str, kinds: Collection[str]) -> list[Event]:
        """The events of `kinds` about one thing, in order."""
        query = select(*EVENT_COLUMNS).where(event.c.target_id == target_id, event.c.kind.in_(list(kinds)))
        with reading(self.reader) as connection:
            return [as_event(row) for row in connection.execute(query.order_by(event.c.seq))]

    def of_conversation(self, conversation_id: str, kinds: Collection[str]) -> list[Event]:
        """Its events of `kinds`, in order."""
        query = select(*EVENT_COLUMNS).where(event.c.conversation_id == conversation_id, event.c.kind.in_(list(kinds)))
        with reading(self.reader) as connection:
            return [as_event(row) for row in connection.execute(query.order_by(event.c.seq))]

    def sampled(self, seq: int) -> Sampled | None:
        """The arrays of the event `seq`, if it has some."""
        with reading(self.reader) as connection:
            data = connection.scalar(select(blob.c.bytes).where(blob.c.seq == seq))
        return None if data is None else unpack(data)

    def last_seq(self) -> int:
        """The seq of the newest event; 0 in an empty log."""
        with reading(self.reader) as connection:
            return last_seq(connection)

    def wait(self, after: int, timeout_s: float) -> int:
        """Block until there is an event with seq > `after`, at most `timeout_s`; the newest seq."""
        end = time.monotonic() + timeout_s
        while (newest := self.last_seq()) <= after and time.monotonic() < end:
            time.sleep(min(POLL_S, max(end - time.monotonic(), 0)))
        return newest

    def close(self) -> None:
        self.reader.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class EventLog(LogReader):
    """The log with its one writer. Open it once, in one process (SQLite: a lock file sees to that)."""

    def __init__(self, url: str, clock: Callable[[], float] = time.time) -> None:
        """Creates the database where there is none, and brings its schema up to date (after a copy).

        Raises StoreError: another process writes it, a newer schema, a damaged file, no such server.
        """
        self._lock = WriteLock(database_file(url).with_suffix(".lock")) if is_sqlite(url) else None
        self._clock = clock
        self._writing = threading.Lock()
        self._changed = threading.Condition()
        self._listeners: list[Callable[[int], None]] = []
        self.writer = open_writer(url)
        try:
            self.migrated_copy = migrate(self.writer)
            super().__init__(url)
            self._newest = self.last_seq()
            with reading(self.reader) as connection:
                whole = connection.scalar(select(applied.c.applied_seq)) == self._newest
            if not whole:  # a migration asked for it
                self.rebuild()
        except BaseException:
            self._release()
            raise

    def append(self, events: Sequence[NewEvent]) -> list[Appended]:
        """Append all of `events` or none, in one transaction; returns after the commit.

        An event whose idempotency key its actor has used before is not stored again: the first reply comes back.
        Raises IdempotencyError where such a key comes with another payload, StoreError where nothing can be stored.
        """
        (result,) = self.append_each([events])
        if isinstance(result, IdempotencyError):
            raise result
        return result

    def append_each(self, groups: Sequence[Sequence[NewEvent]]) -> list[list[Appended] | IdempotencyError]:
        """`append` for each of `groups`, all in one transaction. A group with a conflict is left out whole.

        Raises StoreError; then nothing of any group is stored.
        """
        with self.exclusive():
            with writing(self.writer) as connection:
                pending = _Pending(connection, groups, self._clock())
                results = [pending.add(group) for group in groups]
                if pending.events:
                    _store(connection, pending)
                results = _say_what_waits(connection, groups, results)
            newest = pending.next_seq - 1
        if pending.events:
            self._tell(newest)
        return results

    def on_commit(self, listener: Callable[[int], None]) -> None:
        """Call `listener(newest seq)` after each commit, in the thread that appended; it must be quick and not fail."""
        self._listeners.append(listener)

    def wait(self, after: int, timeout_s: float) -> int:
        """As LogReader.wait, woken by the commit itself."""
        with self._changed:
            self._changed.wait_for(lambda: self._newest > after, timeout_s)
            return self._newest

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Nothing is appended meanwhile."""
        with self._writing:
            yield

    def rebuild(self) -> None:
        """Empty the derived tables and fill them from the log, in one transaction."""
        with self.exclusive(), writing(self.writer) as connection:
            for table in DERIVED:
                connection.execute(delete(table))
            connection.execute(update(applied).values(applied_seq=0))
            after = 0
            while chunk := _read_chunk(connection, after):
                apply(connection, chunk)
                after = chunk[-1].seq

    def close(self) -> None:
        super().close()
        self._release()

    def _release(self) -> None:
        self.writer.dispose()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _tell(self, newest: int) -> None:
        with self._changed:
            self._newest = max(self._newest, newest)
            self._changed.notify_all()
        for listener in self._listeners:
            listener(newest)


# ---------------------------------------------------------------- one transaction


@dataclass(frozen=True, slots=True)
class _Known:
    """What is stored under an idempotency key."""

    appended: Appended
    payload_hash: str | None


class _Pending:
    """The events that one transaction will store, and the keys that are known by then."""

    def __init__(self, connection: Connection, groups: Iterable[Sequence[NewEvent]], now_s: float) -> None:
        keyed = {(given.actor_id, given.idem_key) for group in groups for given in group if given.idem_key is not None}
        self.known = _known_keys(connection, keyed)
        self.next_seq = last_seq(connection) + 1
        self.now_s = now_s
        self.events: list[Event] = []
        self.bodies: list[Encoded] = []
        self.hashes: list[str | None] = []
        self.blobs: list[dict[str, Any]] = []

    def add(self, group: Sequence[NewEvent]) -> list[Appended] | IdempotencyError:
        """Take up a whole group, unless one of its keys means something else."""
        hashes = [given.payload_hash if given.idem_key is not None else None for given in group]
        meant: dict[tuple[str, str], str] = {}
        for given, digest in zip(group, hashes, strict=True):
            if given.idem_key is None or digest is None:
                continue
            key = (given.actor_id, given.idem_key)
            before = self.known[key].payload_hash if key in self.known else meant.setdefault(key, digest)
            if before != digest:
                return IdempotencyError(
                    f"the idempotency key {given.idem_key!r} was used for something else; take a new one for it"
                )
        return [self._take(given, digest) for given, digest in zip(group, hashes, strict=True)]

    def _take(self, given: NewEvent, digest: str | None) -> Appended:
        key = None if given.idem_key is None else (given.actor_id, given.idem_key)
        if key in self.known:
            return self.known[key].appended
        stored = stored_event(given, seq=self.next_seq, event_id=new_id(self.now_s), ts=self.now_s)
        self.next_seq += 1
        self.events.append(stored)
        self.bodies.append(given.encoded)
        self.hashes.append(digest)
        if given.arrays is not None:
            self.blobs.append({"seq": stored.seq, "bytes": given.arrays})
        if key is not None:
            again = Appended(seq=stored.seq, id=stored.id, ts=stored.ts, outcome="replayed")
            self.known[key] = _Known(again, digest)
        return Appended(seq=stored.seq, id=stored.id, ts=stored.ts, outcome="stored")


def _known_keys(connection: Connection, keyed: set[tuple[str, str]]) -> dict[Any, _Known]:
    if not keyed:
        return {}
    rows = connection.execute(_FIND_KEYS[connection.dialect.name], {"keyed": to_json(sorted(keyed))})
    return {
        (row.actor_id, row.idem_key): _Known(
            Appended(seq=row.seq, id=row.id, ts=row.ts, outcome="replayed"), row.payload_hash
        )
        for row in rows
    }


def _store(connection: Connection, pending: _Pending) -> None:
    rows = [
        {**{name: getattr(stored, name) for name in EVENT_FIELDS}, "body": body, "payload_hash": digest}
        for stored, body, digest in zip(pending.events, pending.bodies, pending.hashes, strict=True)
    ]
    connection.execute(_ADD_EVENT, rows)
    if pending.blobs:
        connection.execute(_ADD_BLOB, pending.blobs)
    apply(connection, pending.events)
    if connection.dialect.name == "postgresql":
        notify = text("SELECT pg_notify(:channel, :seq)")
        connection.execute(notify, {"channel": CHANNEL, "seq": str(pending.next_seq - 1)})


def _say_what_waits(
    connection: Connection,
    groups: Sequence[Sequence[NewEvent]],
    results: list[list[Appended] | IdempotencyError],
) -> list[list[Appended] | IdempotencyError]:
    """Mark feedback by external id whose answer was not there when it came. The same for a reply that is repeated."""
    asked = [
        appended.id
        for group, result in zip(groups, results, strict=True)
        if not isinstance(result, IdempotencyError)
        for given, appended in zip(group, result, strict=True)
        if given.kind == "feedback.created" and given.target_id is None
    ]
    if not asked:
        return results
    waiting = _waiting(connection, asked)
    return [
        result
        if isinstance(result, IdempotencyError)
        else [_replace_waiting(appended) if appended.id in waiting else appended for appended in result]
        for result in results
    ]


def _replace_waiting(appended: Appended) -> Appended:
    return Appended(seq=appended.seq, id=appended.id, ts=appended.ts, outcome=appended.outcome, waiting=True)


def _waiting(connection: Connection, ids: Sequence[str]) -> set[str]:
    return set(connection.scalars(_FIND_WAITING, {"ids": ids}))


# ---------------------------------------------------------------- rows


def last_seq(connection: Connection) -> int:
    """The seq of the newest event; 0 in an empty log."""
    return int(connection.scalar(_LAST_SEQ) or 0)


def as_event(row: Row[Any]) -> Event:
    """A row of the event columns, in their order."""
    return Event(**row._mapping)


def _read_chunk(connection: Connection, after: int) -> list[Event]:
    query = select(*EVENT_COLUMNS).where(event.c.seq > after).order_by(event.c.seq).limit(REBUILD_CHUNK)
    return [as_event(row) for row in connection.execute(query)]
