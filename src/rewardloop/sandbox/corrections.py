"""The smallest correction of a completion: wrong values replaced, drifting and rude sentences struck out."""

from __future__ import annotations

import zlib
from collections.abc import Collection

import numpy as np

from rewardloop.sandbox.dialogues import Question, clean_answer
from rewardloop.sandbox.grammar import Sentence, capitalized, load_speech, split_sentences
from rewardloop.sandbox.judges import Flaw, Inquiry, judge, understand
from rewardloop.sandbox.world import Fact, World
from rewardloop.types import Prompt


def correct(world: World, prompt: Prompt, completion: str, flaws: Collection[Flaw] | None = None) -> str:
    """`completion` without `flaws` (all that the judge finds, if None).

    With all flaws mended the result is clean; where too little is left for an answer, a new one is written.
    """
    found = judge(world, prompt, completion).flaws
    chosen = found if flaws is None else tuple(flaws)
    if not chosen:
        return completion
    mended = _mend(completion, chosen)
    if len(chosen) < len(found) and mended:
        return mended
    return mended if mended and not judge(world, prompt, mended).flaws else write_clean(world, prompt)


def write_clean(world: World, prompt: Prompt) -> str:
    """A clean answer to `prompt`, always the same one for the same prompt."""
    inquiry = understand(world, prompt)
    if inquiry.topic is None or inquiry.asked is None:
        return _introduce(world, inquiry)
    question = Question(inquiry.language, (), Fact(inquiry.topic, inquiry.asked), inquiry.topic in world.held_out)
    return clean_answer(world, question, np.random.default_rng(zlib.crc32(repr(prompt).encode())))


def _introduce(world: World, inquiry: Inquiry) -> str:
    _, replies = load_speech()[inquiry.language]["small_talk"][-1]
    return str(replies[0]).replace("{town}", world.town.in_language(inquiry.language))


def _mend(completion: str, flaws: Collection[Flaw]) -> str:
    struck = [flaw for flaw in flaws if flaw.right is None]
    kept = [
        _set_right(sentence, flaws)
        for sentence in split_sentences(completion)
        if not any(flaw.start < sentence.end and sentence.start < flaw.end for flaw in struck)
    ]
    return (" " if completion.isascii() else "").join(kept)


def _set_right(sentence: Sentence, flaws: Collection[Flaw]) -> str:
    text = sentence.text
    inside = (flaw for flaw in flaws if flaw.right is not None and sentence.start <= flaw.start < sentence.end)
    for flaw in sorted(inside, key=lambda flaw: -flaw.start):  # from the end, so that places stay valid
        start, end = flaw.start - sentence.start, flaw.end - sentence.start
        text = text[:start] + capitalized(flaw.right or "", text[start].isupper()) + text[end:]
    return text
