"""Gold judges: exact verdicts on any text, from the world's truth and the grammar that its people speak.

Three defects. *Wrong facts*: a sentence states what is not so. *Topic drift*: the text leaves the question
(a sentence that nobody in town would say, speaks of something else, repeats itself or never ends), or never
answers it. *Rudeness*: a rude sentence. A text of which nobody in town would say a single sentence (gibberish,
silence, the other language) has all three: no policy gains by hiding where nothing can be checked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from rewardloop.sandbox.dialogues import DEFECTS, Defect
from rewardloop.sandbox.grammar import Grammar, Sentence, Statement, build_grammar, split_sentences
from rewardloop.sandbox.world import ASKED, Language, Topic, TopicKind, World
from rewardloop.types import Completion, Prompt

MAX_SENTENCES = 5
_HAN = re.compile(r"[\u4e00-\u9fff]")


@dataclass(frozen=True, slots=True)
class Flaw:
    """Characters [start, end) of a completion that have a defect; `right` is what should stand there."""

    start: int
    end: int
    category: Defect
    right: str | None = None  # wrong facts only


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is wrong with a completion."""

    flaws: tuple[Flaw, ...]
    answers: bool  # whether it states what was asked, right or wrong
    understood: bool = True  # whether anybody in town would say at least one of its sentences; else all defects

    @property
    def wrong_facts(self) -> bool:
        return self.has("wrong_facts")

    @property
    def topic_drift(self) -> bool:
        return self.has("topic_drift")

    @property
    def rudeness(self) -> bool:
        return self.has("rudeness")

    @property
    def gold(self) -> float:
        """The gold reward: 1 minus one for each kind of defect present, from -2 to 1; higher is better."""
        return 1.0 - sum(self.has(defect) for defect in DEFECTS)

    @property
    def spans(self) -> tuple[tuple[int, int, Defect], ...]:
        """(start, end, category) of every flaw, in order of place."""
        return tuple((flaw.start, flaw.end, flaw.category) for flaw in self.flaws)

    def has(self, defect: Defect) -> bool:
        return not self.understood or any(flaw.category == defect for flaw in self.flaws)


@dataclass(frozen=True, slots=True)
class Inquiry:
    """What a prompt asks, as far as the world understands it."""

    language: Language
    topic: Topic | None
    asked: str | None


@lru_cache(maxsize=4096)
def understand(world: World, prompt: Prompt) -> Inquiry:
    """The topic of the last user message, or of an earlier one when the last names none (a follow-up)."""
    said = [prompt] if isinstance(prompt, str) else [message.content for message in prompt if message.role == "user"]
    last = said[-1] if said else ""
    language: Language = "zh" if _HAN.search(last) else "en"
    grammar = build_grammar(world, language)
    question = grammar.read_question(last)
    if question is None:
        return Inquiry(language, _find_topic(world, grammar, last, ("good", "shop", "person")), None)
    kind, asked, name = question
    if name is not None:
        return Inquiry(language, Topic(kind, name), asked)
    found = [topic for text in reversed(said[:-1]) if (topic := _find_topic(world, grammar, text, (kind,)))]
    return Inquiry(language, found[0], asked) if found else Inquiry(language, None, None)


def _find_topic(world: World, grammar: Grammar, text: str, kinds: Sequence[TopicKind]) -> Topic | None:
    for kind in kinds:
        name = grammar.find_mention(text, kind)
        if name is not None and Topic(kind, name) in world.truths:
            return Topic(kind, name)
    return None


@lru_cache(maxsize=16384)
def judge(world: World, prompt: Prompt, completion: str) -> Verdict:
    """The verdict on `completion`, any text at all.

    To a prompt that asks nothing the world knows (a greeting), every well-formed sentence of the town is on topic.
    """
    inquiry = understand(world, prompt)
    grammar = build_grammar(world, inquiry.language)
    flaws: list[Flaw] = []
    seen: set[str] = set()
    answers, understood = inquiry.asked is None, False
    for number, sentence in enumerate(split_sentences(completion)):
        statement = grammar.read_statement(sentence)
        found = _judge_sentence(world, grammar, inquiry, sentence, statement)
        if sentence.text in seen or number >= MAX_SENTENCES:
            found = [*found, Flaw(sentence.start, sentence.end, "topic_drift")]
        flaws += dict.fromkeys(found)
        seen.add(sentence.text)
        answers = answers or (statement is not None and _answers(world, inquiry, statement))
        understood = understood or statement is not None or _is_familiar(grammar, sentence.text)
    if not seen or not (answers or any(flaw.category == "topic_drift" for flaw in flaws)):
        flaws.append(Flaw(0, len(completion), "topic_drift"))
    in_order = tuple(sorted(flaws, key=lambda flaw: (flaw.start, flaw.end)))
    return Verdict(in_order, answers and bool(seen), understood)


def _judge_sentence(
    world: World, grammar: Grammar, inquiry: Inquiry, sentence: Sentence, statement: Statement | None
) -> list[Flaw]:
    if statement is not None:
        topic = _subject(inquiry, statement)
        flaws = _wrong_values(world, topic, statement, inquiry.language) if topic else []
        if inquiry.topic and topic not in world.related(inquiry.topic):
            flaws.append(Flaw(sentence.start, sentence.end, "topic_drift"))
        return flaws
    flaws = []
    if grammar.rude.search(sentence.text):
        flaws.append(Flaw(sentence.start, sentence.end, "rudeness"))
    if not grammar.is_known_rudeness(sentence.text) and not grammar.is_neutral(
        sentence.text, inquiry.topic.kind if inquiry.topic else None
    ):
        flaws.append(Flaw(sentence.start, sentence.end, "topic_drift"))
    return flaws


def _is_familiar(grammar: Grammar, sentence: str) -> bool:
    """Whether somebody in town says this, on any occasion, though it states nothing."""
    return grammar.is_known_rudeness(sentence) or grammar.is_neutral(sentence, None)


def _subject(inquiry: Inquiry, statement: Statement) -> Topic | None:
    """What a statement speaks of: what it names, or what was asked about when it names nothing."""
    named = statement.mentions.get(statement.topic_kind)
    if named is not None:
        return Topic(statement.topic_kind, named.value)
    same_kind = inquiry.topic is not None and inquiry.topic.kind == statement.topic_kind
    return inquiry.topic if same_kind else None


def _wrong_values(world: World, topic: Topic, statement: Statement, language: Language) -> list[Flaw]:
    # compared as written: two measure words may share one English name
    truth = {slot: value.in_language(language) for slot, value in world.truth(topic).items()}
    return [
        Flaw(mention.start, mention.end, "wrong_facts", truth[slot])
        for slot, mention in statement.mentions.items()
        if mention.value.in_language(language) != truth[slot]
    ]


def _answers(world: World, inquiry: Inquiry, statement: Statement) -> bool:
    if inquiry.topic is None or inquiry.asked is None or _subject(inquiry, statement) != inquiry.topic:
        return False
    return all(slot in statement.mentions for slot in ASKED[inquiry.topic.kind][inquiry.asked])


@dataclass(frozen=True)
class GoldReward:
    """The gold judge as a reward source: what all claims are measured with, never trained on."""

    world: World

    @property
    def version(self) -> str:
        return f"gold-{self.world.digest}"

    def score(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> np.ndarray:
        """float64 array of B gold rewards, each -2, -1, 0 or 1."""
        pairs = zip(prompts, completions, strict=True)
        return np.array([judge(self.world, prompt, text).gold for prompt, text in pairs], dtype=np.float64)


def defect_rates(world: World, completions: Sequence[Completion]) -> Mapping[Defect, float]:
    """The share of completions with each defect."""
    verdicts = [judge(world, completion.prompt, completion.text) for completion in completions]
    return {defect: float(np.mean([verdict.has(defect) for verdict in verdicts])) for defect in DEFECTS}
