"""A causal language model with its tokenizer: texts in, token ids out, and back, in any language."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rewardloop.errors import ModelError
from rewardloop.models.chat import render_conversation
from rewardloop.models.loading import (
    load_model,
    load_tokenizer,
    read_config,
    read_json,
    resolve_folder,
    save_model,
)
from rewardloop.types import Prompt

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

UNFINISHED = "\N{REPLACEMENT CHARACTER}"  # what decoders show for bytes that are no whole character


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A policy or a reference. Token ids here never hold padding."""

    model: PreTrainedModel  # float32, evaluation mode
    tokenizer: PreTrainedTokenizerBase
    end_ids: tuple[int, ...]  # the model's real end tokens; the first one ends a completion given as text
    context: int  # most positions: prompt and completion together
    name: str

    @property
    def device(self) -> torch.device:
        device: torch.device = self.model.device
        return device

    def encode_prompt(self, prompt: Prompt) -> tuple[int, ...]:
        """Token ids of a text to be continued as it stands, or of a conversation by the chat template.

        Raises ModelError where it leaves no room for a completion in the context.
        """
        text, add_special = (prompt, True) if isinstance(prompt, str) else render_conversation(self.tokenizer, prompt)
        ids = self._encode(text, add_special=add_special)
        # some tokenizers close every text with an end token, which would end the completion before it began
        while len(ids) > 1 and ids[-1] in self.end_ids:
            ids = ids[:-1]
        ids = ids or (self._start_id,)
        if len(ids) > self.context - 1:
            raise ModelError(
                f"the prompt has {len(ids)} tokens, and {self.name} has room for {self.context} with the "
                "completion; shorten the prompt or take a model with a longer context"
            )
        return ids

    def encode_completion(self, text: str) -> tuple[int, ...]:
        """Token ids of a completion, end token included; `decode` gives the text back where it can."""
        return (*self._encode_continuation(text), self.end_ids[0])

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of completion tokens as it follows the prompt: a first space stays, end tokens do not."""
        return self._decode_after_anchor([token for token in token_ids if token not in self.end_ids])

    def token_offsets(self, token_ids: Sequence[int]) -> list[tuple[int, int]]:
        """Characters [start, end) of each token in `decode(token_ids)`; starts and ends never fall.

        Tokens that hold parts of one character (bytes of a Chinese sign, say) share its span; an end token,
        which nothing follows, has an empty one. Linear time where the tokenizer decodes tokens independently of
        their neighbors.
        """
        kept = [token for token in token_ids if token not in self.end_ids]
        spans = iter(self._offsets(kept))
        offsets: list[tuple[int, int]] = []
        for token in token_ids:
            at = offsets[-1][1] if offsets else 0
            offsets.append((at, at) if token in self.end_ids else next(spans))
        return offsets

    def _offsets(self, ids: list[int]) -> list[tuple[int, int]]:
        groups, texts = self._whole_groups(ids)
        full = self._decode_after_anchor(ids)
        if "".join(texts) != full:
            groups, texts = [ids], [full]
        starts = accumulate((len(text) for text in texts), initial=0)
        return [
            (at + start, at + end)
            for at, group, text in zip(starts, groups, texts, strict=False)
            for start, end in self._group_offsets(group, text)
        ]

    def _whole_groups(self, ids: list[int]) -> tuple[list[list[int]], list[str]]:
        """Tokens grouped so that each group decodes to whole characters, with the text of each group."""
        groups: list[list[int]] = []
        texts: list[str] = []
        whole = True
        for token in ids:
            if whole:
                groups.append([token])
                texts.append(self._piece(token))
            else:
                groups[-1].append(token)
                texts[-1] = self._decode_after_anchor(groups[-1])
            whole = UNFINISHED not in texts[-1]
        return groups, texts

    def _group_offsets(self, ids: list[int], text: str) -> list[tuple[int, int]]:
        """Offsets inside one group, by decoding every prefix of it."""
        if len(ids) == 1:
            return [(0, len(text))]
        prefixes = [self._decode_after_anchor(ids[:end]) for end in range(1, len(ids))] + [text]
        settled = [_common_length(prefix, text) for prefix in prefixes]
        # a later token may turn what looked settled into something else: what holds is the least from here on
        settled = list(accumulate(reversed(settled), min))[::-1]
        ends = [min(at + (len(prefix) > at), len(text)) for prefix, at in zip(prefixes, settled, strict=True)]
        ends = list(accumulate(ends, max))
        return [(start, max(start, end)) for (start, _), end in zip(pairwise([0, *settled]), ends, strict=True)]

    def _piece(self, token: int) -> str:
        piece = self._pieces.get(token)
        if piece is None:
            piece = self._pieces[token] = self._decode_after_anchor([token])
        return piece

    @cached_property
    def _pieces(self) -> dict[int, str]:
        return {}

    @cached_property
    def _anchor(self) -> tuple[int, str]:
        """An ordinary token and its text. Put before a completion, it keeps SentencePiece's first space."""
        token = next(token for token in self._encode("a", add_special=False) if token not in self.end_ids)
        return token, self._decode([token])

    @cached_property
    def _start_id(self) -> int:
        start = self.tokenizer.bos_token_id
        return self.end_ids[0] if start is None else int(start)

    def _decode_after_anchor(self, ids: list[int]) -> str:
        token, head = self._anchor
        text = self._decode([token, *ids])
        return text[len(head) :] if text.startswith(head) else self._decode(ids)

    def _decode(self, ids: list[int]) -> str:
        # special tokens other than the end are shown: nothing a policy says is hidden from its judges
        return str(self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def _encode(self, text: str, *, add_special: bool) -> tuple[int, ...]:
        ids = tuple(self.tokenizer(text, add_special_tokens=add_special, verbose=False)["input_ids"])
        if max(ids, default=0) >= self.model.config.vocab_size:
            token = self.tokenizer.convert_ids_to_tokens(max(ids))
            raise ModelError(f"the text has the token {token!r}, which {self.name} was not made for; remove it")
        return ids

    def _encode_continuation(self, text: str) -> tuple[int, ...]:
        """Ids that decode to `text`, where there are any.

        SentencePiece puts a space before every text it encodes; so the text goes in after a line break, whose
        tokens are dropped.
        """
        plain = self._encode(text, add_special=False)
        if self.decode(plain) == text:
            return plain
        line = self._encode("\n", add_special=False)
        after = self._encode("\n" + text, add_special=False)
        if after[: len(line)] == line and self.decode(after[len(line) :]) == text:
            return after[len(line) :]
        return plain


def load_language_model(source: str | Path, *, device: str | None = None) -> LanguageModel:
    """Load a causal language model from a folder or a hub id: safetensors, no remote code, float32.

    `device` None takes a CUDA device where there is one. Raises ModelError, one line: what was given, what
    was expected, what to do.
    """
    folder = resolve_folder(source)
    model = load_model(folder, "causal", device)
    tokenizer = load_tokenizer(folder)
    if tokenizer.vocab_size > model.config.vocab_size:
        raise ModelError(
            f"the tokenizer in {folder} has {tokenizer.vocab_size} tokens, the model {model.config.vocab_size}; "
            "they do not belong together"
        )
    return LanguageModel(model, tokenizer, _end_ids(model, tokenizer, folder), _context(model, folder), str(source))


def save_language_model(lm: LanguageModel, folder: Path) -> None:
    """Write a plain Hugging Face folder (safetensors), whole or not at all. Raises StoreError."""
    save_model(lm.model, lm.tokenizer, Path(folder))


def freeze_copy(lm: LanguageModel) -> LanguageModel:
    """The reference: a copy of the model that never learns."""
    model = copy.deepcopy(lm.model)
    model.requires_grad_(False)
    return replace(lm, model=model.eval())


def _end_ids(model: Any, tokenizer: Any, folder: Path) -> tuple[int, ...]:
    """Every end token that generation, model and tokenizer configuration name, the usual one first.

    A chat model ends a turn with the tokenizer's end token; for others the generation configuration knows
    best (a model may have been trained on texts joined by its *start* token).
    """
    configs = (read_json(folder / "generation_config.json"), read_config(folder))
    named = [tokenizer.eos_token_id] if tokenizer.chat_template else []
    # as the files say it: the classes of transformers fill in a default that no model was trained with
    for given in (*(config.get("eos_token_id") for config in configs), tokenizer.eos_token_id):
        named += given if isinstance(given, list) else [given]
    ids = dict.fromkeys(int(token) for token in named if token is not None and 0 <= token < model.config.vocab_size)
    if not ids:
        raise ModelError(
            f"no end token is named in {folder}: without one a completion never ends; set eos_token in "
            "tokenizer_config.json or eos_token_id in generation_config.json"
        )
    return tuple(ids)


def _context(model: Any, folder: Path) -> int:
    context = getattr(model.config, "max_position_embeddings", None)
    if not isinstance(context, int) or context < 2:
        raise ModelError(f"{folder}/config.json names no context length; max_position_embeddings is expected")
    return context


def _common_length(first: str, second: str) -> int:
    pairs = zip(first, second, strict=False)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))
