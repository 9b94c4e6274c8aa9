"""Who may do what: one table of all routes, deny by default.

A route that is not in the table cannot be served (`require_complete` fails when the app is built). A test walks through
the table with every role.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Literal

from fastapi import APIRouter
from fastapi.routing import APIRoute, APIWebSocketRoute
from starlette.requests import HTTPConnection

from rewardloop.serve.edge.errors import ApiError


class Role(StrEnum):
    """What a person is here."""

    OWNER = "owner"
    MANAGER = "manager"
    ANNOTATOR = "annotator"
    VIEWER = "viewer"


class Scope(StrEnum):
    """What an API key is for."""

    INFER = "infer"
    FEEDBACK = "feedback"
    READ = "read"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Access:
    """Who is let in: people by role, keys by scope, operators where `system` says so, `anyone` without any of it."""

    roles: frozenset[Role] = frozenset()
    scopes: frozenset[Scope] = frozenset()
    anyone: bool = False
    ticket: bool = False  # a feedback token will do
    system: bool = False  # the programs that run this place: the learner, the command line


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is asking. `id` is an account's, a key's, the name of an operator or, for a ticket, who issued it."""

    kind: Literal["user", "key", "ticket", "system", "nobody"]
    id: str = "nobody"
    name: str = ""
    role: Role | None = None
    scopes: frozenset[Scope] = frozenset()
    ticket: Mapping[str, Any] | None = None

    @property
    def manages(self) -> bool:
        """May see and do what concerns others."""
        return self.role in (Role.OWNER, Role.MANAGER) or Scope.ADMIN in self.scopes


NOBODY: Final = Caller("nobody")

_ALL = frozenset(Role)
_ANNOTATE = frozenset({Role.OWNER, Role.MANAGER, Role.ANNOTATOR})
_MANAGE = frozenset({Role.OWNER, Role.MANAGER})
_OWN = frozenset({Role.OWNER})


def _scopes(*scopes: Scope) -> frozenset[Scope]:
    return frozenset({*scopes, Scope.ADMIN})


ANYONE = Access(anyone=True)
SIGNED_IN = Access(roles=_ALL)
INFER = Access(roles=_ALL, scopes=_scopes(Scope.INFER))
SPEAK = Access(roles=_ANNOTATE)
JUDGE = Access(roles=_ANNOTATE, scopes=_scopes(Scope.FEEDBACK))
READ = Access(roles=_ALL, scopes=_scopes(Scope.READ))
MANAGE = Access(roles=_MANAGE, scopes=_scopes())
OWN = Access(roles=_OWN)
OPERATE = Access(system=True)
STEER = Access(roles=_MANAGE, scopes=_scopes(), system=True)

TABLE: Final[Mapping[tuple[str, str], Access]] = {
    ("GET", "/healthz"): ANYONE,
    ("GET", "/readyz"): ANYONE,
    ("GET", "/metrics"): READ,
    ("GET", "/openapi.json"): ANYONE,
    # OpenAI
    ("GET", "/v1/models"): Access(roles=_ALL, scopes=frozenset(Scope)),
    ("GET", "/v1/models/{model}"): Access(roles=_ALL, scopes=frozenset(Scope)),
    ("POST", "/v1/chat/completions"): INFER,
    ("POST", "/v1/completions"): INFER,
    # feedback
    ("POST", "/v1/feedback"): Access(roles=_ANNOTATE, scopes=_scopes(Scope.FEEDBACK), ticket=True),
    ("POST", "/v1/feedback/batch"): JUDGE,
    ("GET", "/v1/feedback"): Access(roles=_MANAGE, scopes=_scopes(Scope.READ)),
    ("GET", "/v1/feedback/{feedback_id}"): Access(roles=_ANNOTATE, scopes=_scopes(Scope.READ, Scope.FEEDBACK)),
    ("DELETE", "/v1/feedback/{feedback_id}"): JUDGE,
    ("POST", "/v1/feedback_tokens"): JUDGE,
    ("GET", "/v1/criteria"): Access(roles=_ALL, scopes=_scopes(Scope.READ, Scope.FEEDBACK)),
    ("POST", "/v1/criteria"): MANAGE,
    # the page: oneself
    ("GET", "/api/state"): ANYONE,
    ("POST", "/api/setup"): ANYONE,
    ("POST", "/api/login"): ANYONE,
    ("POST", "/api/join"): ANYONE,
    ("POST", "/api/logout"): SIGNED_IN,
    ("PATCH", "/api/me"): SIGNED_IN,
    # the page: people
    ("GET", "/api/users"): MANAGE,
    ("PATCH", "/api/users/{user_id}"): OWN,
    ("GET", "/api/invitations"): MANAGE,
    ("POST", "/api/invitations"): MANAGE,
    ("DELETE", "/api/invitations/{invitation_id}"): MANAGE,
    ("GET", "/api/keys"): OWN,
    ("POST", "/api/keys"): OWN,
    ("DELETE", "/api/keys/{key_id}"): OWN,
    # the page: talking
    ("GET", "/api/world"): SIGNED_IN,
    ("GET", "/api/conversations"): SIGNED_IN,
    ("POST", "/api/conversations"): SPEAK,
    ("GET", "/api/conversations/{conversation_id}"): SIGNED_IN,
    ("DELETE", "/api/conversations/{conversation_id}"): SPEAK,
    ("GET", "/api/completions/{completion_id}"): SIGNED_IN,
    ("GET", "/api/feedback/mine"): SIGNED_IN,
    ("WEBSOCKET", "/api/socket"): SIGNED_IN,
    # the page: the queue
    ("GET", "/api/queue/progress"): SIGNED_IN,
    ("POST", "/api/queue/next"): SPEAK,
    ("POST", "/api/queue/undo"): SPEAK,
    ("POST", "/api/queue/{assignment_id}/answer"): SPEAK,
    ("POST", "/api/queue/{assignment_id}/skip"): SPEAK,
    ("GET", "/api/queue/tasks"): MANAGE,
    ("POST", "/api/queue/tasks"): MANAGE,
    ("DELETE", "/api/queue/tasks/{task_id}"): MANAGE,
    ("GET", "/api/queue/disagreements"): MANAGE,
    ("POST", "/api/queue/disagreements/{item_id}/verdict"): MANAGE,
    ("PUT", "/api/guidelines"): MANAGE,
    # the page: looking
    ("GET", "/api/annotators"): MANAGE,
    ("POST", "/api/annotators/{annotator_id}/exclude"): MANAGE,
    ("POST", "/api/annotators/{annotator_id}/include"): MANAGE,
    ("GET", "/api/dashboard"): SIGNED_IN,
    ("GET", "/api/models"): SIGNED_IN,
    ("GET", "/api/data"): MANAGE,
    ("POST", "/api/exports"): MANAGE,
    ("GET", "/api/exports/{export_id}"): MANAGE,
    ("POST", "/api/imports"): MANAGE,
    ("POST", "/api/erase"): OWN,
    ("GET", "/api/settings"): SIGNED_IN,
    ("PUT", "/api/settings"): MANAGE,
    ("GET", "/api/audit"): OWN,
    # versions of the policy
    ("GET", "/api/policy"): Access(roles=_ALL, scopes=_scopes(Scope.READ), system=True),
    ("POST", "/api/policy/reports"): OPERATE,
    ("PUT", "/api/policy/progress"): OPERATE,
    ("POST", "/api/policy/activate"): STEER,
    ("POST", "/api/policy/rollback"): STEER,
    ("POST", "/api/policy/learning"): STEER,
    # the page itself
    ("GET", "/{path:path}"): ANYONE,
}


def authorize(connection: HTTPConnection, caller: Caller, access: Access) -> None:
    """Raises ApiError 401 for nobody, 403 for somebody who may not."""
    allowed = (
        access.anyone
        or (caller.kind == "user" and caller.role in access.roles)
        or (caller.kind == "key" and bool(caller.scopes & access.scopes))
        or (caller.kind == "ticket" and access.ticket)
        or (caller.kind == "system" and access.system)
    )
    if allowed:
        return
    if caller.kind == "nobody":
        raise ApiError(
            401,
            "no valid key or session; sign in, or send the header Authorization: Bearer rl-...",
            code="invalid_api_key",
            headers={"www-authenticate": "Bearer"},
        )
    others = "the learner or the command line" if access.system else "a person's session"
    needed = ", ".join(sorted(access.roles) if caller.kind == "user" else sorted(access.scopes)) or others
    raise ApiError(403, f"{connection.url.path} needs one of: {needed}", code="insufficient_permissions")


def access_of(method: str, path: str) -> Access:
    """The entry of the table. A HEAD is a GET."""
    return TABLE["GET" if method == "HEAD" else method, path]


def routes_of(routers: Iterable[APIRouter]) -> Iterable[tuple[str, str]]:
    """Every (method, path) that `routers` answer."""
    for route in (route for router in routers for route in router.routes):
        if isinstance(route, APIRoute):
            yield from ((method, route.path) for method in sorted((route.methods or set()) - {"HEAD"}))
        elif isinstance(route, APIWebSocketRoute):
            yield ("WEBSOCKET", route.path)
        else:
            yield ("?", str(getattr(route, "path", route)))


def require_complete(routers: Iterable[APIRouter]) -> None:
    """Raises AssertionError for a route that the table does not know: whoever adds one must say whom it lets in."""
    unknown = set(routes_of(routers)) - TABLE.keys()
    assert not unknown, f"routes without an entry in the table of access: {sorted(unknown)}"
