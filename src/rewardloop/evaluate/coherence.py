"""Does an answer stay with one thing? Drift as the distance between a part of a text and its rest."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from rewardloop.errors import ModelError
from rewardloop.evaluate.texts import split_words
from rewardloop.reward.features import EncoderFeatures, make_extractor

# A sentence ends at a mark (with what closes it) before a blank, at a Chinese mark, or at the end of a line.
_ENDS: Final = re.compile(r"(?<=[.!?])[\"'”’)\]]*\s+|(?<=[。！？；])[”’」』）]*|\n+")

FEWEST_WORDS: Final = 10  # words (Chinese: characters) and marks of a sentence that is compared by itself

EmbedSentences = Callable[[Sequence[str]], np.ndarray]  # [N, D]


def split_sentences(text: str) -> list[str]:
    """The sentences of `text`, without the blanks between them; English, Chinese, or any language with such marks."""
    starts = [0, *(found.end() for found in _ENDS.finditer(text))]
    pieces = (text[start:end].strip() for start, end in zip(starts, [*starts[1:], len(text)], strict=True))
    return [piece for piece in pieces if any(letter.isalnum() for letter in piece)]


def split_passages(text: str) -> list[str]:
    """The sentences of `text`; one of few words joins the one before it, or after it at the start.

    An exclamation has no topic of its own: left alone, an insult would count as drift.
    """
    passages: list[str] = []
    for sentence in split_sentences(text):
        if passages and min(len(split_words(sentence)), len(split_words(passages[-1]))) < FEWEST_WORDS:
            passages[-1] += f" {sentence}"
        else:
            passages.append(sentence)
    return passages


def coherence(embedded_ND: np.ndarray) -> float:
    """The least cosine between a run of sentences (at most half of them) and all others, in [-1, 1]; 1 for one.

    A sentence that belongs elsewhere, or an ending that has wandered off, is such a run. Whether the order of
    the sentences makes sense it cannot tell. Measured by defect injection, docs/evaluation.md.

    Args:
        embedded_ND: one row for each sentence in order, from an encoder in which like meanings have a high cosine.
    """
    lengths_N1 = np.linalg.norm(embedded_ND, axis=-1, keepdims=True)
    unit_ND = embedded_ND / np.maximum(lengths_N1, 1e-12)
    sums_N1D = np.concatenate([np.zeros_like(unit_ND[:1]), unit_ND.cumsum(0)])
    count, least = len(unit_ND), 1.0
    for size in range(1, count // 2 + 1):
        runs_KD = sums_N1D[size:] - sums_N1D[:-size]
        rests_KD = sums_N1D[-1] - runs_KD
        norms_K = np.linalg.norm(runs_KD, axis=-1) * np.linalg.norm(rests_KD, axis=-1)
        cosines_K = (runs_KD * rests_KD).sum(-1) / np.maximum(norms_K, 1e-12)
        least = min(least, float(cosines_K.min()))
    return least


def coherences(texts: Sequence[str], embed: EmbedSentences) -> np.ndarray:
    """`coherence` of each text, [B]."""
    split = [split_passages(text) for text in texts]
    embedded_ND = embed([sentence for sentences in split for sentence in sentences] or [""])
    ends_B = np.cumsum([len(sentences) for sentences in split])
    return np.array(
        [coherence(embedded_ND[end - len(sentences) : end]) for sentences, end in zip(split, ends_B, strict=True)]
    )


def load_sentence_encoder(source: str) -> EmbedSentences:
    """An encoder's mean hidden state of each sentence. Raises ModelError: not an encoder, or not loadable.

    It must have been trained so that like sentences have a high cosine (sentence-transformers such as MiniLM);
    a plain BERT has not.
    """
    encoder = make_extractor(source)
    if not isinstance(encoder, EncoderFeatures):
        raise ModelError(f"{source} is a causal language model; coherence needs a sentence encoder such as all-MiniLM")

    def embed(sentences: Sequence[str]) -> np.ndarray:
        features_ND: np.ndarray = encoder.features([""] * len(sentences), sentences).numpy()
        return features_ND[:, features_ND.shape[-1] // 2 :]  # the half that has read the sentence alone

    return embed
