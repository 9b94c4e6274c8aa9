"""Token rewards from a language model alone, for texts of which no learned reward knows anything.

*Typicality*: how much the model expected a token, against how much it expected of this place at all,

    r_t = log pi(a_t | s_t) + H(pi(. | s_t))

Above 0: at least as likely as the model's usual choice here. Below 0: a surprise. Under the model its mean is 0
at every place, whatever came before, so that hard and easy places compare. It is known as soon as the token is.
It says how usual a token is, not how good. Source: Meister et al. 2202.00666, section 3.

*Shift*: what training changed, r_t = log pi_after(a_t | s_t) - log pi_before(a_t | s_t). Times beta it is the
reward that the new model is the optimum of. Source: Rafailov et al. 2305.18290, eq. 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from rewardloop.errors import DataError, ModelError
from rewardloop.evaluate.token_rewards import TokenRewards, TokenScorer
from rewardloop.functional.head import chunked_logprobs
from rewardloop.models.language_model import LanguageModel
from rewardloop.models.packed import completion_rows, completion_targets, output_head, pack, packed_hidden
from rewardloop.types import Prompt

# Names of the sentences in words.yaml that say what the colors mean.
TYPICALITY: Final = "typicality"
SHIFT: Final = "shift"


def typicality(lm: LanguageModel) -> TokenScorer:
    """A scorer by typicality under `lm`; see the head of this module.

    An empty prompt scores a whole text from its start. The end token is not scored: a text given by hand may
    go on. The scorer raises DataError for an empty text, ModelError for one longer than the context.
    """

    def score(prompt: Prompt, completion: str) -> TokenRewards:
        text = _encode(lm, prompt, completion)
        logprobs_T, entropy_T = expectations(lm, text.prompt_ids, text.token_ids)
        return _token_rewards(lm, prompt, text, logprobs_T + entropy_T)

    return score


def shift(after: LanguageModel, before: LanguageModel) -> TokenScorer:
    """A scorer by how much more readily `after` says a token than `before`; both have the same tokenizer."""

    def score(prompt: Prompt, completion: str) -> TokenRewards:
        text = _encode(after, prompt, completion)
        now_T, _ = expectations(after, text.prompt_ids, text.token_ids)
        then_T, _ = expectations(before, text.prompt_ids, text.token_ids)
        return _token_rewards(after, prompt, text, now_T - then_T.to(now_T.device))

    return score


@dataclass(frozen=True, slots=True)
class _Encoded:
    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]


def _encode(lm: LanguageModel, prompt: Prompt, completion: str) -> _Encoded:
    prompt_ids = lm.encode_prompt(prompt)
    if prompt:
        token_ids = lm.encode_completion(completion)[:-1]
    else:  # a whole text begins as texts begin, not as completions do
        whole = lm.encode_prompt(completion)
        token_ids = whole[len(prompt_ids) :] if whole[: len(prompt_ids)] == prompt_ids else whole
    if not token_ids or not completion:
        raise DataError("an empty text has no tokens to score; give at least one word")
    length = len(prompt_ids) + len(token_ids)
    if length > lm.context:
        raise ModelError(
            f"prompt and text have {length} tokens together, {lm.name} takes {lm.context}; shorten the text"
        )
    return _Encoded(prompt_ids, token_ids)


@torch.no_grad()
def expectations(lm: LanguageModel, prompt_ids: Sequence[int], token_ids: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Log-probability of each token and entropy of the place it stands at, both [T]."""
    batch = pack([prompt_ids], [token_ids], lm.device)
    weight_VD, bias_V = output_head(lm.model)
    return chunked_logprobs(
        packed_hidden(lm.model, batch)[completion_rows(batch)],
        weight_VD,
        completion_targets(batch),
        bias_V=bias_V,
        with_entropy=True,
    )


def _token_rewards(lm: LanguageModel, prompt: Prompt, text: _Encoded, rewards_T: Tensor) -> TokenRewards:
    shown, offsets = lm.decode(text.token_ids), lm.token_offsets(text.token_ids)
    return TokenRewards(prompt, shown, tuple(offsets), tuple(rewards_T.tolist()))
