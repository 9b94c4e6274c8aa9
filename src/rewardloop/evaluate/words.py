"""The words of reports, in English and Chinese; see words.yaml."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from importlib.resources import files

from rewardloop.config import load_yaml
from rewardloop.evaluate.report import Language

Words = Callable[[str], str]


@lru_cache(maxsize=2)
def load_words(language: Language) -> Words:
    """From a name (of a metric, of a heading) to its words in `language`; an unknown name is its own word."""
    table: dict[str, list[str]] = load_yaml(read_resource("words.yaml"), "words.yaml")
    column = 1 if language == "zh" else 0
    return lambda name: table[name][column] if name in table else name


@lru_cache(maxsize=4)
def read_resource(name: str) -> str:
    """The text of a file that lies beside this module."""
    return (files("rewardloop.evaluate") / name).read_text(encoding="utf-8")
