"""From marked characters to tokens: what corrections and marks say about each token of a completion.

The credit of a token looks at the whole text and at what people said of it afterwards: it may train the causal
potential, and is never used as a reward itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rewardloop.feedback.edits import Credit, edit_credit
from rewardloop.types import Dialogue, Edit, Feedback, Span


def text_credit(judgment: Feedback) -> tuple[Credit, ...]:
    """Marked characters of the judged completion: from a correction, a rewrite or a span; else nothing."""
    match judgment:
        case Edit(completion=completion, corrected=corrected):
            return edit_credit(completion, corrected)
        case Dialogue(completion=completion, rewrite=str(rewrite)):
            return edit_credit(completion, rewrite)
        case Span(start=start, end=end, severity=severity):
            return (Credit(start, end, severity),)
    return ()


def token_credit(credits: Sequence[Credit], offsets: Sequence[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """(values_T, weights_T), float32: for each token the mean credit of its characters, and their mean weight.

    `offsets`: [start, end) of each token in the completion. Tokens that share one split character share its credit;
    tokens without characters (the end token) and unmarked ones weigh 0.
    """
    size = max([end for _, end in offsets] + [credit.end for credit in credits], default=0)
    sums, weights = np.zeros(size + 1), np.zeros(size + 1)
    for credit in credits:
        sums[credit.start : credit.end] += credit.value * credit.weight
        weights[credit.start : credit.end] += credit.weight
    values_T = np.zeros(len(offsets), dtype=np.float32)
    weights_T = np.zeros(len(offsets), dtype=np.float32)
    for token, (start, end) in enumerate(offsets):
        weight = weights[start:end].sum()
        if weight > 0:
            values_T[token] = sums[start:end].sum() / weight
            weights_T[token] = weight / (end - start)
    return values_T, weights_T
