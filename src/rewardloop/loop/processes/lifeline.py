"""A child lives no longer than its supervisor, however that one dies.

The supervisor holds the writing end of a pipe and never writes. When it is gone, killed or not, the reading end sees
the end of the file. Works wherever there are pipes; nothing is polled.
"""

from __future__ import annotations

import os
import threading
from typing import Final

VARIABLE: Final = "REWARDLOOP_LIFELINE"  # number of the reading end, in a child's environment


def hold_on() -> None:
    """In a child: end this process when the supervisor has gone. Does nothing where there is none."""
    if (number := os.environ.pop(VARIABLE, None)) is not None:
        threading.Thread(target=_wait, args=(int(number),), name="lifeline", daemon=True).start()


def _wait(descriptor: int) -> None:
    while os.read(descriptor, 1):
        pass
    # Nobody is left to restart anything: no clean-up that could hang.
    os._exit(0)
