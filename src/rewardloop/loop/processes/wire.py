"""What the engine understands and says over HTTP: the requests and chunks of a vLLM server.

Requests: /v1/completions (`prompt`: text or token ids) and /v1/chat/completions (`messages`), always with token ids and
log-probs in the answer. Beyond OpenAI's fields, as vLLM has them: `return_token_ids` (`prompt_token_ids` with the first
chunk, `token_ids` with each) and `weight_version` of each token. Ours alone: `rewards`, and then
`token_rewards` in the order of tokens.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rewardloop.errors import ConfigError
from rewardloop.rollout.shaping import Shaping
from rewardloop.types import Message, Prompt

MOST_CHOICES = 8

Stop = Annotated[list[str], Field(max_length=4)]


class Turn(BaseModel):
    """One message, as OpenAI has it, with plain text for its content."""

    model_config = ConfigDict(extra="forbid")
    role: Literal["system", "user", "assistant"]
    content: str


class Sampling(BaseModel):
    """What completions and chat completions have in common."""

    model_config = ConfigDict(extra="forbid")
    model: str | None = None
    max_tokens: Annotated[int, Field(ge=1)] = 256
    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    logit_bias: Annotated[dict[int, float], Field(max_length=300)] = Field(default_factory=dict)
    top_logprobs: Annotated[int, Field(ge=0, le=20)] = 0
    n: Annotated[int, Field(ge=1, le=MOST_CHOICES)] = 1
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    stop: Stop = Field(default_factory=list)
    stream: bool = False
    logprobs: bool | int | None = None
    return_token_ids: bool = True
    rewards: bool = False

    def shaping(self) -> Shaping:
        """What is asked of the distribution."""
        names = ("top_p", "presence_penalty", "frequency_penalty", "logit_bias")
        # a completion says how many alternatives it wants in `logprobs` itself; True is no number here
        counted = self.logprobs if isinstance(self.logprobs, int) and not isinstance(self.logprobs, bool) else 0
        return Shaping(**{name: getattr(self, name) for name in names}, top_logprobs=self.top_logprobs or counted)


class CompletionRequest(Sampling):
    """A text, or its token ids, to be continued."""

    prompt: str | list[int]
    echo: bool = False


class ChatRequest(Sampling):
    """A conversation to be answered."""

    messages: Annotated[list[Turn], Field(min_length=1, max_length=256)]


def parse(kind: type[CompletionRequest] | type[ChatRequest], body: bytes) -> CompletionRequest | ChatRequest:
    """The request in `body`. Raises ConfigError that names the field."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the body"
        raise ConfigError(f"{where}: {first['msg']}") from error


def prompt_of(request: CompletionRequest | ChatRequest) -> Prompt | list[int]:
    """What is to be continued."""
    if isinstance(request, ChatRequest):
        return tuple(Message(turn.role, turn.content) for turn in request.messages)
    return request.prompt


@dataclass(frozen=True, slots=True)
class Token:
    """A sampled token as people see it."""

    token_id: int
    text: str  # "" while it is part of an unfinished character
    logprob: float
    weight_version: int
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Piece:
    """What has become known of one choice since the last piece."""

    index: int
    text: str = ""
    tokens: tuple[Token, ...] = ()
    rewards: tuple[float, ...] = ()
    finish_reason: str | None = None


class Renderer:
    """Pieces as chunks of one answer."""

    def __init__(self, answer_id: str, model: str, *, chat: bool, reward_version: str | None) -> None:
        self._head = {
            "id": answer_id,
            "object": "chat.completion.chunk" if chat else "text_completion",
            "created": int(time.time()),
            "model": model,
        }
        self._chat = chat
        self._reward_version = reward_version

    def opening(self, prompt_token_ids: list[int]) -> dict[str, Any]:
        """The first chunk: what was read."""
        extra = {} if self._reward_version is None else {"reward_version": self._reward_version}
        return {**self._head, "choices": [], "prompt_token_ids": prompt_token_ids, **extra}

    def chunk(self, pieces: list[Piece]) -> dict[str, Any]:
        return {**self._head, "choices": [self._choice(piece) for piece in pieces]}

    def closing(self, prompt_tokens: int, completion_tokens: int) -> dict[str, Any]:
        """The last chunk: what was used."""
        usage = {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        }
        return {**self._head, "choices": [], "usage": usage}

    def _choice(self, piece: Piece) -> dict[str, Any]:
        said: dict[str, Any] = {"delta": {"content": piece.text}} if self._chat else {"text": piece.text}
        entries = [
            {
                **_entry(token.text, token.logprob),
                "top_logprobs": [_entry(text, value) for text, value in token.top],
            }
            for token in piece.tokens
        ]
        return {
            "index": piece.index,
            **said,
            "finish_reason": piece.finish_reason,
            "token_ids": [token.token_id for token in piece.tokens],
            "logprobs": {"content": entries},
            "weight_versions": [token.weight_version for token in piece.tokens],
            "token_rewards": list(piece.rewards),
        }


def _entry(text: str, logprob: float) -> dict[str, Any]:
    # JSON has no -inf; OpenAI writes -9999 for what is all but impossible
    return {"token": text, "logprob": max(logprob, -9999.0), "bytes": list(text.encode())}


def sse(document: dict[str, Any]) -> bytes:
    """One server-sent event."""
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return f"data: {text}\n\n".encode()


SSE_END = b"data: [DONE]\n\n"


def error_body(message: str, kind: str, code: str | None = None) -> dict[str, Any]:
    """OpenAI's envelope."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}
