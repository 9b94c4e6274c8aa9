"""The decode engine: requests in, sampled completions out, one step for all running sequences at a time.

    engine = Engine(lm, slots=32)
    completions = engine.generate([Request(prompt="Once upon a time", max_tokens=64, seed=7)])

Slots are refilled as sequences end. Weights are replaced between two steps, and every token keeps the version
and the log-probability it was sampled with. What a sequence says depends on its prompt, its seed and the
weights alone, never on its slot or its neighbors (up to the rounding of sums).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rewardloop.errors import ConfigError, ModelError
from rewardloop.hardware import Precision, compute_dtype
from rewardloop.models.language_model import LanguageModel
from rewardloop.rollout.compiled import CompiledDecoder, draw_tokens_compiled
from rewardloop.rollout.decoder import Decoder
from rewardloop.rollout.draw import draw_tokens
from rewardloop.rollout.families import attention_window
from rewardloop.rollout.shaping import Shaping, shape_logits, top_tokens
from rewardloop.rollout.slots import Pending, Slots
from rewardloop.types import Completion, Prompt

FinishReason = Literal["stop", "length", "cancelled"]
CACHE_STEP = 64  # the cache grows in multiples of this many positions
PREFILL_TOKENS = 4096  # most prompt tokens in one pass
BFLOAT16_PAYS = 256  # hidden width from which bfloat16 is faster on a CPU


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A completion that is wanted."""

    prompt: Prompt
    max_tokens: int  # at least 1, the end token counted
    temperature: float = 1.0  # 0 = greedy
    seed: int  # not negative; the whole completion follows from it
    prompt_ids: tuple[int, ...] | None = None  # the prompt where it is encoded already; None: it is encoded here
    shaping: Shaping = field(default_factory=Shaping)


class TokenEvent(NamedTuple):
    """One token of one running request, as it is sampled; the last one brings the completion."""

    handle: int
    token_id: int
    logprob: float
    weight_version: int
    completion: Completion | None
    top: tuple[tuple[int, float], ...] = ()  # the likeliest tokens with their log-probabilities, where asked for


class Engine:
    """Continuous batching over `slots` sequences of at most `max_length` tokens (None: the model's context).

    Precision: "float32" agrees with transformers to 1e-4 in log-probability; "bfloat16" multiplies the
    weights of the blocks in bfloat16; "auto" chooses it where the processor has it and it pays.
    `compiled`: on a CPU with a C++ compiler, what lies between the matrix products is compiled for it.
    Raises ModelError where the model is of no known family, ConfigError where it cannot be compiled.
    """

    @torch.no_grad()
    def __init__(
        self,
        lm: LanguageModel,
        *,
        slots: int = 32,
        max_length: int | None = None,
        precision: Precision = "auto",
        compiled: bool = False,
    ) -> None:
        if slots < 1:
            raise ConfigError(f"slots is {slots}; at least 1 is expected")
        self._lm = lm
        self._max_length = _length_limit(lm, max_length)
        decoder = CompiledDecoder if compiled else Decoder
        self._draw = draw_tokens_compiled if compiled else draw_tokens
        self._decoder: Decoder = decoder(lm.model, _choose_dtype(precision, lm), self._max_length)
        self._end_ids = np.array(lm.end_ids)
        self._queue: deque[Pending] = deque()
        self._table = Slots(slots, 0)
        self._cache: list[Tensor] = []
        self._next_handle = 0
        self._stale = False  # the cache holds keys and values of older weights
        self.weight_version = 0

    @property
    def busy(self) -> bool:
        return bool(self._queue or self._table.running)

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Run requests to their end; completions in the order of the requests.

        Raises ConfigError while submitted requests are running, and as `submit` does.
        """
        if self.busy:
            raise ConfigError("the engine is running submitted requests; finish them with step() before generate()")
        waiting = [self._check(request, handle) for handle, request in enumerate(requests, self._next_handle)]
        self._next_handle += len(waiting)
        self._queue.extend(waiting)
        done: dict[int, Completion] = {}
        try:
            while self.busy:
                done.update((event.handle, event.completion) for event in self.step() if event.completion is not None)
        finally:  # also after an error or Ctrl-C the engine is ready for other work
            self._queue.clear()
            self._table.owners.clear()
        return [done[pending.handle] for pending in waiting]

    def submit(self, request: Request) -> int:
        """Queue a request; gives the handle that its events carry.

        Raises ModelError where the prompt leaves no room, ConfigError where a number is out of range.
        """
        pending = self._check(request, self._next_handle)
        self._next_handle += 1
        self._queue.append(pending)
        return pending.handle

    def cancel(self, handle: int) -> Completion | None:
        """Take a request out at once, running or waiting; what it has said so far, None if it is not here."""
        for pending in self._queue:
            if pending.handle == handle:
                self._queue.remove(pending)
                return self._complete(pending, np.array([], np.int64), np.array([]), np.array([]), "cancelled")
        for row, pending in enumerate(self._table.owners):
            if pending.handle == handle:
                return self._take_out(row, "cancelled")
        return None

    @torch.no_grad()
    def step(self) -> list[TokenEvent]:
        """Admit what fits, then sample one token for every running sequence: one event each.

        Raises ModelError where the weights give log-probabilities that are not finite.
        """
        self._refresh()
        self._admit()
        table = self._table
        rows = table.running
        if rows == 0:
            return []
        at_B = table.lengths[:rows] - 1
        place_B = np.arange(rows)
        logits_BV = self._decoder.decode(
            self._cache,
            self._to_device(table.ids[place_B, at_B]),
            self._to_device(at_B),
            int(at_B.max()) + 1,
        )
        logits_BV = self._shape(logits_BV)
        token_B, logprob_B = self._draw(logits_BV, table.temperatures[:rows], table.uniforms[place_B, at_B + 1])
        tokens, logprobs = token_B.cpu().numpy(), logprob_B.cpu().numpy()
        if not np.isfinite(logprobs).all():
            raise ModelError(
                f"weights version {self.weight_version} gives log-probabilities that are not finite; "
                "load the weights of an earlier version"
            )
        tops = self._tops(logits_BV)
        table.append(tokens, logprobs, self.weight_version)
        return self._events(tokens, logprobs, tops)

    @torch.no_grad()
    def load_weights(self, tensors: Mapping[str, Tensor], version: int) -> None:
        """Replace all weights between two steps; running sequences go on with them.

        `tensors` are named as in the model's state_dict. Keys and values of running sequences are computed
        anew before the next step, so that a full forward pass under a token's version reproduces its
        log-probability. Raises ModelError where a tensor is missing or does not fit.
        """
        self._decoder.load(tensors)
        self.weight_version = version
        self._stale = True

    def _check(self, request: Request, handle: int) -> Pending:
        if request.max_tokens < 1:
            raise ConfigError(f"max_tokens is {request.max_tokens}; at least 1 is expected")
        if not 0 <= request.temperature < float("inf"):
            raise ConfigError(f"temperature is {request.temperature}; 0 (greedy) or a positive number is expected")
        if request.seed < 0:
            raise ConfigError(f"seed is {request.seed}; an integer of at least 0 is expected")
        prompt_ids = self._lm.encode_prompt(request.prompt) if request.prompt_ids is None else request.prompt_ids
        if not 0 <= min(prompt_ids, default=-1) <= max(prompt_ids, default=-1) < self._lm.model.config.vocab_size:
            raise ModelError(f"a prompt needs at least one token, and each below {self._lm.model.config.vocab_size}")
        if len(prompt_ids) >= self._max_length:
            raise ModelError(
                f"the prompt has {len(prompt_ids)} tokens, and the engine's sequences at most "
                f"{self._max_length}; shorten the prompt or raise max_length"
            )
        limit = min(len(prompt_ids) + request.max_tokens, self._max_length)
        return Pending(handle, request.prompt, prompt_ids, limit, request.temperature, request.seed, request.shaping)

    def _admit(self) -> None:
        """Fill free slots from the queue."""
        rows = []
        while self._queue and self._table.free:
            self._reserve(self._queue[0].limit)
            rows.append(self._table.admit(self._queue.popleft()))
        self._prefill(rows)

    def _prefill(self, rows: Sequence[int]) -> None:
        """Keys and values of all tokens but the newest of each row, which the next step feeds.

        Equal texts are computed once, PREFILL_TOKENS of different ones together in one pass.
        """
        prompts: list[Tensor] = []
        slots: list[list[int]] = []
        for ids, owners in self._table.prefixes(rows).items():
            if prompts and sum(map(len, prompts)) + len(ids) // 8 > PREFILL_TOKENS:
                self._decoder.prefill(self._cache, prompts, slots)
                prompts, slots = [], []
            prompts.append(torch.frombuffer(bytearray(ids), dtype=torch.int64))
            slots.append(owners)
        if prompts:
            self._decoder.prefill(self._cache, prompts, slots)

    def _refresh(self) -> None:
        """After a change of weights: compute the keys and values of running sequences anew."""
        if self._stale:
            self._prefill(range(self._table.running))
        self._stale = False

    def _reserve(self, length: int) -> None:
        """Let table and cache hold sequences of `length` tokens; what runs is kept."""
        if length <= self._table.length_limit:
            return
        length = min(-(-length // CACHE_STEP) * CACHE_STEP, self._max_length)
        self._table = self._table.grown(length)
        old, self._cache = self._cache, self._decoder.new_cache(len(self._table.lengths), length)
        for before, after in zip(old, self._cache, strict=False):
            after[:, :, :, : before.shape[3]] = before

    def _shape(self, logits_BV: Tensor) -> Tensor:
        """The logits to draw from; a row that asks for nothing keeps its own."""
        table = self._table
        shaped = [row for row, pending in enumerate(table.owners) if not pending.shaping.idle]
        if shaped:
            logits_BV = logits_BV.clone()
        for row in shaped:
            pending = table.owners[row]
            said_T = table.ids[row, len(pending.prompt_ids) : table.lengths[row]]
            logits_BV[row] = shape_logits(logits_BV[row], pending.shaping, said_T, pending.temperature)
        return logits_BV

    def _tops(self, logits_BV: Tensor) -> dict[int, tuple[tuple[int, float], ...]]:
        """The likeliest tokens of the rows that ask for them."""
        return {
            row: top_tokens(logits_BV[row], pending.shaping.top_logprobs, pending.temperature)
            for row, pending in enumerate(self._table.owners)
            if pending.shaping.top_logprobs
        }

    def _events(
        self, tokens: np.ndarray, logprobs: np.ndarray, tops: Mapping[int, tuple[tuple[int, float], ...]]
    ) -> list[TokenEvent]:
        """Events of the step just made, in the order of rows; ended sequences leave their slots."""
        table = self._table
        rows = table.running
        stopped_B = np.isin(tokens, self._end_ids)
        ended = np.flatnonzero(stopped_B | (table.lengths[:rows] >= table.limits[:rows])).tolist()
        handles = [pending.handle for pending in table.owners]
        # from the last row down: a freed row is filled with the last one, which must not be an ended one
        done = {row: self._take_out(row, "stop" if stopped_B[row] else "length") for row in reversed(ended)}
        return [
            TokenEvent(handle, token, logprob, self.weight_version, done.get(row), tops.get(row, ()))
            for row, (handle, token, logprob) in enumerate(
                zip(handles, tokens.tolist(), logprobs.tolist(), strict=True)
            )
        ]

    def _take_out(self, row: int, reason: FinishReason) -> Completion:
        table = self._table
        pending = table.owners[row]
        said = slice(len(pending.prompt_ids), int(table.lengths[row]))
        completion = self._complete(
            pending, table.ids[row, said], table.logprobs[row, said], table.versions[row, said], reason
        )
        last = table.remove(row)
        if last != row:
            kept = int(table.lengths[row])
            for kv in self._cache:
                kv[:, row, :, :kept] = kv[:, last, :, :kept]
        return completion

    def _complete(
        self,
        pending: Pending,
        tokens_T: np.ndarray,
        logprobs_T: np.ndarray,
        versions_T: np.ndarray,
        reason: FinishReason,
    ) -> Completion:
        token_ids = tuple(tokens_T.tolist())
        return Completion(
            prompt=pending.prompt,
            prompt_ids=pending.prompt_ids,
            token_ids=token_ids,
            logprobs_T=logprobs_T.astype(np.float32),
            weight_versions_T=versions_T.astype(np.int32),
            text=self._lm.decode(token_ids),
            finish_reason=reason,
            temperature=pending.temperature,
        )

    def _to_device(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self._decoder.device)


def _length_limit(lm: LanguageModel, max_length: int | None) -> int:
    limit = lm.context if max_length is None else max_length
    window = attention_window(lm.model)
    if max_length is None and window is not None:
        limit = min(limit, window)
    if window is not None and limit > window:
        raise ConfigError(f"max_length is {limit}, and {lm.name} sees only {window} positions back; set it lower")
    if not 2 <= limit <= lm.context:
        raise ConfigError(f"max_length is {limit}; 2 to {lm.context}, the context of {lm.name}, is expected")
    return limit


def _choose_dtype(precision: Precision, lm: LanguageModel) -> torch.dtype:
    narrow = lm.device.type == "cpu" and lm.model.config.hidden_size < BFLOAT16_PAYS
    return compute_dtype("float32" if precision == "auto" and narrow else precision, lm.device)
