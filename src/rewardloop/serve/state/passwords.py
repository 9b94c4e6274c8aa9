"""Passwords as argon2id hashes; at most two are computed at a time, so that logins cannot starve serving."""

from __future__ import annotations

import asyncio
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

HASHER: Final = PasswordHasher(time_cost=3, memory_cost=64 * 1024, parallelism=1)
AT_ONCE: Final = 2

# What nobody's password is: an unknown name takes as long to refuse as a wrong password. Of the same cost as above (a
# test holds this), and made once and for all: to hash it at each start would hold the start up.
NOBODY: Final = "$argon2id$v=19$m=65536,t=3,p=1$zODX2klyMcRUQlTKo0ptDQ$k3QRtUDYiMKLhH7XBDH7PQHqaSP7wjaDwcUKGENPunA"


class Passwords:
    """Hashes and verifies, away from the event loop."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def hash(self, password: str) -> str:
        async with self._turns:
            return await asyncio.to_thread(HASHER.hash, password)

    async def verify(self, hashed: str | None, password: str) -> bool:
        """Whether `password` is the one of `hashed`; None is never anybody's."""
        async with self._turns:
            found = await asyncio.to_thread(_verify, hashed or NOBODY, password)
        return found and hashed is not None


def _verify(hashed: str, password: str) -> bool:
    try:
        return HASHER.verify(hashed, password)
    except (Argon2Error, InvalidHashError):
        return False
