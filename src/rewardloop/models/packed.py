"""Many sequences through a model at once, end to end and without padding: a packed batch.

    tokens     prompt 0, completion 0, prompt 1, completion 1, ...    positions start at 0 in every prompt

Completions of one prompt share it: it is there once, before the first of them, and whatever is computed of it
is computed once. All layers but attention see N tokens in a row; models/attention shows each sequence its own.
Architectures without transformers' extension point for attention run padded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, cast

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from rewardloop.errors import ModelError
from rewardloop.functional.head import chunked_logprobs
from rewardloop.hardware import Precision, compute_dtype, computing_in
from rewardloop.models.attention import AttentionPlan, packed_attention, plan_attention

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# What a copy of a shared prompt, which attention alone makes, counts of its tokens: more than it weighs (about a
# quarter), because the completions that it makes room for weigh more than a prompt: they go through the head.
SHARED_COST: Final = 0.5

# What some architectures do to their logits behind the head, by the name of the setting and its idle value.
_AFTER_THE_HEAD: Final = {"final_logit_softcapping": None, "logit_scale": 1.0, "logits_scaling": 1.0}


@dataclass(frozen=True, eq=False)
class PackedBatch:
    """Sequences end to end. N = sum(lengths), less what prompts are shared."""

    input_ids_N: Tensor
    position_ids_N: Tensor
    places: tuple[Tensor, ...]  # of each sequence: where its tokens lie among the N, prompt and completion
    prompt_lengths: tuple[int, ...]

    @cached_property
    def attention(self) -> AttentionPlan:
        return plan_attention(self.places, self.input_ids_N.device)

    @property
    def lengths(self) -> tuple[int, ...]:
        """Prompt + completion of each sequence."""
        return tuple(len(places_S) for places_S in self.places)

    @property
    def completion_lengths(self) -> tuple[int, ...]:
        return tuple(s - p for s, p in zip(self.lengths, self.prompt_lengths, strict=True))


def pack(
    prompt_ids: Sequence[Sequence[int]],
    token_ids: Sequence[Sequence[int]],
    device: torch.device | str = "cpu",
) -> PackedBatch:
    """Put prompts and their completions end to end, equal prompts once.

    Every prompt and every completion needs a token: a completion's first token is predicted from the prompt's
    last. Raises ModelError otherwise.
    """
    for row, (prompt, completion) in enumerate(zip(prompt_ids, token_ids, strict=True)):
        if not len(prompt) or not len(completion):
            empty = "completion" if len(prompt) else "prompt"
            raise ModelError(f"sequence {row} has an empty {empty}; give each at least one token")
    ids: list[int] = []
    positions: list[int] = []
    places: list[Tensor] = []
    prompt_places: dict[tuple[int, ...], Tensor] = {}
    for prompt, completion in zip(map(tuple, prompt_ids), token_ids, strict=True):
        if prompt not in prompt_places:
            prompt_places[prompt] = torch.arange(len(ids), len(ids) + len(prompt))
            ids += prompt
            positions += range(len(prompt))
        own_places_T = torch.arange(len(ids), len(ids) + len(completion))
        places.append(torch.cat([prompt_places[prompt], own_places_T]))
        ids += completion
        positions += range(len(prompt), len(prompt) + len(completion))
    return PackedBatch(
        torch.tensor(ids, device=device),
        torch.tensor(positions, device=device),
        tuple(places),
        tuple(len(prompt) for prompt in prompt_ids),
    )


def packed_hidden(model: PreTrainedModel, batch: PackedBatch, embeddings_ND: Tensor | None = None) -> Tensor:
    """Hidden states after the final norm, [N, D]; gradients flow. Row i has seen the tokens of its own
    sequence up to and including token i. Take rows by `index_select`: rows of shared prompts are wanted several
    times, and the gradients of other ways of indexing add up in an order that threads decide.

    `embeddings_ND` takes the place of the input embeddings of the batch, for who needs the gradient there.
    """
    trunk = cast(Any, model.base_model)
    if embeddings_ND is None:
        embeddings_ND = model.get_input_embeddings()(batch.input_ids_N)
    if not getattr(model, "_supports_attention_backend", False):
        return _padded_hidden(trunk, batch, embeddings_ND)
    with packed_attention(trunk.config):
        output = trunk(
            inputs_embeds=embeddings_ND[None],
            position_ids=batch.position_ids_N[None],
            use_cache=False,
            packed_plan=batch.attention,
        )
    return cast(Tensor, output.last_hidden_state[0])


def _padded_hidden(trunk: Any, batch: PackedBatch, embeddings_ND: Tensor) -> Tensor:
    """The plain way, for architectures without the extension point."""
    plan = plan_attention(batch.places, embeddings_ND.device, least_fill=0.0)
    (embeddings_BSD,) = plan.padded(embeddings_ND)
    # no mask: pads come after the real tokens, which a causal model does not show them
    hidden_BSD = trunk(inputs_embeds=embeddings_BSD, use_cache=False).last_hidden_state
    return plan.packed([hidden_BSD])


def completion_rows(batch: PackedBatch) -> Tensor:
    """Rows of the packed batch that predict a completion token, sequence after sequence.

    Token t of a completion is predicted at position P + t - 1 of its sequence.
    """
    places = zip(batch.places, batch.prompt_lengths, strict=True)
    return torch.cat([places_S[prompt - 1 : -1] for places_S, prompt in places]).to(batch.input_ids_N.device)


def completion_targets(batch: PackedBatch) -> Tensor:
    """The completion tokens, in the order of `completion_rows`."""
    places = zip(batch.places, batch.prompt_lengths, strict=True)
    rows_N = torch.cat([places_S[prompt:] for places_S, prompt in places])
    return batch.input_ids_N[rows_N.to(batch.input_ids_N.device)]


def output_head(model: PreTrainedModel) -> tuple[Tensor, Tensor | None]:
    """Weight [V, D] and bias [V] (or None) of the layer that makes logits of hidden states.

    Where the weight is tied, it is the input embedding itself. Raises ModelError for architectures that
    change their logits behind the head.
    """
    head = cast(Any, model.get_output_embeddings())
    if head is None:
        raise ModelError(f"{type(model).__name__} has no output head; a causal language model is expected")
    for setting, idle in _AFTER_THE_HEAD.items():
        if getattr(model.config, setting, idle) not in (idle, None):
            raise ModelError(
                f"{type(model).__name__} changes its logits behind the head ({setting}), which is not "
                "supported; take a model of another architecture"
            )
    return head.weight, getattr(head, "bias", None)


def split_rows(values_N: Tensor, lengths: Sequence[int]) -> Tensor:
    """Values of tokens (vectors too), sequence after sequence -> [B, T], right-padded with 0."""
    return pad_sequence(list(torch.split(values_N, list(lengths))), batch_first=True)


def plan_passes(
    prompt_ids: Sequence[Sequence[int]], token_ids: Sequence[Sequence[int]], max_tokens: int
) -> list[list[int]]:
    """Rows, those of one prompt together, longest first, cut into passes of at most `max_tokens` tokens (one
    sequence at least). A prompt that is in its pass already counts SHARED_COST of its tokens.
    """
    prompts = [tuple(prompt) for prompt in prompt_ids]
    lengths = [len(prompt) + len(ids) for prompt, ids in zip(prompts, token_ids, strict=True)]
    longest: dict[tuple[int, ...], int] = {}
    for prompt, length in zip(prompts, lengths, strict=True):
        longest[prompt] = max(length, longest.get(prompt, 0))
    passes: list[list[int]] = []
    tokens = 0.0
    for row in sorted(range(len(lengths)), key=lambda row: (-longest[prompts[row]], prompts[row], -lengths[row])):
        together = bool(passes) and prompts[passes[-1][-1]] == prompts[row]
        cost = lengths[row] - together * (1 - SHARED_COST) * len(prompts[row])
        if not passes or tokens + cost > max_tokens:
            passes.append([])
            tokens, cost = 0.0, lengths[row]
        passes[-1].append(row)
        tokens += cost
    return passes


# ---------------------------------------------------------------- frozen models


@dataclass(frozen=True, eq=False)
class TrunkPass:
    """What one forward pass of a frozen model says about completions; float32, right-padded with 0."""

    logprobs_BT: Tensor
    entropies_BT: Tensor  # of the distribution in which token t was chosen, nats
    hidden_BT1D: Tensor  # column t is the state s_t in which token t is chosen; column T has seen them all


@torch.no_grad()
def forward_completions(
    model: PreTrainedModel,
    prompt_ids: Sequence[Sequence[int]],
    token_ids: Sequence[Sequence[int]],
    *,
    temperature: float = 1.0,
    max_tokens_per_pass: int = 8192,
    precision: Precision = "float32",
) -> TrunkPass:
    """Log-probs of completions, entropies and all their states, from one forward of the trunk, without gradient."""
    logprobs: dict[int, Tensor] = {}
    entropies: dict[int, Tensor] = {}
    hidden: dict[int, Tensor] = {}
    dtype = compute_dtype(precision, model.device)
    for rows in plan_passes(prompt_ids, token_ids, max_tokens_per_pass):
        batch = pack([prompt_ids[i] for i in rows], [token_ids[i] for i in rows], model.device)
        with computing_in(dtype, model.device):
            hidden_ND = packed_hidden(model, batch).float()
        hidden_nD, weight_VD, targets_n, bias_V = _head_inputs(model, hidden_ND, batch, dtype)
        told = chunked_logprobs(
            hidden_nD, weight_VD, targets_n, bias_V=bias_V, temperature=temperature, with_entropy=True
        )
        for kept, values_N in zip((logprobs, entropies), told, strict=True):
            kept.update(zip(rows, torch.split(values_N, list(batch.completion_lengths)), strict=True))
        for row, places_S, prompt in zip(rows, batch.places, batch.prompt_lengths, strict=True):
            hidden[row] = hidden_ND[places_S[prompt - 1 :].to(hidden_ND.device)]
    order = range(len(prompt_ids))
    return TrunkPass(
        pad_sequence([logprobs[i] for i in order], batch_first=True),
        pad_sequence([entropies[i] for i in order], batch_first=True),
        pad_sequence([hidden[i] for i in order], batch_first=True),
    )


def head_logprobs(
    model: PreTrainedModel,
    hidden_ND: Tensor,
    batch: PackedBatch,
    *,
    temperature: float = 1.0,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Log-probs of the completion tokens from the hidden states of a packed batch; gradients flow."""
    hidden_nD, weight_VD, targets_n, bias_V = _head_inputs(model, hidden_ND, batch, dtype)
    return chunked_logprobs(hidden_nD, weight_VD, targets_n, bias_V=bias_V, temperature=temperature)


def _head_inputs(
    model: PreTrainedModel, hidden_ND: Tensor, batch: PackedBatch, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """What the head reads for the completion tokens: hidden states, weight, targets, bias."""
    weight_VD, bias_V = output_head(model)
    hidden_nD = hidden_ND.index_select(0, completion_rows(batch)).to(dtype)
    return hidden_nD, weight_VD.to(dtype), completion_targets(batch), bias_V
