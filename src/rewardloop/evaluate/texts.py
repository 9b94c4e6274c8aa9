"""Measures of plain text that need no model: repetition, variety, length. Any language.

Where a script writes no spaces between words (Chinese, Japanese), every character counts as a word.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from typing import Final

from rewardloop.feedback.edits import split_pieces

# A sentence ends at a mark (with what closes it) before a blank, at a Chinese mark, or at the end of a line.
_ENDS: Final = re.compile(r"(?<=[.!?])[\"'”’)\]]*\s+|(?<=[。！？；])[”’」』）]*|\n+")


def split_words(text: str) -> list[str]:
    """Words, unspaced characters and punctuation marks of `text`, in order, in lower case."""
    return [piece for piece in split_pieces(text.lower()) if not piece.isspace()]


def split_sentences(text: str) -> list[str]:
    """The sentences of `text`, without the blanks between them; English, Chinese, or any language with such marks."""
    starts = [0, *(found.end() for found in _ENDS.finditer(text))]
    pieces = (text[start:end].strip() for start, end in zip(starts, [*starts[1:], len(text)], strict=True))
    return [piece for piece in pieces if any(letter.isalnum() for letter in piece)]


def rep_n(text: str, n: int) -> float:
    """Share of n-grams that occurred before: 1 - distinct / all, in [0, 1); 0 for fewer than n words.

    Source: Welleck et al. 1908.04319, section 6 (seq-rep-n).
    """
    grams = _ngrams(split_words(text), n)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def distinct_n(texts: Sequence[str], n: int) -> float:
    """Share of different n-grams among all n-grams of `texts` together, in [0, 1]; 0 where there are none.

    Falls when a policy says the same thing to everybody. It falls with the amount of text as well: compare
    equally many texts of like length only. Source: Li et al. 1510.03055.
    """
    grams = [gram for text in texts for gram in _ngrams(split_words(text), n)]
    return len(set(grams)) / len(grams) if grams else 0.0


def compression_ratio(text: str) -> float:
    """Bytes of the UTF-8 text per byte after zlib, 0 for an empty text. Above 3 for a text that loops.

    Catches repetition at any distance and of any length. Short texts lie below 1: the header counts.
    """
    raw = text.encode()
    return len(raw) / len(zlib.compress(raw, 9)) if raw else 0.0


def _ngrams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(words[at : at + n]) for at in range(len(words) - n + 1)]
