"""Lets versions in: the engine first, then the event, then the note of what an engine serves when it starts.

Whatever fails leaves what was served before, and nothing is recorded. A crash in between leaves the engine beside the
log: `keep_up` brings it back to the version that the log has, also after the engine alone was started again.

While no engine is there, the event comes first, and the note is what the next engine begins with. Only the learner has
to wait for an engine with a new version: nobody has tried yet whether it can be served. An engine that was there when
it was asked, and is not any more, may have died of the version: nothing is recorded then.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

import structlog

from rewardloop.errors import RewardLoopError, StoreError
from rewardloop.feedback.log.events import NewEvent
from rewardloop.loop.manifests import Manifest, is_intact, list_versions
from rewardloop.serve.edge.access import Caller
from rewardloop.serve.edge.errors import ApiError
from rewardloop.serve.engine.client import EngineDownError
from rewardloop.serve.gateway import Gateway
from rewardloop.serve.state.policy import LEARNER, find_version, note_active

LOOK_S: Final = 1.0  # how often the engine is asked what it serves
LONGEST_WAIT_S: Final = 60.0  # between two tries to bring it to the active version

log = structlog.get_logger("gateway")


async def activate(gateway: Gateway, caller: Caller, version: int, reason: str) -> None:
    """Serve `version`.

    Raises ApiError: 404 for an unknown version, 409 for one that is damaged, gone, or refused by the engine, and for
    one that the learner sends although its gate held it; 503 where the engine breaks off, or is not there for the
    learner.
    """
    async with gateway.activating:
        manifest = await _find(gateway, version)
        known = gateway.policy.versions.get(version)
        by_learner = (caller.kind, caller.id) == ("system", LEARNER)
        if by_learner and known is not None and known.passed is False:
            raise ApiError(409, f"version {version} did not pass its gate; only people may serve it", param="version")
        last_seq = known.last_seq if known is not None else int(manifest.facts.get("last_seq", 0)) if manifest else 0
        event = gateway.policy.activation(caller, version, last_seq, reason)
        event_or_none = None if version == gateway.policy.active else event
        await _serve(gateway, version, manifest, event_or_none, unseen=not by_learner)


async def roll_back(gateway: Gateway, caller: Caller, reason: str) -> None:
    """Serve what was active before. Raises ApiError as `activate`, and 409 where nothing was."""
    async with gateway.activating:
        kept = {manifest.version for manifest in await gateway.read(list_versions, gateway.weights)}
        if (version := gateway.policy.earlier(kept)) is None:
            raise ApiError(409, "no earlier version was active; there is nothing to go back to", code="no_earlier")
        manifest = await _find(gateway, version)
        await _serve(gateway, version, manifest, gateway.policy.roll_back(caller, version, reason), unseen=True)


async def keep_up(gateway: Gateway) -> None:
    """For as long as the gateway runs: the engine serves the active version, and the next one will begin with it."""
    wait_s = LOOK_S
    while True:
        try:
            agreed = await _agree(gateway)
        except Exception:
            log.exception("keep_up")
            agreed = False
        wait_s = LOOK_S if agreed else min(2 * wait_s, LONGEST_WAIT_S)
        await asyncio.sleep(wait_s)


async def _agree(gateway: Gateway) -> bool:
    """Bring engine and note to the active version; False where that could not be done for now."""
    policy = gateway.policy
    if policy.active is None:
        return True
    async with gateway.activating:
        version = policy.active
        try:
            served = (await gateway.engine.model()).weight_version
        except ApiError:
            await gateway.read(note_active, gateway.weights, version)
            return True  # it is being started, and will be asked again at once
        try:
            if served != version:
                await gateway.engine.load_weights(_path(await _find(gateway, version)))
                log.info("engine brought to the active version", version=version, served=served)
            policy.trouble = None
            await gateway.read(note_active, gateway.weights, version)
        except RewardLoopError as error:
            if served != version:
                policy.trouble = f"version {version} is active, and the engine serves version {served}: {error}"
            log.warning("engine not at the active version", version=version, served=served, error=str(error))
            return False
    return True


async def _serve(
    gateway: Gateway, version: int, manifest: Manifest | None, event: NewEvent | None, *, unseen: bool
) -> None:
    """Engine, event, note. `unseen`: without the engine, where it is not there."""
    trouble = None
    try:
        await gateway.engine.load_weights(_path(manifest))
    except EngineDownError:
        if not unseen:
            raise
        if manifest is not None and not await gateway.read(is_intact, manifest):
            raise ApiError(
                409, f"version {version} is damaged; choose another", param="version", code="damaged"
            ) from None
        trouble = f"the engine is not there; it will begin with version {version}"
    if event is not None:
        await gateway.append(event)
    gateway.policy.trouble = trouble
    try:
        await gateway.read(note_active, gateway.weights, version)
    except StoreError as error:  # the event stands; keep_up tries again
        log.warning("active version not noted", version=version, error=str(error))


async def _find(gateway: Gateway, version: int) -> Manifest | None:
    return await gateway.read(find_version, gateway.weights, gateway.policy, version)


def _path(manifest: Manifest | None) -> Path | None:
    return None if manifest is None else manifest.path
