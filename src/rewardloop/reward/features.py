"""Frozen features of a text: what a head for a reward is fitted on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rewardloop.models.language_model import LanguageModel, load_language_model, save_language_model
from rewardloop.models.loading import load_model, load_tokenizer, resolve_folder, save_model
from rewardloop.models.packed import TrunkPass, forward_completions
from rewardloop.reward.encoding import (
    EncoderPair,
    batches_by_length,
    encode_within,
    encoder_context,
    is_causal,
    pad_texts,
    weights_digest,
)
from rewardloop.types import Prompt

TEXTS_AT_ONCE = 64
SUMMARIES = 7  # of how sure a completion was written; see pool_features
TOKENS_AT_ONCE = 8192

Text = tuple[Prompt, str]


@dataclass(eq=False)
class TextMemory:
    """Feature rows by text, computed once. Memory: 4 D bytes a text."""

    rows: dict[Text, Tensor] = field(default_factory=dict)

    def recall(self, texts: Sequence[Text], compute: Callable[[Sequence[Text]], Tensor]) -> Tensor:
        """features_BD of `texts`; what is not remembered is computed, some texts at a time."""
        missing = [text for text in dict.fromkeys(texts) if text not in self.rows]
        for at in range(0, len(missing), TEXTS_AT_ONCE):
            part = missing[at : at + TEXTS_AT_ONCE]
            self.rows.update(zip(part, compute(part).cpu(), strict=True))
        return torch.stack([self.rows[text] for text in texts])


class FeatureExtractor:
    """Features from a frozen causal language model, remembered by text.

    The hidden state after the last token (the end token); mean, largest and least of every hidden unit over the
    completion; seven summaries of how sure its tokens were: D = 4 * hidden width + 7. Length is not among
    them: it is a covariate of the likelihood.
    """

    summaries = SUMMARIES

    def __init__(self, lm: LanguageModel) -> None:
        self.lm = lm
        self.memory = TextMemory()

    @cached_property
    def digest(self) -> str:
        return weights_digest(self.lm.model)

    def features(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> Tensor:
        return self.memory.recall(list(zip(prompts, completions, strict=True)), self._compute)

    def save(self, folder: Path) -> None:
        """Write the trunk as a plain Hugging Face folder."""
        save_language_model(self.lm, folder)

    def _compute(self, texts: Sequence[Text]) -> Tensor:
        pairs = [encode_within(self.lm, prompt, completion) for prompt, completion in texts]
        token_ids = [ids for _, ids in pairs]
        trunk = forward_completions(self.lm.model, [prompt_ids for prompt_ids, _ in pairs], token_ids)
        return pool_features(trunk, [len(ids) for ids in token_ids])


class EncoderFeatures:
    """Features from a frozen encoder (BERT family) with its own tokenizer, remembered by text.

    The mean hidden state of prompt and completion read together, and of the completion read alone: D = 2 * hidden
    width.
    """

    summaries = 0

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.memory = TextMemory()
        self._pair = EncoderPair(tokenizer, encoder_context(model, tokenizer))

    @cached_property
    def digest(self) -> str:
        return weights_digest(self.model)

    def features(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> Tensor:
        return self.memory.recall(list(zip(prompts, completions, strict=True)), self._compute)

    def save(self, folder: Path) -> None:
        """Write the trunk as a plain Hugging Face folder."""
        save_model(self.model, self.tokenizer, folder)

    def _compute(self, texts: Sequence[Text]) -> Tensor:
        together = self._means([self._pair.encode(prompt, completion) for prompt, completion in texts])
        alone = self._means([self._pair.encode("", completion) for _, completion in texts])
        return torch.cat([together, alone], dim=-1)

    @torch.no_grad()
    def _means(self, encoded: Sequence[dict[str, list[int]]]) -> Tensor:
        means_BD = torch.empty(len(encoded), self.model.config.hidden_size)
        for rows in batches_by_length([len(text["input_ids"]) for text in encoded], TOKENS_AT_ONCE):
            padded = pad_texts([encoded[row] for row in rows], self.model)
            hidden_BSD = self.model(**padded).last_hidden_state
            mask_BS1 = padded["attention_mask"][..., None]
            means_BD[rows] = ((hidden_BSD * mask_BS1).sum(1) / mask_BS1.sum(1)).float().cpu()
        return means_BD


def make_extractor(source: str | Path, *, device: str | None = None) -> FeatureExtractor | EncoderFeatures:
    """Features from a causal language model or an encoder, by what its folder holds. Raises ModelError."""
    folder = resolve_folder(source)
    if is_causal(folder):
        return FeatureExtractor(load_language_model(source, device=device))
    return EncoderFeatures(load_model(folder, "encoder", device), load_tokenizer(folder))


def pool_features(trunk: TrunkPass, lengths: Sequence[int]) -> Tensor:
    """Features_BD, float32: the last hidden state; mean, largest and least of the tokens; how sure they were.

    One bad sentence among good ones hardly shows in a mean, but in the extremes. The summaries, of log-probs: mean,
    least, mean of the three least, shares of tokens below 10 % and below 1 %; of log-prob plus entropy (how much less
    likely a token was than was to be expected there): least, mean of the three least. Where a text goes wrong, its
    writer mostly was not sure.
    """
    device = trunk.hidden_BT1D.device
    length_B = torch.tensor(lengths, device=device)
    mask_BT = torch.arange(trunk.logprobs_BT.shape[1], device=device) < length_B[:, None]
    last_BD = trunk.hidden_BT1D[torch.arange(len(lengths), device=device), length_B]
    # column t is the state before token t, so the tokens themselves are columns 1 .. length
    tokens_BTD, pads_BT1 = trunk.hidden_BT1D[:, 1:], ~mask_BT[..., None]
    mean_BD = tokens_BTD.masked_fill(pads_BT1, 0.0).sum(1) / length_B[:, None]
    largest_BD = tokens_BTD.masked_fill(pads_BT1, -torch.inf).amax(1)
    least_BD = tokens_BTD.masked_fill(pads_BT1, torch.inf).amin(1)
    # 0 is certainty, and as likely as was to be expected: pads are never the least
    logprobs_BT = trunk.logprobs_BT.masked_fill(~mask_BT, 0.0)
    expected_BT = (trunk.logprobs_BT + trunk.entropies_BT).masked_fill(~mask_BT, 0.0).clamp_max(0.0)
    summaries = [logprobs_BT.sum(-1) / length_B, *_least(logprobs_BT)]
    summaries += [(logprobs_BT < math.log(share)).sum(-1) / length_B for share in (0.1, 0.01)]
    summaries_BK = torch.stack([*summaries, *_least(expected_BT)], dim=-1)
    return torch.cat([last_BD, mean_BD, largest_BD, least_BD, summaries_BK], dim=-1).float()


def _least(values_BT: Tensor) -> list[Tensor]:
    """The least of values of at most 0, and the mean of the three least, on a scale on which far is not endless."""
    three_B3 = values_BT.topk(min(3, values_BT.shape[1]), dim=-1, largest=False).values
    return [-(-three_B3[:, 0]).log1p(), -(-three_B3).log1p().sum(-1) / 3]
