"""Tokens that arrive one by one, as text: characters are given out once they are whole."""

from __future__ import annotations

from collections.abc import Sequence

from rewardloop.models.language_model import UNFINISHED, LanguageModel

LONGEST_CHARACTER = 6  # tokens; what is not a character by then is shown as it decodes


class TextStream:
    """The text of a completion while it grows, cut at its first stop sequence.

    What `push` and `finish` give, joined, is `lm.decode` of all tokens up to the stop. Text that may turn out to be
    the beginning of a stop sequence is held back until it is known.
    """

    def __init__(self, lm: LanguageModel, stop: Sequence[str] = ()) -> None:
        self._lm = lm
        self._stop = tuple(stop)
        self._ids: list[int] = []
        self._settled = 0  # tokens whose characters are whole
        self._text = ""  # of the settled tokens
        self._given = 0  # characters of it that were given out
        self.stopped = False

    def push(self, token_id: int) -> str:
        """What can be shown now that this token is here; "" while a character, or a stop, may be unfinished."""
        if self.stopped:
            return ""
        self._ids.append(token_id)
        text = self._lm.decode(self._ids)
        pending = len(self._ids) - self._settled
        if text.endswith(UNFINISHED) and pending < LONGEST_CHARACTER:
            return ""
        self._settled, self._text = len(self._ids), text
        return self._show(final=False)

    def finish(self) -> str:
        """The rest, when no token follows."""
        if self.stopped:
            return ""
        self._text = self._lm.decode(self._ids)
        return self._show(final=True)

    @property
    def text(self) -> str:
        """All that was given out."""
        return self._text[: self._given]

    def _show(self, *, final: bool) -> str:
        found = [at for at in (self._text.find(stop, self._given) for stop in self._stop) if at >= 0]
        if found:
            self.stopped = True
            end = min(found)
        else:
            end = len(self._text) - (0 if final else self._held())
        piece = self._text[self._given : end]
        self._given = max(self._given, end)
        return piece

    def _held(self) -> int:
        """Characters at the end that may begin a stop sequence."""
        longest = max((len(stop) for stop in self._stop), default=1) - 1
        tails = range(min(longest, len(self._text) - self._given), 0, -1)
        return next((n for n in tails if any(stop.startswith(self._text[-n:]) for stop in self._stop)), 0)
