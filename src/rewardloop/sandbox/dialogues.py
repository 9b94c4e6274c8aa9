"""What people ask in the town and how it is answered, with each of three defects at a known rate.

Training prompts, held-out prompts and pretraining text are written from the same sentences; training prompts ask
about training facts, held-out prompts about held-out facts, and no prompt of one side names a fact of the other.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from rewardloop.sandbox.grammar import capitalized, fill, load_speech, template_slots
from rewardloop.sandbox.world import ASKED, LANGUAGES, Fact, Language, World
from rewardloop.types import Message, Prompt

Defect = Literal["wrong_facts", "topic_drift", "rudeness"]
DEFECTS: tuple[Defect, ...] = ("wrong_facts", "topic_drift", "rudeness")
# What the text of the built-in model is written with; every defect is drawn on its own.
BASE_RATES: Mapping[Defect, float] = {"wrong_facts": 0.3, "topic_drift": 0.3, "rudeness": 0.3}
CLEAN: Mapping[Defect, float] = dict.fromkeys(DEFECTS, 0.0)

# People who guess say so: the share of right and of wrong answers that open unsurely. Uncertainty that shows is what
# a model can learn to heed on facts that nobody corrected.
_UNSURE_WHEN_RIGHT, _UNSURE_WHEN_WRONG = 0.08, 0.7
_OPENER_SHARE, _CLOSER_SHARE, _DRIFT_FIRST_SHARE = 0.4, 0.35, 0.2
_TRAINING_PHRASINGS = 2  # direct questions of each training fact and language


@dataclass(frozen=True, slots=True)
class Question:
    """A question of the world, alone or as the second of two turns."""

    language: Language
    prompt: tuple[Message, ...]
    fact: Fact
    held_out: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """A written answer and the defects that were put in."""

    text: str
    defects: frozenset[Defect]


# ---------------------------------------------------------------- questions


def training_questions(world: World) -> tuple[Question, ...]:
    """Two direct questions and one follow-up for each training fact and language."""
    return _ask_about(world, world.facts(held_out=False), _TRAINING_PHRASINGS)


def held_out_questions(world: World) -> tuple[Question, ...]:
    """One direct question and one follow-up for each held-out fact and language."""
    return _ask_about(world, world.facts(held_out=True), 1)


def training_prompts(world: World) -> tuple[Prompt, ...]:
    """Prompts to learn on."""
    return tuple(question.prompt for question in training_questions(world))


def held_out_prompts(world: World) -> tuple[Prompt, ...]:
    """Prompts to measure on, about facts that no training prompt asks for."""
    return tuple(question.prompt for question in held_out_questions(world))


def all_questions(world: World) -> tuple[Question, ...]:
    """Every question that can be asked, in every phrasing, on both sides of the split."""
    return _ask_about(world, world.facts(), None)


def _ask_about(world: World, facts: Sequence[Fact], phrasings: int | None) -> tuple[Question, ...]:
    questions = []
    for fact in facts:
        for language in LANGUAGES:
            # each fact begins at a phrasing of its own, so that a few phrasings for each still cover all of them
            start = _stable_number(world.seed, language, fact)
            conversations = [
                *_rotated(_direct_questions(world, fact, language), start)[:phrasings],
                *_rotated(_follow_ups(world, fact, language), start)[: 1 if phrasings else None],
            ]
            held_out = fact.topic in world.held_out
            questions += [Question(language, prompt, fact, held_out) for prompt in conversations]
    return tuple(questions)


def _direct_questions(world: World, fact: Fact, language: Language) -> list[tuple[Message, ...]]:
    templates = load_speech()[language]["questions"][fact.topic.kind][fact.asked]
    return [(Message("user", fill(template, world.truth(fact.topic), language)),) for template in templates]


def _follow_ups(world: World, fact: Fact, language: Language) -> list[tuple[Message, ...]]:
    """Another question about the same topic, its true answer, then what is asked."""
    speech, truth = load_speech()[language], world.truth(fact.topic)
    others = [asked for asked in ASKED[fact.topic.kind] if asked != fact.asked]
    prompts = []
    for number, follow_up in enumerate(speech["follow_ups"][fact.topic.kind][fact.asked]):
        other = others[(number + _stable_number(world.seed, language, fact)) % len(others)]
        first = speech["questions"][fact.topic.kind][other][number]
        answers = _silent_on(speech["answers"][fact.topic.kind][other], ASKED[fact.topic.kind][fact.asked])
        reply = answers[_stable_number(number, language, fact) % len(answers)]
        said = (fill(first, truth, language), fill(reply, truth, language), follow_up)
        roles: tuple[Literal["user", "assistant"], ...] = ("user", "assistant", "user")
        prompts.append(tuple(Message(role, text) for role, text in zip(roles, said, strict=True)))
    return prompts


def _silent_on(templates: Sequence[str], slots: Sequence[str]) -> list[str]:
    """The templates that do not give away `slots`, else all."""
    silent = [template for template in templates if not set(template_slots(template)) & set(slots)]
    return silent or list(templates)


def _rotated(items: list[Any], start: int) -> list[Any]:
    start %= max(len(items), 1)
    return items[start:] + items[:start]


def _stable_number(*parts: object) -> int:
    return zlib.crc32(repr(parts).encode())


# ---------------------------------------------------------------- answers


def answer(
    world: World, question: Question, rng: np.random.Generator, rates: Mapping[Defect, float] = BASE_RATES
) -> Answer:
    """An answer to `question`; each defect is put in with its rate, independently of the others."""
    defects = frozenset(defect for defect in DEFECTS if rng.random() < rates[defect])
    speech = load_speech()[question.language]
    core = _state_fact(world, question, rng, wrong="wrong_facts" in defects)
    sentences = [*_open(speech, rng, wrong="wrong_facts" in defects), core]
    if "topic_drift" in defects:
        place = 0 if rng.random() < _DRIFT_FIRST_SHARE else len(sentences)
        sentences.insert(place, _drift(speech, rng))
    elif rng.random() < _CLOSER_SHARE:
        sentences.append(_choose(rng, speech["closers"][question.fact.topic.kind]))
    return Answer(_join(_with_rudeness(sentences, speech, rng, "rudeness" in defects), question.language), defects)


def small_talk(
    world: World, language: Language, rng: np.random.Generator, rates: Mapping[Defect, float] = BASE_RATES
) -> tuple[tuple[Message, ...], Answer]:
    """A greeting or the like and a reply to it; it can drift or be rude, but states no fact."""
    speech = load_speech()[language]
    asked, replies = _choose(rng, speech["small_talk"])
    defects = frozenset(defect for defect in DEFECTS[1:] if rng.random() < rates[defect])
    sentences = [_choose(rng, replies).replace("{town}", world.town.in_language(language))]
    if "topic_drift" in defects:
        sentences.append(_drift(speech, rng))
    text = _join(_with_rudeness(sentences, speech, rng, "rudeness" in defects), language)
    return (Message("user", _choose(rng, asked)),), Answer(text, defects)


def _state_fact(world: World, question: Question, rng: np.random.Generator, *, wrong: bool) -> str:
    fact, truth = question.fact, world.truth(question.fact.topic)
    template = _choose(rng, load_speech()[question.language]["answers"][fact.topic.kind][fact.asked])
    values = dict(truth)
    if wrong:
        claimed = [slot for slot in template_slots(template) if slot not in (fact.topic.kind, "unit")]
        slot = _choose(rng, claimed)
        values[slot] = _choose(rng, [value for value in world.domains[slot] if value != truth[slot]])
    return fill(template, values, question.language)


def _open(speech: Any, rng: np.random.Generator, *, wrong: bool) -> list[str]:
    if rng.random() < (_UNSURE_WHEN_WRONG if wrong else _UNSURE_WHEN_RIGHT):
        return [_choose(rng, speech["unsure_openers"])]
    return [_choose(rng, speech["openers"])] if rng.random() < _OPENER_SHARE else []


def _drift(speech: Any, rng: np.random.Generator) -> str:
    drift = speech["drift"]
    parts = {"link": "links", "who": "who", "does": "does", "end": "ends"}
    chosen = {slot: _choose(rng, drift[pool]) for slot, pool in parts.items()}
    return capitalized(str(drift["sentence"]).format(**chosen))


def _with_rudeness(sentences: list[str], speech: Any, rng: np.random.Generator, wanted: bool) -> list[str]:
    if not wanted:
        return sentences
    rude = speech["rude"]
    if rng.random() < 0.5:
        words = {"lead": "leads", "adjective": "adjectives", "noun": "nouns"}
        said = rude["address"].format(**{slot: _choose(rng, rude[pool]) for slot, pool in words.items()})
    else:
        said = _choose(rng, rude["sentences"])
    return [said, *sentences] if rng.random() < 0.5 else [*sentences, said]


def _choose(rng: np.random.Generator, items: Sequence[Any]) -> Any:
    return items[int(rng.integers(len(items)))]


def _join(sentences: Sequence[str], language: Language) -> str:
    return (" " if language == "en" else "").join(sentences)


def clean_answer(world: World, question: Question, rng: np.random.Generator) -> str:
    """An answer without any defect."""
    return answer(world, question, rng, CLEAN).text
