"""The town of the built-in model as tables, so that a person can tell a true answer from a false one."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import numpy as np

from rewardloop.sandbox.dialogues import training_questions
from rewardloop.sandbox.world import Language, Topic, World, build_world

QUESTIONS: Final = 24

_WORDS: Final = {
    "en": {
        "title": "The town of {town}",
        "shops": ("Shops", ("shop", "place", "opens", "closes", "keeper", "helper")),
        "goods": ("Goods and prices", ("goods", "coins", "sold at")),
        "people": ("People", ("person", "works at", "lives")),
    },
    "zh": {
        "title": "{town}小镇",
        "shops": ("店铺", ("店铺", "地点", "开门", "关门", "掌柜", "伙计")),
        "goods": ("货物与价钱", ("货物", "几枚铜钱", "哪里有卖")),
        "people": ("镇上的人", ("人", "在哪里做事", "住在哪里")),
    },
}
_SLOTS: Final = {
    "shops": ("shop", ("shop", "place", "open", "close", "keeper", "helper")),
    "goods": ("good", ("good", "price", "shop")),
    "people": ("person", ("person", "shop", "home")),
}


@lru_cache(maxsize=2)
def describe_town(language: Language) -> dict[str, Any]:
    """Title, tables, and questions that people of the town understand."""
    world, words = build_world(0), _WORDS[language]
    sections = [_section(world, language, name) for name in _SLOTS]
    title = str(words["title"]).format(town=world.town.in_language(language))
    return {"title": title, "sections": sections, "questions": _questions(world, language)}


def _section(world: World, language: Language, name: str) -> dict[str, Any]:
    kind, slots = _SLOTS[name]
    title, columns = _WORDS[language][name]
    topics = [topic for topic in world.truths if topic.kind == kind]
    rows = [_row(world, language, topic, slots) for topic in topics]
    return {"title": title, "columns": list(columns), "rows": rows}


def _row(world: World, language: Language, topic: Topic, slots: tuple[str, ...]) -> list[str]:
    truth = world.truth(topic)
    return [truth[slot].in_language(language) for slot in slots]


def _questions(world: World, language: Language) -> list[str]:
    """A few of many, the same at every start; single questions only."""
    asked = [q.prompt[0].content for q in training_questions(world) if q.language == language and len(q.prompt) == 1]
    order = np.random.default_rng(0).permutation(len(asked))
    return [asked[int(at)] for at in order[:QUESTIONS]]
