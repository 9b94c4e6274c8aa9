"""The town: people, shops, goods, prices, hours and places, drawn from a seed, each with two names.

Everything that can be true or false is a slot of a topic: `world.truth(topic)["price"]`. Whole shops, with their
goods and people, are held out: no sentence about a training topic ever states a held-out fact.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any, Literal

import numpy as np

from rewardloop.config import load_yaml

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = ("en", "zh")
TopicKind = Literal["good", "shop", "person"]

SHOPS = 12
HELD_OUT_SHOPS = 3
GOODS_PER_SHOP = 4

_NUMBERS_IN_WORDS = (
    ("zero", "零"), ("one", "一"), ("two", "两"), ("three", "三"), ("four", "四"), ("five", "五"), ("six", "六"),
    ("seven", "七"), ("eight", "八"), ("nine", "九"), ("ten", "十"), ("eleven", "十一"), ("twelve", "十二"),
)  # fmt: skip
_NUMBERS = {"open": range(5, 11), "close": range(6, 12), "price": range(2, 13)}


@dataclass(frozen=True, slots=True)
class Name:
    """What a thing is called in each language; names are the values of all slots."""

    en: str
    zh: str

    def in_language(self, language: Language) -> str:
        return self.en if language == "en" else self.zh


@dataclass(frozen=True, slots=True)
class Topic:
    """Something one can ask about."""

    kind: TopicKind
    name: Name


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing to know: what is asked about a topic."""

    topic: Topic
    asked: str  # a key of ASKED[topic.kind]


# What can be asked about a topic, and the slots that an answer has to state.
ASKED: Mapping[TopicKind, Mapping[str, tuple[str, ...]]] = {
    "good": {"shop": ("shop",), "price": ("price",)},
    "shop": {"hours": ("open", "close"), "place": ("place",), "keeper": ("keeper",)},
    "person": {"shop": ("shop",), "home": ("home",)},
}


@dataclass(frozen=True, eq=False)
class World:
    """A town whose truth is known."""

    seed: int
    town: Name
    truths: Mapping[Topic, Mapping[str, Name]]  # slot -> true value, the topic itself included
    held_out: frozenset[Topic]
    domains: Mapping[str, tuple[Name, ...]]  # slot -> every value it can take

    @property
    def digest(self) -> str:
        """Changes whenever a fact does."""
        text = "|".join(f"{topic.name.en}:{slot}={value.en}" for topic, slot, value in self._statements())
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def facts(self, *, held_out: bool | None = None) -> tuple[Fact, ...]:
        """Every fact, or those of one side of the split."""
        topics = [topic for topic in self.truths if held_out is None or (topic in self.held_out) == held_out]
        return tuple(Fact(topic, asked) for topic in topics for asked in ASKED[topic.kind])

    def truth(self, topic: Topic) -> Mapping[str, Name]:
        """The true value of each slot of `topic`."""
        return self.truths[topic]

    def related(self, topic: Topic) -> frozenset[Topic]:
        """The topic itself, its shop, and who works there: what an answer may speak of without drifting."""
        truth = self.truths[topic]
        shop = Topic("shop", truth["shop"])
        people = (Topic("person", self.truths[shop][slot]) for slot in ("keeper", "helper"))
        return frozenset({topic, shop, *people})

    def _statements(self) -> Iterator[tuple[Topic, str, Name]]:
        for topic, truth in self.truths.items():
            for slot, value in truth.items():
                yield topic, slot, value


@lru_cache(maxsize=8)
def build_world(seed: int = 0) -> World:
    """The town of `seed`: 12 shops, 48 goods, 24 people, 180 facts; 3 shops with all theirs are held out."""
    rng = np.random.default_rng([seed, 0x70F])
    pools = _load_pools()
    shops = _pick(rng, pools["shops"], SHOPS)
    people = _draw_people(rng, pools, 2 * SHOPS)
    places = _names(_pick(rng, pools["places"], SHOPS))
    homes = _names(_pick(rng, pools["homes"], SHOPS))
    truths: dict[Topic, dict[str, Name]] = {}
    held_out: set[Topic] = set()
    for number, entry in enumerate(shops):
        shop = _describe_shop(rng, entry, (people[2 * number], people[2 * number + 1]), places[number])
        described = {Topic("shop", shop["shop"]): shop}
        described |= _describe_goods(rng, entry, shop)
        described |= _describe_people(rng, shop, homes)
        truths |= described
        if number >= SHOPS - HELD_OUT_SHOPS:
            held_out |= set(described)
    town = Name(*pools["towns"][int(rng.integers(len(pools["towns"])))])
    return World(seed, town, truths, frozenset(held_out), _collect_domains(truths, people))


def number_name(value: int) -> Name:
    """A number from 0 to 12 in words."""
    return Name(*_NUMBERS_IN_WORDS[value])


@lru_cache(maxsize=1)
def _load_pools() -> Any:
    source = files("rewardloop.sandbox") / "town.yaml"
    return load_yaml(source.read_text(encoding="utf-8"), "town.yaml")


def _pick(rng: np.random.Generator, pool: list[Any], count: int) -> list[Any]:
    return [pool[int(index)] for index in rng.choice(len(pool), size=count, replace=False)]


def _names(entries: list[list[str]]) -> list[Name]:
    return [Name(en, zh) for en, zh in entries]


def _draw_people(rng: np.random.Generator, pools: Any, count: int) -> list[Name]:
    people = []
    for en, zh in _pick(rng, pools["surnames"], count):
        title = pools["titles"][int(rng.integers(len(pools["titles"])))]
        people.append(Name(title[0].format(en), title[1].format(zh)))
    return people


def _draw_number(rng: np.random.Generator, slot: str) -> Name:
    return number_name(int(rng.choice(_NUMBERS[slot])))


def _describe_shop(rng: np.random.Generator, entry: Any, people: tuple[Name, Name], place: Name) -> dict[str, Name]:
    keeper, helper = people
    return {
        "shop": Name(*entry["names"][int(rng.integers(len(entry["names"])))]),
        "keeper": keeper,
        "helper": helper,
        "place": place,
        "open": _draw_number(rng, "open"),
        "close": _draw_number(rng, "close"),
    }


def _describe_goods(rng: np.random.Generator, entry: Any, shop: dict[str, Name]) -> dict[Topic, dict[str, Name]]:
    shared = {slot: shop[slot] for slot in ("shop", "keeper", "place")}
    described = {}
    for en, unit_en, zh, unit_zh in _pick(rng, entry["goods"], GOODS_PER_SHOP):
        good = Name(en, zh)
        own = {"good": good, "unit": Name(unit_en, unit_zh), "price": _draw_number(rng, "price")}
        described[Topic("good", good)] = own | shared
    return described


def _describe_people(
    rng: np.random.Generator, shop: dict[str, Name], homes: list[Name]
) -> dict[Topic, dict[str, Name]]:
    shared = {slot: shop[slot] for slot in ("shop", "place")}
    return {
        Topic("person", shop[slot]): {"person": shop[slot], "home": homes[int(rng.integers(len(homes)))]} | shared
        for slot in ("keeper", "helper")
    }


def _collect_domains(truths: Mapping[Topic, Mapping[str, Name]], people: list[Name]) -> dict[str, tuple[Name, ...]]:
    domains: dict[str, dict[Name, None]] = {}
    for truth in truths.values():
        for slot, value in truth.items():
            domains.setdefault(slot, {})[value] = None
    for slot in ("keeper", "helper", "person"):
        domains[slot] = dict.fromkeys(people)
    domains |= {slot: dict.fromkeys(map(number_name, values)) for slot, values in _NUMBERS.items()}
    return {slot: tuple(values) for slot, values in domains.items()}
