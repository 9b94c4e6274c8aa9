"""A one-label sequence classifier as a reward: the form in which plain transformers loads a reward model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from rewardloop import hardware
from rewardloop.errors import ModelError
from rewardloop.models.language_model import LanguageModel, load_language_model
from rewardloop.models.loading import (
    load_model,
    load_tokenizer,
    read_config,
    require_architecture,
    require_safetensors,
    resolve_folder,
    save_model,
)
from rewardloop.reward.encoding import (
    CausalPair,
    EncoderPair,
    PairEncoder,
    batches_by_length,
    encoder_context,
    is_causal,
    pad_texts,
    weights_digest,
)
from rewardloop.types import Prompt

TOKENS_AT_ONCE = 8192


@dataclass(frozen=True, eq=False)
class Classifier:
    """R(x, y) = the single logit of a sequence classifier. A Scorer with one head."""

    model: Any  # ...ForSequenceClassification, evaluation mode
    pair: PairEncoder
    tokenizer: Any

    @cached_property
    def digest(self) -> str:
        return weights_digest(self.model)

    @property
    def size(self) -> int:
        """Parameters."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    @property
    def end_ids(self) -> tuple[int, ...]:
        """End tokens of a causal trunk; none for an encoder."""
        return self.pair.lm.end_ids if isinstance(self.pair, CausalPair) else ()

    def save(self, folder: Path) -> None:
        """Write a plain Hugging Face folder, which AutoModelForSequenceClassification loads."""
        save_model(self.model, self.tokenizer, folder)

    def encode(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[dict[str, list[int]]]:
        """Token ids of every text."""
        return [self.pair.encode(prompt, text) for prompt, text in zip(prompts, completions, strict=True)]

    def logits(self, encoded: Sequence[dict[str, list[int]]]) -> Tensor:
        """Scores in the order given, float32, with gradients; padded batches of texts of similar length."""
        parts, order = [], []
        for rows in batches_by_length([len(text["input_ids"]) for text in encoded], TOKENS_AT_ONCE):
            padded = pad_texts([encoded[row] for row in rows], self.model)
            parts.append(self.model(**padded).logits[:, 0].float())
            order += rows
        back = torch.empty(len(order), dtype=torch.long)
        back[order] = torch.arange(len(order))
        return torch.cat(parts)[back]

    def raw_scores(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> np.ndarray:
        with torch.no_grad():
            scores_B = self.logits(self.encode(prompts, completions)) if len(completions) else torch.zeros(0)
        return scores_B.double().cpu().numpy()[None]


def make_classifier(source: str | Path, *, seed: int, device: str | None = None) -> Classifier:
    """A classifier with the trunk of a causal language model or an encoder, and a small random head.

    Raises ModelError for a folder that is neither.
    """
    folder = resolve_folder(source)
    if is_causal(folder):
        lm = load_language_model(source, device=device)
        model = _with_head(lm.model.base_model, lm.model.config, _pad_id(lm))
        _start_head(model, seed)
        return Classifier(model, CausalPair(replace(lm, model=model)), lm.tokenizer)
    trunk, tokenizer = load_model(folder, "encoder", device), load_tokenizer(folder)
    model = _with_head(trunk, trunk.config, trunk.config.pad_token_id)
    _start_head(model, seed)
    return Classifier(model, EncoderPair(tokenizer, encoder_context(trunk, tokenizer)), tokenizer)


def load_classifier(folder: Path, end_ids: Sequence[int], device: str | None = None) -> Classifier:
    """A classifier as `Classifier.save` wrote it. `end_ids`: those of its causal trunk, none for an encoder."""
    require_architecture(read_config(folder), "classifier", folder)
    require_safetensors(folder)
    tokenizer = load_tokenizer(folder)
    try:
        model = AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=torch.float32, trust_remote_code=False, local_files_only=True, use_safetensors=True
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"could not load the reward model in {folder}: {error}") from error
    model = model.to(device or hardware.best_device()).eval()
    if end_ids:
        lm = LanguageModel(model, tokenizer, tuple(end_ids), model.config.max_position_embeddings, str(folder))
        return Classifier(model, CausalPair(lm), tokenizer)
    return Classifier(model, EncoderPair(tokenizer, encoder_context(model, tokenizer)), tokenizer)


def _with_head(trunk: Any, config: Any, pad_id: int) -> Any:
    labels = {"id2label": {0: "reward"}, "label2id": {"reward": 0}, "pad_token_id": pad_id}
    config = type(config).from_dict(config.to_dict() | labels)
    try:
        with torch.random.fork_rng(devices=[]):  # random weights that are replaced below: nobody's seed
            model = AutoModelForSequenceClassification.from_config(config)
    except ValueError as error:
        raise ModelError(
            f"transformers has no sequence classifier for {config.model_type!r}; take a causal model "
            "such as Llama or GPT-2, or an encoder such as BERT"
        ) from error
    missing, _ = model.base_model.load_state_dict(trunk.state_dict(), strict=False)
    if missing:
        raise ModelError(f"the trunk lacks {len(missing)} tensors of a classifier, first {missing[0]}")
    return model.to(trunk.device, torch.float32).eval()


def _start_head(model: Any, seed: int) -> None:
    """New layers on top of the trunk: normal(0, 0.02), biases 0, by the seed alone."""
    generator = torch.Generator().manual_seed(seed)
    trunk = {id(parameter) for parameter in model.base_model.parameters()}
    fresh = [parameter for parameter in model.parameters() if id(parameter) not in trunk]
    with torch.no_grad():
        for parameter in fresh:
            deviation = 0.02 if parameter.ndim > 1 else 0.0
            parameter.copy_(deviation * torch.randn(parameter.shape, generator=generator))


def _pad_id(lm: LanguageModel) -> int:
    """Any id but an end token: plain transformers reads at the last token that is not padding."""
    for token in (lm.tokenizer.pad_token_id, lm.tokenizer.unk_token_id):
        if token is not None and token not in lm.end_ids:
            return int(token)
    return next(token for token in range(len(lm.end_ids) + 1) if token not in lm.end_ids)
