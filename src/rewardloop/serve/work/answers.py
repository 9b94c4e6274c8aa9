"""An answer from question to record: announced in the log, spoken by the engine, stored when it has ended.

`completion.started` is on the disk before the first token leaves, so that feedback can never point at something
unknown; `completion.finished`, with token ids and log-probs, before a client hears that a choice has ended.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rewardloop.feedback.log.arrays import Sampled, pack
from rewardloop.feedback.log.events import NewEvent
from rewardloop.serve.edge.access import Caller
from rewardloop.serve.edge.errors import ApiError
from rewardloop.serve.engine.client import Closing, Opening, Piece, Said, Spoken
from rewardloop.serve.gateway import Gateway


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked, and how it is to be remembered."""

    completion_id: str
    prompt: str | list[int] | list[dict[str, str]]  # a text, its token ids, or a conversation
    model: str
    sampling: Mapping[str, Any]  # temperature, seed, stop, n ...
    max_tokens: int
    top_logprobs: int = 0
    rewards: bool = False
    stored: bool = True
    side: bool = False  # a client's own errand (a title, say), which nothing is learned from
    external_id: str | None = None
    conversation_id: str | None = None
    subject_id: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def engine_request(self) -> dict[str, Any]:
        asked = {"messages": self.prompt} if self.is_chat else {"prompt": self.prompt}
        # a chat says whether it wants log-probs and how many alternatives; a completion says both in one number
        told = (
            {"logprobs": True, "top_logprobs": self.top_logprobs} if self.is_chat else {"logprobs": self.top_logprobs}
        )
        ours = {"rewards": True} if self.rewards else {}
        return {**asked, **self.sampling, "max_tokens": self.max_tokens, **told, **ours, "return_token_ids": True}

    @property
    def is_chat(self) -> bool:
        return isinstance(self.prompt, list) and isinstance(self.prompt[0], dict)


@dataclass(slots=True)
class Choice:
    """One choice, as far as it has been spoken."""

    texts: list[str] = field(default_factory=list)
    tokens: list[Spoken] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)  # characters up to and with each token
    rewards: list[float] = field(default_factory=list)
    finish_reason: str | None = None
    length: int = 0

    @property
    def text(self) -> str:
        return "".join(self.texts)

    def add(self, piece: Piece) -> None:
        self.texts.append(piece.text)
        self.length += len(piece.text)
        self.tokens += piece.tokens
        self.ends += [self.length] * len(piece.tokens)
        self.rewards += piece.rewards
        self.finish_reason = piece.finish_reason or self.finish_reason


@dataclass(slots=True)
class Answer:
    """All choices of one question."""

    question: Question
    choices: list[Choice]
    prompt_ids: tuple[int, ...] = ()
    reward_version: str | None = None
    usage: Closing | None = None
    created: int = field(default_factory=lambda: int(time.time()))
    began: float = field(default_factory=time.perf_counter)

    @property
    def weight_version(self) -> int:
        """Of the newest token."""
        return max((choice.tokens[-1].version for choice in self.choices if choice.tokens), default=0)


@asynccontextmanager
async def answering(
    gateway: Gateway, caller: Caller, question: Question
) -> AsyncIterator[tuple[Answer, AsyncIterator[Piece]]]:
    """Ask the engine; gives the answer that grows, and its pieces as they are spoken.

    Leaving early takes the request out of the engine, and what was said until then is stored as cancelled. Raises
    ApiError as `EngineClient.say` does, and what storing raises.
    """
    answer = Answer(question, [Choice() for _ in range(question.sampling.get("n", 1))])
    telemetry = gateway.telemetry
    async with gateway.engine.say(question.engine_request()) as said, aclosing(said):
        if question.stored:
            await gateway.append(_started(caller, question))
        telemetry.streams.inc()
        try:
            yield answer, _pieces(gateway, caller, answer, said)
        finally:
            telemetry.streams.dec()
            left = [at for at, choice in enumerate(answer.choices) if choice.finish_reason is None and choice.tokens]
            if left and question.stored:
                await gateway.append(*(_finished(caller, answer, at, "cancelled") for at in left))


async def _pieces(gateway: Gateway, caller: Caller, answer: Answer, said: AsyncIterator[Said]) -> AsyncIterator[Piece]:
    telemetry, at = gateway.telemetry, answer.began
    async for each in said:
        match each:
            case Opening():
                answer.prompt_ids, answer.reward_version = each.prompt_ids, each.reward_version
            case Closing():
                answer.usage = each
            case Piece():
                now, first = time.perf_counter(), not any(choice.tokens for choice in answer.choices)
                telemetry.saw_first_token(now - at) if first else telemetry.token_seconds.observe(now - at)
                telemetry.tokens.inc(len(each.tokens))
                if each.tokens:
                    telemetry.weight_version.set(each.tokens[-1].version)
                at = now
                if each.index >= len(answer.choices):
                    raise ApiError(503, "the engine speaks of a choice that nobody asked for", code="engine_failed")
                answer.choices[each.index].add(each)
                if each.finish_reason is not None and answer.question.stored:
                    await gateway.append(_finished(caller, answer, each.index, each.finish_reason))
                yield each


def _started(caller: Caller, question: Question) -> NewEvent:
    body = {
        "prompt": question.prompt,
        "model": question.model,
        "sampling": {**question.sampling, "max_tokens": question.max_tokens},
        "choices": question.sampling.get("n", 1),
        "external_id": question.external_id,
        "side": question.side or None,
        "metadata": dict(question.metadata) or None,
    }
    return _event("completion.started", caller, question, {k: v for k, v in body.items() if v is not None})


def _finished(caller: Caller, answer: Answer, at: int, reason: str) -> NewEvent:
    choice = answer.choices[at]
    body: dict[str, Any] = {"choice": at, "text": choice.text, "finish_reason": reason}
    if choice.rewards:
        rewards = [round(reward, 4) for reward in choice.rewards]
        body |= {"reward_version": answer.reward_version, "token_rewards": rewards}
    sampled = Sampled(
        prompt_ids_P=np.array(answer.prompt_ids, np.int32),
        token_ids_T=np.array([token.id for token in choice.tokens], np.int32),
        logprobs_T=np.array([token.logprob for token in choice.tokens], np.float32),
        weight_versions_T=np.array([token.version for token in choice.tokens], np.int32),
        ends_T=np.array(choice.ends, np.int32),
    )
    return _event("completion.finished", caller, answer.question, body, pack(sampled))


def _event(
    kind: str, caller: Caller, question: Question, body: Mapping[str, Any], arrays: bytes | None = None
) -> NewEvent:
    return NewEvent(
        kind=kind,
        actor_id=caller.id,
        actor_kind=caller.kind,
        subject_id=question.subject_id,
        target_id=question.completion_id,
        conversation_id=question.conversation_id,
        body=body,
        arrays=arrays,
    )
