"""How the town talks: filling sentences from the world, and reading sentences back into what they state.

The same templates (speech.yaml) write the answers and read them, so that the judges are exact.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

from rewardloop.config import load_yaml
from rewardloop.sandbox.world import Language, Name, TopicKind, World

_SLOT = re.compile(r"\{(\w+)\}")
# An English abbreviation does not end a sentence.
_BOUNDARY = re.compile(r"(?:(?<!\bMr)(?<!\bMrs)[.!?]+(?=\s|$)|[。！？]+)")


@dataclass(frozen=True, slots=True)
class Mention:
    """A value named in a text, and where."""

    value: Name
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Statement:
    """A sentence that states facts: its kind of topic, the question it answers, the values it names by slot."""

    topic_kind: TopicKind
    asked: str
    mentions: Mapping[str, Mention]


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence of a text with its place."""

    text: str
    start: int
    end: int


@lru_cache(maxsize=1)
def load_speech() -> Any:
    """speech.yaml: language -> ways to say things."""
    source = files("rewardloop.sandbox") / "speech.yaml"
    return load_yaml(source.read_text(encoding="utf-8"), "speech.yaml")


def template_slots(template: str) -> tuple[str, ...]:
    """The slots a template names, in lower case, in order."""
    return tuple(slot.lower() for slot in _SLOT.findall(template))


def fill(template: str, values: Mapping[str, Name], language: Language) -> str:
    """`template` with its slots filled; {Slot} capitalizes."""

    def surface(match: re.Match[str]) -> str:
        slot = match.group(1)
        return capitalized(values[slot.lower()].in_language(language), slot[0].isupper())

    return _SLOT.sub(surface, template)


def capitalized(text: str, wanted: bool = True) -> str:
    """`text` with a capital first letter if `wanted`; the rest as it is."""
    return text[:1].upper() + text[1:] if wanted else text


def split_sentences(text: str) -> Iterator[Sentence]:
    """The sentences of `text` without the white space between them; what follows the last mark is one too."""
    start = 0
    ends = [match.end() for match in _BOUNDARY.finditer(text)]
    for end in [*ends, len(text)]:
        piece = text[start:end]
        stripped = piece.strip()
        if stripped:
            offset = start + piece.index(stripped)
            yield Sentence(stripped, offset, offset + len(stripped))
        start = end


@dataclass(frozen=True, eq=False)
class Grammar:
    """The patterns of one language in one world."""

    language: Language
    questions: tuple[tuple[TopicKind, str, re.Pattern[str]], ...]
    follow_ups: tuple[tuple[TopicKind, str, re.Pattern[str]], ...]
    answers: tuple[tuple[TopicKind, str, re.Pattern[str]], ...]
    neutral: Mapping[str, frozenset[TopicKind]]  # sentence -> topics it suits; empty set = any
    rude: re.Pattern[str]  # found anywhere in a sentence, it makes the sentence rude
    rudeness: re.Pattern[str]  # whole sentences that are rude and nothing else
    surfaces: Mapping[str, Mapping[str, Name]]  # slot -> surface in lower case -> value

    def read_statement(self, sentence: Sentence) -> Statement | None:
        """What `sentence` states, or None when it is not a way to state a fact."""
        for kind, asked, pattern in self.answers:
            if match := pattern.fullmatch(sentence.text):
                return Statement(kind, asked, self._mentions(match, sentence.start))
        return None

    def read_question(self, text: str) -> tuple[TopicKind, str, Name | None] | None:
        """The kind of topic, what is asked, and the topic's name (None in a follow-up)."""
        for kind, asked, pattern in (*self.questions, *self.follow_ups):
            if match := pattern.fullmatch(text.strip()):
                named = match.groupdict().get(kind)
                return kind, asked, self.surfaces[kind][named.lower()] if named else None
        return None

    def is_neutral(self, sentence: str, kind: TopicKind | None) -> bool:
        """Whether it is a pleasantry that suits an answer about this kind of topic."""
        suits = self.neutral.get(sentence)
        return suits is not None and (not suits or kind is None or kind in suits)

    def is_known_rudeness(self, sentence: str) -> bool:
        """Whether it is one of the town's own rude sentences (rude, but no drift)."""
        return self.rudeness.fullmatch(sentence) is not None

    def find_mention(self, text: str, kind: TopicKind) -> Name | None:
        """The first value of that kind named anywhere in `text`."""
        lowered = text.lower()
        found = [(lowered.find(surface), -len(surface), name) for surface, name in self.surfaces[kind].items()]
        found = [entry for entry in found if entry[0] >= 0]
        return min(found, key=lambda entry: entry[:2])[2] if found else None

    def _mentions(self, match: re.Match[str], offset: int) -> dict[str, Mention]:
        return {
            slot: Mention(self.surfaces[slot][surface.lower()], offset + match.start(slot), offset + match.end(slot))
            for slot, surface in match.groupdict().items()
        }


@lru_cache(maxsize=16)
def build_grammar(world: World, language: Language) -> Grammar:
    """The patterns of `language` for the names of `world`."""
    speech = load_speech()[language]
    surfaces = {
        slot: {name.in_language(language).lower(): name for name in names} for slot, names in world.domains.items()
    }

    def compiled(tree: Any) -> tuple[tuple[TopicKind, str, re.Pattern[str]], ...]:
        return tuple(
            (kind, asked, _compile(template, surfaces))
            for kind, by_asked in tree.items()
            for asked, templates in by_asked.items()
            for template in templates
        )

    return Grammar(
        language=language,
        questions=compiled(speech["questions"]),
        follow_ups=compiled(speech["follow_ups"]),
        answers=compiled(speech["answers"]),
        neutral=_collect_neutral(speech, world.town.in_language(language)),
        rude=re.compile("|".join(f"(?:{word})" for word in speech["rude"]["words"]), re.IGNORECASE),
        rudeness=_compile_rudeness(speech["rude"]),
        surfaces=surfaces,
    )


def _compile(template: str, surfaces: Mapping[str, Mapping[str, Name]]) -> re.Pattern[str]:
    parts = _SLOT.split(template)  # literal, slot, literal, ...
    pattern = "".join(
        _one_of(part.lower(), surfaces[part.lower()]) if index % 2 else re.escape(part).replace(r"\ ", r"\s+")
        for index, part in enumerate(parts)
    )
    return re.compile(pattern, re.IGNORECASE)


def _one_of(slot: str, names: Mapping[str, Name]) -> str:
    longest_first = sorted(names, key=len, reverse=True)
    return f"(?P<{slot}>{'|'.join(map(re.escape, longest_first))})"


def _compile_rudeness(rude: Any) -> re.Pattern[str]:
    words = {"lead": rude["leads"], "adjective": rude["adjectives"], "noun": rude["nouns"]}
    parts = _SLOT.split(rude["address"])
    address = "".join(
        f"(?:{'|'.join(map(re.escape, words[part]))})" if index % 2 else re.escape(part)
        for index, part in enumerate(parts)
    )
    return re.compile("|".join([*map(re.escape, rude["sentences"]), address]), re.IGNORECASE)


def _collect_neutral(speech: Any, town: str) -> dict[str, frozenset[TopicKind]]:
    neutral: dict[str, frozenset[TopicKind]] = {}
    for sentence in (*speech["openers"], *speech["unsure_openers"]):
        neutral[sentence] = frozenset()
    for kind, sentences in speech["closers"].items():
        for sentence in sentences:
            neutral[sentence] = frozenset({kind})
    for _, replies in speech["small_talk"]:
        for reply in replies:
            for sentence in split_sentences(reply.replace("{town}", town)):
                neutral[sentence.text] = frozenset()
    return neutral
