"""Token rewards as colors: blue with a straight underline for reward, orange with a wavy one for penalty.

The pair is told apart with every kind of color vision, and the underline tells it without any.
"""

from __future__ import annotations

from html import escape
from typing import Final

from rich.style import Style
from rich.text import Text

from rewardloop.evaluate.token_rewards import TokenRewards, segments

FAINT: Final = 0.08  # share of the scale below which a token stays plain
BLUE, ORANGE, PAPER = (67, 140, 214), (240, 138, 40), (255, 255, 255)
END_MARK: Final = "∎"
# What a model writes must not steer the terminal: control characters are shown as their pictures.
_PICTURES: Final = {code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\n\t"}
_SHOWN: Final = _PICTURES | dict.fromkeys(range(0x7F, 0xA0), "\N{REPLACEMENT CHARACTER}")


def to_rich(scored: TokenRewards, scale: float, *, numbers: bool = False) -> Text:
    """The completion as colored terminal text, each token followed by its reward where `numbers`."""
    text = Text()
    for piece in segments(scored):
        if piece.reward is None:
            text.append(piece.text.translate(_SHOWN))
            continue
        blank, word = _split_blank(piece.text.translate(_SHOWN))
        text.append(blank)
        text.append(word, _style(piece.reward / scale))
        if numbers:
            text.append(f"{piece.reward:+.2f} ", Style(dim=True))
    return text


def to_html(scored: TokenRewards, scale: float) -> str:
    """The completion as spans for the page's style sheet; a tooltip holds the number."""
    spans = []
    for piece in segments(scored):
        blank, word = _split_blank(piece.text)
        text = escape(word)
        if piece.reward is None or abs(piece.reward) < FAINT * scale:
            tip = "" if piece.reward is None else f' title="{piece.reward:+.2f}"'
            spans.append(f"<span{tip}>{blank}{text}</span>")
        else:
            strength = min(abs(piece.reward) / scale, 1)
            sign = "up" if piece.reward > 0 else "down"
            look = f'class="{sign}" style="--s:{strength:.2f}" title="{piece.reward:+.2f}"'
            spans.append(f"{blank}<span {look}>{text}</span>")
    return "".join(spans)


def _split_blank(text: str) -> tuple[str, str]:
    """The blanks in front of a token's word, which stay plain, and the word; an end token gets a mark."""
    word = text.lstrip()
    if text and not word:
        return "", text
    return text[: len(text) - len(word)], word or END_MARK


def _style(strength: float) -> Style:
    """Dark letters on a tint of their own, so that any terminal's colors will do."""
    if abs(strength) < FAINT:
        return Style()
    share = 0.15 + 0.85 * min(abs(strength), 1)
    full = BLUE if strength > 0 else ORANGE
    red, green, blue = (round(paper + (ink - paper) * share) for ink, paper in zip(full, PAPER, strict=True))
    strong = abs(strength) >= 0.5
    return Style(
        color="black",
        bgcolor=f"rgb({red},{green},{blue})",
        underline=strength > 0 and strong,
        underline2=strength < 0 and strong,
    )
