"""The page's own routes about people: setting up, coming and going, inviting, keys."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

import rewardloop
from rewardloop.feedback.log.events import NewEvent
from rewardloop.serve.edge.access import Role, Scope
from rewardloop.serve.edge.errors import ApiError
from rewardloop.serve.edge.limits import JOIN, LOGIN
from rewardloop.serve.edge.times import iso
from rewardloop.serve.gateway import COOKIE, Gateway, TheCaller, TheGateway, account_id_of
from rewardloop.serve.state.accounts import (
    KEY_PREFIX,
    SESSION_S,
    Account,
    invitation_event,
    key_event,
    login_event,
    logout_event,
    new_secret,
)

router = APIRouter(tags=["page"])

Language = Literal["en", "zh"]
Password = Annotated[str, Field(min_length=8, max_length=256)]
Name = Annotated[str, Field(min_length=1, max_length=64)]
BUILTIN: Final = "builtin"


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")


class NewPerson(_Closed):
    """Whoever holds a link may become somebody."""

    token: Annotated[str, Field(max_length=200)]
    name: Name
    password: Password
    language: Language = "en"


class Credentials(_Closed):
    name: Annotated[str, Field(max_length=200)]
    password: Annotated[str, Field(max_length=256)]


class PasswordChange(_Closed):
    old: Annotated[str, Field(max_length=256)]
    new: Password


class MyChanges(_Closed):
    language: Language | None = None
    password: PasswordChange | None = None


class NewInvitation(_Closed):
    role: Role


class UserChanges(_Closed):
    role: Role | None = None
    disabled: bool | None = None


class NewKey(_Closed):
    name: Name
    scopes: Annotated[list[Scope], Field(min_length=1)]


@router.get("/api/state")
async def state(http: Request, gateway: TheGateway, caller: TheCaller) -> JSONResponse:
    """What the page must know before it can show anything."""
    account = gateway.accounts.accounts.get(caller.id) if caller.kind == "user" else None
    return JSONResponse(
        {
            "setup_needed": not gateway.accounts.owned,
            "user": None if account is None else _person(account),
            "version": rewardloop.__version__,
            **(await _model_state(gateway) if account is not None else {"model": None, "engine": "unknown"}),
            "show_rewards": _sees_rewards(gateway, account),
        }
    )


@router.post("/api/setup", status_code=201)
async def set_up(given: NewPerson, http: Request, gateway: TheGateway) -> JSONResponse:
    """The first person, by the link that was printed when rewardloop was started. It works once."""
    gateway.limits.take(JOIN, _address(http))
    async with gateway.setting_up:
        if gateway.accounts.owned:
            raise ApiError(409, "this place has an owner already; sign in", code="already_set_up")
        if not gateway.is_setup_token(given.token):
            raise ApiError(403, "this set-up link is not the one that was printed last; copy it anew", param="token")
        return await _join(gateway, http, given, Role.OWNER, None)


@router.post("/api/join", status_code=201)
async def join(given: NewPerson, http: Request, gateway: TheGateway) -> JSONResponse:
    """Somebody who was invited."""
    gateway.limits.take(JOIN, _address(http))
    async with gateway.setting_up:
        invitation = gateway.accounts.invitation(given.token)
        if invitation is None:
            raise ApiError(403, "this invitation was used, revoked or is too old; ask for a new one", param="token")
        return await _join(gateway, http, given, invitation.role, invitation.id)


@router.post("/api/login")
async def login(given: Credentials, http: Request, gateway: TheGateway) -> JSONResponse:
    """Come in. Unknown names and wrong passwords get the same answer, after the same time."""
    gateway.limits.take(LOGIN, f"{_address(http)} {given.name.casefold()[:64]}")
    gateway.limits.take(LOGIN, f"name {given.name.casefold()[:64]}")
    account = gateway.accounts.named(given.name)
    known = account is not None and not account.disabled
    right = await gateway.passwords.verify(account.password if account is not None and known else None, given.password)
    if account is None or not right:
        raise ApiError(401, "name or password is wrong", code="wrong_credentials")
    return await _enter(gateway, http, account, 200)


@router.post("/api/logout", status_code=204)
async def logout(http: Request, gateway: TheGateway) -> Response:
    """Leave; the session is over on the server, too."""
    session = gateway.accounts.session_id(http.cookies.get(COOKIE, ""))
    if session is not None:
        await gateway.append(logout_event(account_id_of(http), session))
    reply = Response(status_code=204)
    reply.delete_cookie(COOKIE, path="/", httponly=True, samesite="lax")
    return reply


@router.patch("/api/me")
async def change_me(given: MyChanges, http: Request, gateway: TheGateway, caller: TheCaller) -> JSONResponse:
    """My language, my password. A new password ends my other sessions."""
    account = gateway.accounts.accounts[account_id_of(http)]
    changes: dict[str, Any] = {} if given.language is None else {"language": given.language}
    if given.password is not None:
        gateway.limits.take(LOGIN, f"name {account.name.casefold()}")
        if not await gateway.passwords.verify(account.password, given.password.old):
            raise ApiError(403, "the present password is another", param="password.old")
        changes["password"] = await gateway.passwords.hash(given.password.new)
        changes["kept"] = gateway.accounts.session_id(http.cookies.get(COOKIE, ""))
    if changes:
        await gateway.append(gateway.accounts.change(caller, account.id, changes))
    return JSONResponse(_person(gateway.accounts.accounts[account.id]))


# ---------------------------------------------------------------- others


@router.get("/api/users")
async def users(gateway: TheGateway) -> JSONResponse:
    """Everybody who has an account."""
    return JSONResponse({"items": [_person(account) for account in gateway.accounts.accounts.values()]})


@router.patch("/api/users/{user_id}")
async def change_user(user_id: str, given: UserChanges, gateway: TheGateway, caller: TheCaller) -> JSONResponse:
    """Somebody's role, or whether they may come in."""
    changes = given.model_dump(exclude_none=True)
    await gateway.append(gateway.accounts.change(caller, user_id, changes))
    return JSONResponse(_person(gateway.accounts.accounts[user_id]))


@router.get("/api/invitations")
async def invitations(gateway: TheGateway) -> JSONResponse:
    """Links that are good still; the links themselves were shown once."""
    items = [
        {"id": each.id, "role": each.role, "expires_at": iso(each.expires_at)}
        for each in gateway.accounts.invitations.values()
    ]
    return JSONResponse({"items": items})


@router.post("/api/invitations", status_code=201)
async def invite(given: NewInvitation, http: Request, gateway: TheGateway, caller: TheCaller) -> JSONResponse:
    """A link for one person. Only owners make owners and managers."""
    if given.role in (Role.OWNER, Role.MANAGER) and caller.role is not Role.OWNER:
        raise ApiError(403, f"only an owner may invite a {given.role}", param="role")
    token = new_secret()
    event = invitation_event(caller, given.role, token)
    await gateway.append(event)
    link = f"{http.url.scheme}://{http.headers['host']}/join#{token}"
    expires = iso(event.body["expires_at"])
    return JSONResponse({"id": event.target_id, "role": given.role, "link": link, "expires_at": expires}, 201)


@router.delete("/api/invitations/{invitation_id}", status_code=204)
async def revoke_invitation(invitation_id: str, gateway: TheGateway, caller: TheCaller) -> Response:
    """The link is no longer good."""
    if invitation_id not in gateway.accounts.invitations:
        raise ApiError(404, "there is no such invitation", param="invitation_id")
    await gateway.append(_simple("auth.invitation_revoked", caller, invitation_id))
    return Response(status_code=204)


@router.get("/api/keys")
async def keys(gateway: TheGateway) -> JSONResponse:
    """API keys; the keys themselves were shown once."""
    items = [
        {"id": key.id, "name": key.name, "scopes": sorted(key.scopes), "created_at": iso(key.created_at)}
        for key in gateway.accounts.keys.values()
    ]
    return JSONResponse({"items": items})


@router.post("/api/keys", status_code=201)
async def make_key(given: NewKey, gateway: TheGateway, caller: TheCaller) -> JSONResponse:
    """A key for a program; this is the only time that it is shown."""
    key = new_secret(KEY_PREFIX)
    event = key_event(caller, given.name, frozenset(given.scopes), key)
    await gateway.append(event)
    return JSONResponse({"id": event.target_id, "name": given.name, "scopes": sorted(given.scopes), "key": key}, 201)


@router.delete("/api/keys/{key_id}", status_code=204)
async def revoke_key(key_id: str, gateway: TheGateway, caller: TheCaller) -> Response:
    """The key opens nothing any more."""
    if key_id not in gateway.accounts.keys:
        raise ApiError(404, "there is no such key", param="key_id")
    await gateway.append(_simple("auth.key_revoked", caller, key_id))
    return Response(status_code=204)


# ---------------------------------------------------------------- helpers


def _simple(kind: str, caller: Any, target_id: str) -> NewEvent:
    return NewEvent(kind=kind, actor_id=caller.id, actor_kind=caller.kind, target_id=target_id)


def _person(account: Account) -> dict[str, Any]:
    return {
        "id": account.id,
        "name": account.name,
        "role": account.role,
        "language": account.language,
        "disabled": account.disabled,
        "created_at": iso(account.created_at),
    }


async def _model_state(gateway: Gateway) -> dict[str, Any]:
    try:
        info = await gateway.engine.model()
    except ApiError:
        return {"model": None, "engine": "down", "rewards": False}
    model = {
        "id": info.id,
        "title": gateway.model_title,
        "chat": info.chat,
        "builtin": gateway.has_world,
        "weight_version": f"v{info.weight_version}",
        "context": info.context,
        "parameters": info.parameters,
        "reward_version": info.reward_version,
        "languages": ["en", "zh"] if gateway.has_world else [],
    }
    return {"model": model, "engine": "ready", "rewards": info.reward_version is not None}


def _sees_rewards(gateway: Gateway, account: Account | None) -> bool:
    if account is None:
        return False
    return account.role is not Role.ANNOTATOR or gateway.preferences.settings.show_rewards_to_annotators


async def _join(gateway: Gateway, http: Request, given: NewPerson, role: Role, invitation: str | None) -> JSONResponse:
    hashed = await gateway.passwords.hash(given.password)
    event = gateway.accounts.creation(given.name, role, hashed, given.language, invitation)
    await gateway.append(event)
    return await _enter(gateway, http, gateway.accounts.accounts[str(event.target_id)], 201)


async def _enter(gateway: Gateway, http: Request, account: Account, status: int) -> JSONResponse:
    """A new session; the one that the browser had before, if any, is over."""
    token = new_secret()
    events = [login_event(account, token)]
    if (before := gateway.accounts.session_id(http.cookies.get(COOKIE, ""))) is not None:
        events.append(logout_event(account.id, before))
    await gateway.append(*events)
    reply = JSONResponse({"user": _person(account)}, status)
    secure = http.url.scheme == "https"
    reply.set_cookie(COOKIE, token, max_age=SESSION_S, path="/", httponly=True, samesite="lax", secure=secure)
    return reply


def _address(http: Request) -> str:
    return http.client.host if http.client else "unknown"
