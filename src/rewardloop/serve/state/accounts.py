"""People, their sessions, invitations and API keys: what the log's `auth.*` events come to.

Nothing is stored but events, so that who came and went can always be read back. Secrets are stored as digests; the
secrets themselves are shown once. Everything lives in memory, rebuilt from the log at the start.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from rewardloop.feedback.log.events import Event, NewEvent, new_id
from rewardloop.serve.edge.access import Caller, Role, Scope
from rewardloop.serve.edge.errors import ApiError

SESSION_S: Final = 12 * 3600  # a session ends after so long without a request
INVITATION_S: Final = 7 * 24 * 3600
KEY_PREFIX: Final = "rl-"


@dataclass(frozen=True, slots=True)
class Account:
    """A person."""

    id: str
    name: str
    role: Role
    password: str  # argon2id
    language: str
    created_at: float
    disabled: bool = False

    @property
    def caller(self) -> Caller:
        return Caller("user", self.id, self.name, self.role)


@dataclass(frozen=True, slots=True)
class Invitation:
    """A link with which one person can join."""

    id: str
    role: Role
    digest: str
    expires_at: float


@dataclass(frozen=True, slots=True)
class Key:
    """An API key of a program."""

    id: str
    name: str
    scopes: frozenset[Scope]
    created_at: float
    digest: str


@dataclass(slots=True)
class _Session:
    id: str
    account_id: str
    seen_at: float


class Accounts:
    """The present state of everything that `auth.*` events say."""

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}
        self.invitations: dict[str, Invitation] = {}
        self.keys: dict[str, Key] = {}
        self._sessions: dict[str, _Session] = {}  # by digest
        self._keys_by_digest: dict[str, Key] = {}
        self._names: dict[str, str] = {}  # folded name -> account

    # ------------------------------------------------------------ reading

    @property
    def owned(self) -> bool:
        """Whether there is an owner: before, only the set-up link opens anything."""
        return any(account.role is Role.OWNER for account in self.accounts.values())

    def named(self, name: str) -> Account | None:
        return self.accounts.get(self._names.get(folded(name), ""))

    def by_session(self, token: str) -> Account | None:
        """Whose session this is, if it has not ended; a request keeps it alive."""
        session = self._sessions.get(digest(token))
        if session is None or time.time() - session.seen_at > SESSION_S:
            return None
        account = self.accounts.get(session.account_id)
        if account is None or account.disabled:
            return None
        session.seen_at = time.time()
        return account

    def session_id(self, token: str) -> str | None:
        session = self._sessions.get(digest(token))
        return None if session is None else session.id

    def by_key(self, key: str) -> Caller | None:
        """The program that holds this key."""
        found = self._keys_by_digest.get(digest(key))
        return None if found is None else Caller("key", found.id, found.name, scopes=found.scopes)

    def invitation(self, token: str) -> Invitation | None:
        """The invitation of this link, while it is good."""
        wanted = digest(token)
        for invitation in self.invitations.values():
            if hmac.compare_digest(invitation.digest, wanted) and invitation.expires_at > time.time():
                return invitation
        return None

    # ------------------------------------------------------------ events to append

    def creation(self, name: str, role: Role, password: str, language: str, invitation: str | None) -> NewEvent:
        """Somebody joins. Raises ApiError for a name that is taken or unusable."""
        name = usable_name(name)
        if folded(name) in self._names:
            raise ApiError(409, f"the name {name!r} is taken; choose another", param="name", code="name_taken")
        account_id = new_id()
        body = {"name": name, "role": role, "password": password, "language": language, "invitation": invitation}
        return _event("auth.account_created", account_id, "user", account_id, body)

    def change(self, actor: Caller, account_id: str, changes: Mapping[str, Any]) -> NewEvent:
        """Something about an account changes. Raises ApiError where the last owner would be lost."""
        if account_id not in self.accounts:
            raise ApiError(404, "there is no such person", param="user_id")
        after = _changed(self.accounts[account_id], changes)
        owners = [a for a in ({**self.accounts, account_id: after}).values() if a.role is Role.OWNER and not a.disabled]
        if not owners:
            raise ApiError(409, "one owner must remain; make somebody else an owner first", code="last_owner")
        return _event("auth.account_changed", actor.id, actor.kind, account_id, dict(changes))

    # ------------------------------------------------------------ applying

    def apply(self, event: Event) -> None:
        """Let an event of the log have its effect. Events of other kinds have none."""
        body, target = event.body, event.target_id or ""
        match event.kind:
            case "auth.account_created":
                self._create(event, target, body)
            case "auth.account_changed" if target in self.accounts:
                self.accounts[target] = _changed(self.accounts[target], body)
                if {"password", "disabled", "role"} & body.keys():  # what was let in before is asked again
                    self._forget(lambda session: session.account_id == target and session.id != body.get("kept"))
            case "auth.invited":
                self.invitations[target] = Invitation(target, Role(body["role"]), body["digest"], body["expires_at"])
            case "auth.invitation_revoked":
                self.invitations.pop(target, None)
            case "auth.key_created":
                scopes = frozenset(Scope(scope) for scope in body["scopes"])
                key = Key(target, body["name"], scopes, event.ts, body["digest"])
                self.keys[target] = self._keys_by_digest[key.digest] = key
            case "auth.key_revoked":
                if (revoked := self.keys.pop(target, None)) is not None:
                    del self._keys_by_digest[revoked.digest]
            case "auth.login":
                self._sessions[body["digest"]] = _Session(target, event.actor_id, event.ts)
            case "auth.logout":
                self._forget(lambda session: session.id == target)

    def forget(self, account_id: str) -> None:
        """The person was erased: no account, no sessions."""
        if (account := self.accounts.pop(account_id, None)) is not None:
            self._names.pop(folded(account.name), None)
        self._forget(lambda session: session.account_id == account_id)

    def _create(self, event: Event, account_id: str, body: Mapping[str, Any]) -> None:
        account = Account(account_id, body["name"], Role(body["role"]), body["password"], body["language"], event.ts)
        self.accounts[account_id] = account
        self._names[folded(account.name)] = account_id
        if body.get("invitation"):
            self.invitations.pop(body["invitation"], None)

    def _forget(self, gone: Any) -> None:
        self._sessions = {key: session for key, session in self._sessions.items() if not gone(session)}


# ---------------------------------------------------------------- secrets and events


def new_secret(prefix: str = "") -> str:
    """256 random bits."""
    return prefix + secrets.token_urlsafe(32)


def digest(secret: str) -> str:
    """What is stored of a secret. SHA-256 is enough for 256 random bits."""
    return hashlib.sha256(secret.encode()).hexdigest()


def login_event(account: Account, token: str) -> NewEvent:
    return _event("auth.login", account.id, "user", new_id(), {"digest": digest(token)})


def logout_event(account_id: str, session_id: str) -> NewEvent:
    return _event("auth.logout", account_id, "user", session_id, {})


def invitation_event(actor: Caller, role: Role, token: str) -> NewEvent:
    body = {"role": role, "digest": digest(token), "expires_at": time.time() + INVITATION_S}
    return _event("auth.invited", actor.id, actor.kind, new_id(), body)


def key_event(actor: Caller, name: str, scopes: frozenset[Scope], key: str) -> NewEvent:
    body = {"name": usable_name(name), "scopes": sorted(scopes), "digest": digest(key)}
    return _event("auth.key_created", actor.id, actor.kind, new_id(), body)


def usable_name(name: str) -> str:
    """The name as it is shown. Raises ApiError for an empty, long or invisible one."""
    name = unicodedata.normalize("NFC", name).strip()
    hidden = any(unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp") for character in name)
    if not 1 <= len(name) <= 64 or hidden:
        raise ApiError(400, "a name has 1 to 64 visible characters", param="name")
    return name


def folded(name: str) -> str:
    """Names that look alike are one."""
    return unicodedata.normalize("NFKC", name).strip().casefold()


def _changed(account: Account, changes: Mapping[str, Any]) -> Account:
    known = {name: value for name, value in changes.items() if name in ("disabled", "password", "language")}
    role = Role(changes["role"]) if "role" in changes else account.role
    return replace(account, role=role, **known)


def _event(kind: str, actor_id: str, actor_kind: str, target_id: str, body: Mapping[str, Any]) -> NewEvent:
    return NewEvent(kind=kind, actor_id=actor_id, actor_kind=actor_kind, target_id=target_id, body=body)
