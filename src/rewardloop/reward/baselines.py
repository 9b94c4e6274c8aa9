"""What a reward model has to beat: the words of an answer, and its length."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from rewardloop.feedback.edits import split_pieces
from rewardloop.feedback.evidence import gather_evidence
from rewardloop.types import Feedback, Prompt

VOCABULARY = 3000
FEWEST_TEXTS = 4  # a word of fewer texts tells nothing about others


class BagOfWords:
    """log(1 + count) of the most frequent words (Chinese: characters and pairs of them) of the completion.

    An Extractor: `fit_head` on it is the bag-of-words baseline, fitted to the same judgments of every kind.
    """

    summaries = 0

    def __init__(self, feedback: Sequence[Feedback]) -> None:
        texts = Counter[str]()
        for _, completion in gather_evidence(feedback).texts:
            texts.update(set(_words(completion)))
        common = [word for word, count in texts.most_common(VOCABULARY) if count >= FEWEST_TEXTS]
        self._columns = {word: column for column, word in enumerate(sorted(common))}
        self.digest = f"words {len(self._columns)} {sorted(common)[:3]}"

    def features(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> Tensor:
        counts_BD = np.zeros((len(completions), max(len(self._columns), 1)), dtype=np.float32)
        for row, completion in enumerate(completions):
            for word, count in Counter(_words(completion)).items():
                if word in self._columns:
                    counts_BD[row, self._columns[word]] = np.log1p(count)
        return torch.from_numpy(counts_BD)


def longer_wins(firsts: Sequence[str], seconds: Sequence[str]) -> np.ndarray:
    """Difference of lengths in characters: the logits (up to a factor) of a judge who prefers the longer text."""
    return np.array([len(a) - len(b) for a, b in zip(firsts, seconds, strict=True)], dtype=np.float64)


def _words(text: str) -> list[str]:
    pieces = [piece.lower() for piece in split_pieces(text) if not piece.isspace()]
    chinese = [piece for piece in pieces if len(piece) == 1 and "\u3400" <= piece <= "\u9fff"]
    pairs = [a + b for a, b in pairwise(pieces)] if len(chinese) > len(pieces) / 3 else []
    return pieces + pairs
