"""Work for annotators as the log's `queue.*` events have it: tasks, who holds what, what was answered.

What is asked next is planned by `feedback.queue`, which knows neither clock nor database; this keeps its state.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from rewardloop.feedback.log.events import Event
from rewardloop.feedback.log.judgments import as_prompt
from rewardloop.feedback.queue import Answered, Informing, Item, Lease, QueueSettings, QueueState, plan_next
from rewardloop.types import Scale

TaskKind = Literal["compare", "rate", "edit"]
STARS: Final = Scale(low=1, high=5)  # what the queue asks ratings on
DAY_S: Final = 24 * 3600


@dataclass(frozen=True)
class Task:
    """Prompts whose answers are to be judged in one way."""

    id: str
    kind: TaskKind
    criterion: str
    settings: QueueSettings
    prompts: tuple[Any, ...]  # as completions have them: a text, or a list of messages
    gold: tuple[Mapping[str, Any], ...]  # {"prompt", "better", "worse"}
    created_at: float

    @property
    def size(self) -> int:
        return len(self.prompts) + len(self.gold)

    @property
    def candidates(self) -> int:
        """Answers that are needed of each prompt."""
        return 2 if self.kind == "compare" else 1

    def completion_id(self, place: int) -> str:
        """Of the answers to the prompt at this place; gold items follow the prompts."""
        return f"queue-{self.id}-{place}"

    def is_gold(self, place: int) -> bool:
        """Whether it is known what a careful person says there."""
        return place >= len(self.prompts)

    def prompt(self, place: int) -> Any:
        return self.gold[place - len(self.prompts)]["prompt"] if self.is_gold(place) else self.prompts[place]

    def gold_texts(self, place: int) -> tuple[str, ...]:
        """What is shown of a gold item: both answers, or the one that is to be rated or corrected."""
        gold = self.gold[place - len(self.prompts)]
        if self.kind == "compare":
            return (str(gold["better"]), str(gold["worse"]))
        return (str(gold["better" if self._shows_better(place) else "worse"]),)

    def gold_expects(self, place: int, *, swapped: bool) -> str:
        """What a careful person says of a gold item, in the words of `gold_says`."""
        if self.kind == "compare":
            return "second" if swapped else "first"
        if self.kind == "edit":
            return "corrected"
        return "high" if self._shows_better(place) else "low"

    def gold_says(self, place: int, judgment: Mapping[str, Any]) -> str:
        """What somebody said of a gold item: a side, a half of the scale, or whether they corrected anything."""
        if self.kind == "compare":
            return str(judgment["choice"])
        if self.kind == "edit":
            return "unchanged" if judgment["corrected"].split() == self.gold_texts(place)[0].split() else "corrected"
        middle = (STARS.low + STARS.high) / 2
        return "high" if judgment["value"] > middle else "low" if judgment["value"] < middle else "middle"

    def _shows_better(self, place: int) -> bool:
        """Better and worse ones are rated by turns; to correct, a good answer shows nothing about who corrects it."""
        return self.kind == "rate" and place % 2 == 0


@dataclass(frozen=True, slots=True)
class Assignment:
    """A question that was handed out."""

    id: str
    task_id: str
    lease: Lease
    feedback_id: str | None = None

    @property
    def place(self) -> int:
        return int(self.lease.item)


@dataclass(frozen=True, slots=True)
class Met:
    """An item on which several people have met, and their judgments by id: the first of each."""

    task: Task
    place: int
    texts: tuple[str, ...]
    judged: Mapping[str, str]  # annotator -> feedback
    verdicts: tuple[str, ...] = ()  # feedback; the last one holds

    @property
    def id(self) -> str:
        """Of its answers, and of the item."""
        return self.task.completion_id(self.place)

    @property
    def verdict(self) -> str | None:
        return self.verdicts[-1] if self.verdicts else None


@dataclass
class _Work:
    """A task, the answers that are there, and how far it has come."""

    task: Task
    state: QueueState
    texts: dict[int, tuple[str, ...]] = field(default_factory=dict)


class Queue:
    """The present state of all tasks."""

    def __init__(self) -> None:
        self._work: dict[str, _Work] = {}
        self.assignments: dict[str, Assignment] = {}
        self._done: dict[str, list[tuple[float, str]]] = {}  # annotator -> when, assignment
        self.gold: dict[str, list[bool]] = {}  # annotator -> right or wrong, in order
        self._verdicts: dict[str, list[str]] = {}  # item -> feedback, the newest last

    @property
    def tasks(self) -> Sequence[Task]:
        return [work.task for work in self._work.values()]

    def task(self, task_id: str) -> Task | None:
        work = self._work.get(task_id)
        return None if work is None else work.task

    def missing(self, task: Task) -> list[int]:
        """Places whose answers are not there yet."""
        work = self._work.get(task.id)
        return [] if work is None else [place for place in range(task.size) if place not in work.texts]

    def offer(self, task: Task, place: int, texts: tuple[str, ...]) -> None:
        """The answers at a place are there, and can be judged. Two equal ones cannot, and are passed over."""
        work = self._work.get(task.id)
        if work is None or place in work.texts:
            return
        work.texts[place] = texts
        if len(set(texts)) < task.candidates:
            return
        gold: Literal["first"] | None = "first" if task.is_gold(place) else None
        item = Item(str(place), as_prompt(task.prompt(place)), texts[0], texts[-1], gold)
        work.state = replace(work.state, items=(*work.state.items, item))

    def texts(self, assignment: Assignment) -> tuple[str, ...]:
        """The answers in the order in which they are shown."""
        texts = self._work[assignment.task_id].texts[assignment.place]
        return texts[::-1] if assignment.lease.swapped else texts

    def plan(self, annotator: str, informing: Informing | None = None) -> tuple[Task, Lease, Assignment | None] | None:
        """What this person should be asked next, of the oldest task that has something for them.

        With the assignment where they hold it already. `informing`: what a choice would teach; ratings and corrections
        are asked for by chance.
        """
        now = time.time()
        for work in self._work.values():
            by = informing if work.task.kind == "compare" else None
            if (lease := plan_next(work.state, annotator, now, by)) is not None:
                held = next((each for each in self.assignments.values() if each.lease == lease), None)
                return work.task, lease, held
        return None

    def progress(self, annotator: str) -> dict[str, Any]:
        """How much is done, by this person and by all."""
        mine = self._done.get(annotator, [])
        today = time.time() // DAY_S * DAY_S
        wanted = sum(len(work.task.prompts) * work.state.settings.overlap for work in self._work.values())
        done = sum(
            min(count, work.state.settings.overlap)
            for work in self._work.values()
            for item, count in work.state.judged.items()
            if int(item) < len(work.task.prompts)
        )
        overlap = max((work.state.settings.overlap for work in self._work.values()), default=0)
        return {
            "mine": {"done": len(mine), "today": sum(at >= today for at, _ in mine)},
            "all": {"done": done, "total": wanted, "overlap": overlap},
        }

    def task_progress(self, task: Task) -> dict[str, int]:
        work = self._work[task.id]
        return {"ready": len(work.texts), "size": task.size, "judged": sum(work.state.judged.values())}

    def last_done(self, annotator: str) -> Assignment | None:
        """What this person answered last, and has not taken back."""
        done = self._done.get(annotator, [])
        return self.assignments.get(done[-1][1]) if done else None

    def met(self) -> list[Met]:
        """The items that two or more people have judged. What is right of gold items is known; they are left out."""
        found: dict[tuple[str, int], dict[str, str]] = {}
        for each in self.assignments.values():
            if each.feedback_id is not None and each.lease.purpose not in ("gold", "repeat"):
                people = found.setdefault((each.task_id, each.place), {})
                people.setdefault(each.lease.annotator, each.feedback_id)
        met = []
        for (task_id, place), people in found.items():
            work = self._work.get(task_id)
            if len(people) > 1 and work is not None and place in work.texts:
                verdicts = tuple(self._verdicts.get(work.task.completion_id(place), ()))
                met.append(Met(work.task, place, work.texts[place], people, verdicts))
        return met

    # ------------------------------------------------------------ applying

    def apply(self, event: Event) -> None:
        """Let an event of the log have its effect. Events of other kinds have none."""
        target = event.target_id or ""
        match event.kind:
            case "queue.task_created":
                task = _task(event)
                self._work[task.id] = _Work(task, QueueState((), settings=task.settings))
            case "queue.task_deleted":
                self._work.pop(target, None)
            case "queue.assigned":
                self._assign(event)
            case "queue.answered" if target in self.assignments:
                self._close(target, event, skipped=False)
            case "queue.skipped" if target in self.assignments:
                self._close(target, event, skipped=True)
            case "queue.undone" if target in self.assignments:
                self._reopen(target, event)
            case "queue.decided":
                self._verdicts.setdefault(target, []).append(event.body["feedback_id"])
            case "annotator.gold":
                self.gold.setdefault(target, []).append(event.body["expected"] == event.body["given"])

    def _assign(self, event: Event) -> None:
        body = event.body
        lease = Lease(
            body["item"], body["annotator_id"], body["purpose"], body["swapped"], event.ts, body["lease_until"]
        )
        self.assignments[event.id] = Assignment(event.id, body["task_id"], lease)
        if (work := self._work.get(body["task_id"])) is not None:
            work.state = replace(work.state, leases=(*work.state.leases, lease))

    def _close(self, assignment_id: str, event: Event, *, skipped: bool) -> None:
        assignment = replace(self.assignments[assignment_id], feedback_id=event.body.get("feedback_id"))
        self.assignments[assignment_id] = assignment
        lease = assignment.lease
        if not skipped:
            self._done.setdefault(lease.annotator, []).append((event.ts, assignment_id))
        if (work := self._work.get(assignment.task_id)) is not None:
            done = Answered(lease.item, lease.annotator, lease.purpose, lease.swapped, skipped)
            held = tuple(each for each in work.state.leases if each != lease)
            work.state = replace(work.state, answered=(*work.state.answered, done), leases=held)

    def _reopen(self, assignment_id: str, event: Event) -> None:
        assignment = self.assignments[assignment_id]
        before = assignment.lease
        lease = replace(before, issued_s=event.ts, expires_s=event.body["lease_until"])
        self.assignments[assignment_id] = replace(assignment, lease=lease, feedback_id=None)
        done = self._done.get(before.annotator, [])
        self._done[before.annotator] = [each for each in done if each[1] != assignment_id]
        if (work := self._work.get(assignment.task_id)) is not None:
            closed = Answered(before.item, before.annotator, before.purpose, before.swapped)
            answered = list(work.state.answered)
            if closed in answered:
                answered.remove(closed)
            work.state = replace(work.state, answered=tuple(answered), leases=(*work.state.leases, lease))


def _task(event: Event) -> Task:
    body = event.body
    settings = QueueSettings(overlap=body["overlap"], gold_share=body["gold_share"], repeat_share=body["repeat_share"])
    prompts, gold = tuple(body["prompts"]), tuple(body["gold"])
    return Task(str(event.target_id), body["task"], body["criterion"], settings, prompts, gold, event.ts)
