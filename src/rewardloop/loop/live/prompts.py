"""What the policy practices on: prompts of real traffic, of the queue, and of files; some are kept back as canaries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from rewardloop.errors import DataError, ModelError
from rewardloop.feedback.log.event_log import LogReader
from rewardloop.feedback.log.events import Event
from rewardloop.feedback.log.judgments import as_prompt
from rewardloop.loop.live.memory import is_canary
from rewardloop.models.language_model import LanguageModel
from rewardloop.types import Prompt

KINDS: Final = ("completion.started", "queue.task_created", "subject.erased")
PAGE: Final = 1000
MOST_TRAFFIC: Final = 5000  # the newest prompts of people that are remembered
ROOM: Final = 8  # tokens that an answer must have at least


class PromptPool:
    """All prompts known up to a position of the log."""

    def __init__(self, lm: LanguageModel, given: Sequence[Prompt], log: LogReader) -> None:
        """`given`: prompts of files, which are always there."""
        self._lm = lm
        self._log = log
        self._given = [prompt for prompt in dict.fromkeys(given) if self._fits(prompt)]
        self._traffic: dict[Prompt, None] = {}
        self._seq = 0
        self.too_long = len(dict.fromkeys(given)) - len(self._given)

    def follow(self, until: int) -> None:
        """Take in what was asked up to position `until`. After an erasure everything is read anew."""
        while self._seq < until and (events := self._log.read(self._seq, KINDS, PAGE)):
            for event in events:
                if event.seq > until:
                    break
                if event.kind == "subject.erased" and self._traffic:
                    self._forget(event.seq)
                self._take(event)
            self._seq = min(events[-1].seq, until)
        self._seq = max(self._seq, until)

    @property
    def training(self) -> list[Prompt]:
        """Never a canary."""
        return [prompt for prompt in self._all() if not is_canary(prompt)]

    @property
    def canaries(self) -> list[Prompt]:
        """What versions are compared on; all prompts where there are too few to keep any back."""
        return [prompt for prompt in self._all() if is_canary(prompt)] or list(self._all())

    @property
    def standard(self) -> list[Prompt]:
        """What the scale of a reward is taken on: prompts of files where there are any, because they stay."""
        return [prompt for prompt in self._given if not is_canary(prompt)] or self.training or self.canaries

    def draw(self, count: int, rng: np.random.Generator) -> list[Prompt]:
        """Some training prompts, each at most once."""
        prompts = self.training or list(self._all())
        chosen = rng.choice(len(prompts), size=min(count, len(prompts)), replace=False)
        return [prompts[int(at)] for at in chosen]

    def _all(self) -> Iterator[Prompt]:
        yield from dict.fromkeys((*self._given, *self._traffic))

    def _take(self, event: Event) -> None:
        raw = event.body.get("prompts", []) if event.kind == "queue.task_created" else [event.body.get("prompt")]
        if event.body.get("side"):
            return
        for each in raw:
            prompt = _as_text(each)
            if prompt is None or prompt in self._traffic:
                continue
            if not self._fits(prompt):
                self.too_long += 1
                continue
            self._traffic[prompt] = None
            if len(self._traffic) > MOST_TRAFFIC:
                del self._traffic[next(iter(self._traffic))]

    def _forget(self, until: int) -> None:
        """Read the log anew: the words of the erased person are no longer in it."""
        self._traffic.clear()
        after = 0
        while events := self._log.read(after, KINDS[:2], PAGE):
            for event in events:
                if event.seq >= until:
                    return
                self._take(event)
            after = events[-1].seq

    def _fits(self, prompt: Prompt) -> bool:
        try:
            return 0 < len(self._lm.encode_prompt(prompt)) <= self._lm.context - ROOM
        except ModelError:  # no room for a completion at all, or roles that the template does not know
            return False


def _as_text(value: object) -> Prompt | None:
    """A prompt with words; None for token ids, and for what is no prompt."""
    if isinstance(value, str):
        return value or None
    if isinstance(value, list) and value and isinstance(value[0], dict):
        try:
            return as_prompt(value)
        except DataError:
            return None
    return None
