"""Do the names and numbers of an answer come from its source?"""

from __future__ import annotations

import re
from typing import Final

from rewardloop.evaluate.texts import split_sentences
from rewardloop.types import Prompt

_DIGITS: Final = re.compile(r"\d+(?:[.,:]\d+)*")
_CHINESE_NUMBERS: Final = re.compile(r"[〇零一二两三四五六七八九十百千万亿]{2,}")
_TITLES: Final = re.compile(r"《([^》]+)》")
_WORDS: Final = re.compile("[A-Za-zÀ-ɏ]+")
_NAMES: Final = re.compile("(?<![A-Za-zÀ-ɏ])[A-ZÀ-Þ][A-Za-zÀ-ɏ]+")


def claims(text: str) -> list[str]:
    """The numbers, names and titles in `text` that a source must have, as they are compared.

    Names are words with a capital letter inside a sentence; the first word of a sentence has one anyhow and is
    left out. Chinese writes names like other words: there, only numbers, titles and Latin names are found.
    """
    found = [match.group().replace(",", "") for match in _DIGITS.finditer(text)]
    found += [match.group() for match in _CHINESE_NUMBERS.finditer(text)]
    found += [match.group(1) for match in _TITLES.finditer(text)]
    for sentence in split_sentences(text):
        first = re.match(r"[\W_]*[A-Za-zÀ-ɏ]+", sentence)
        found += [match.group().lower() for match in _NAMES.finditer(sentence, first.end() if first else 0)]
    return found


def unsupported(text: str, source: str) -> float:
    """Share of the claims of `text` that `source` does not have, in [0, 1]; 0 where it claims nothing.

    Finds an invented name or number, and no other kind of error: see docs/evaluation.md for how much of what
    people call wrong that is.
    """
    wanted = claims(text)
    if not wanted:
        return 0.0
    words = set(_WORDS.findall(source.lower()))
    numbers = {match.group().replace(",", "") for match in _DIGITS.finditer(source)}
    had = sum(claim in words or claim in numbers or (not claim.isascii() and claim in source) for claim in wanted)
    return 1 - had / len(wanted)


def prompt_text(prompt: Prompt) -> str:
    """All that the prompt says, as one text."""
    return prompt if isinstance(prompt, str) else "\n".join(message.content for message in prompt)
