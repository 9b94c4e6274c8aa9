"""From prompt and completion to the token ids that a backbone reads, within its length."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from rewardloop.models.chat import render_plainly
from rewardloop.models.language_model import LanguageModel
from rewardloop.models.loading import read_config
from rewardloop.types import Prompt

UNBOUNDED = 1 << 40


class PairEncoder(Protocol):
    """Token ids of a prompt and a completion as one sequence, in a model's own tokens and within its length."""

    def encode(self, prompt: Prompt, completion: str) -> dict[str, list[int]]:
        """input_ids, and whatever else the model wants for each token."""


@dataclass(frozen=True, eq=False)
class CausalPair:
    """Prompt and completion end to end, the end token last: the state that a one-label head reads."""

    lm: LanguageModel

    def encode(self, prompt: Prompt, completion: str) -> dict[str, list[int]]:
        prompt_ids, token_ids = encode_within(self.lm, prompt, completion)
        return {"input_ids": [*prompt_ids, *token_ids]}


@dataclass(frozen=True, eq=False)
class EncoderPair:
    """[CLS] prompt [SEP] completion [SEP], or what the encoder's tokenizer makes of a pair."""

    tokenizer: Any
    context: int

    def encode(self, prompt: Prompt, completion: str) -> dict[str, list[int]]:
        text = prompt if isinstance(prompt, str) else render_plainly(prompt)
        encoded = self.tokenizer(completion, add_special_tokens=False, verbose=False)
        room = max(self.context - len(encoded["input_ids"]), self.context // 4) - 4  # special tokens
        pair = (self._ending(text, room), completion) if text else (completion,)
        cut = "only_second" if text else "only_first"
        return dict(self.tokenizer(*pair, truncation=cut, max_length=self.context, verbose=False))

    def _ending(self, text: str, room: int) -> str:
        """The last `room` tokens of a text: of a long prompt the end matters most."""
        at = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        offsets = at["offset_mapping"]
        return text if len(offsets) <= room else text[offsets[-room][0] :]


def encode_within(lm: LanguageModel, prompt: Prompt, completion: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Token ids of prompt and completion that fit the context: a reward must score longer texts, too.

    The prompt gives way first, from its front (a start token stays), down to a quarter of the context; then the
    completion loses its last tokens before the end token.
    """
    prompt_ids = replace(lm, context=UNBOUNDED).encode_prompt(prompt)
    token_ids = lm.encode_completion(completion)
    for_prompt = max(lm.context // 4, 1)
    room = max(lm.context - len(prompt_ids), lm.context - for_prompt)
    if len(token_ids) > room:
        token_ids = (*token_ids[: room - 1], token_ids[-1])
    excess = len(prompt_ids) + len(token_ids) - lm.context
    if excess > 0:
        start = prompt_ids[:1] if prompt_ids[0] == lm.tokenizer.bos_token_id else ()
        prompt_ids = (*start, *prompt_ids[excess + len(start) :])
    return prompt_ids, token_ids


def batches_by_length(lengths: Sequence[int], tokens_at_once: int) -> Iterator[list[int]]:
    """Rows in batches of similar length whose padded size is at most `tokens_at_once` (or one row)."""
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and lengths[row] * (len(batch) + 1) > tokens_at_once:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def encoder_context(trunk: Any, tokenizer: Any) -> int:
    positions = getattr(trunk.config, "max_position_embeddings", None) or 512
    # RoBERTa's positions begin after its padding id
    usable = positions - (trunk.config.pad_token_id + 1 if trunk.config.model_type in ("roberta", "xlm-roberta") else 0)
    return int(min(usable, tokenizer.model_max_length))


def is_causal(folder: Path) -> bool:
    """A causal language model rather than an encoder, by its config.json. Raises ModelError (models/loading).

    BERT and its kin are among the causal models that transformers knows, too: the architecture decides.
    """
    config = read_config(folder)
    names = config.get("architectures") or [""]
    decoder = config.get("model_type") in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    return decoder and any(part in names[0] for part in ("CausalLM", "LMHeadModel"))


def pad_texts(texts: Sequence[dict[str, list[int]]], model: Any) -> dict[str, torch.Tensor]:
    """One batch for `model`, padded on the right, with attention_mask."""
    width = max(len(text["input_ids"]) for text in texts)
    columns: dict[str, list[list[int]]] = {}
    for text in texts:
        for name, ids in {"attention_mask": [1] * len(text["input_ids"]), **text}.items():
            fill = model.config.pad_token_id if name == "input_ids" else 0
            columns.setdefault(name, []).append(list(ids) + [fill] * (width - len(ids)))
    return {name: torch.tensor(rows, device=model.device) for name, rows in columns.items()}


def weights_digest(model: torch.nn.Module) -> str:
    """SHA-256 of all parameters, by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
