"""The town as the page shows it: its facts as tables, and what one may ask."""

from __future__ import annotations

import random
from typing import Any

from rewardloop.sandbox.world import Language, World


def questions(world: World, language: Language) -> list[str]:
    asked = []
    for topic in world.truths:
        name = topic.name.in_language(language)
        if topic.kind == "good":
            asked.append(f"How many coins for {name}?" if language == "en" else f"{name}多少钱？")
        elif topic.kind == "shop":
            asked.append(f"When does the {name} open?" if language == "en" else f"{name}几点开门？")
        else:
            asked.append(f"Where does {name} live?" if language == "en" else f"{name}住在哪里？")
    random.Random(3).shuffle(asked)
    return asked


def sections(world: World, language: Language) -> list[dict[str, Any]]:
    zh = language == "zh"
    layouts: dict[str, tuple[str, list[tuple[str, str]]]] = {
        "good": (
            "货物" if zh else "Goods",
            [
                ("good", "货物" if zh else "Good"),
                ("price", "价格" if zh else "Coins"),
                ("unit", "每" if zh else "For a"),
                ("shop", "店铺" if zh else "Shop"),
            ],
        ),
        "shop": (
            "店铺" if zh else "Shops",
            [
                ("shop", "店铺" if zh else "Shop"),
                ("open", "开门" if zh else "Opens"),
                ("close", "关门" if zh else "Closes"),
                ("place", "地点" if zh else "Place"),
                ("keeper", "店主" if zh else "Keeper"),
            ],
        ),
        "person": (
            "居民" if zh else "People",
            [
                ("person", "姓名" if zh else "Name"),
                ("shop", "店铺" if zh else "Works at"),
                ("home", "住处" if zh else "Lives"),
            ],
        ),
    }
    return [
        {
            "title": title,
            "columns": [column for _, column in slots],
            "rows": [
                [truth[slot].in_language(language) for slot, _ in slots]
                for topic, truth in world.truths.items()
                if topic.kind == kind
            ],
        }
        for kind, (title, slots) in layouts.items()
    ]
