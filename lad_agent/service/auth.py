"""Who is asking, what they may do, and that it was they who asked.

A person signs in and holds a session cookie; a program holds a bearer token. On loopback, as long
as nobody was ever made a user, the service is open: whoever reaches it is the system user.
"""

import hashlib
import hmac
import math
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request, Response, Security
from fastapi.security import APIKeyCookie, HTTPAuthorizationCredentials, HTTPBearer

from lad_agent.errors import UsageError
from lad_agent.service import passwords
from lad_agent.service.problems import Problem
from lad_agent.service.services import Services, services
from lad_agent.store import ROLES, AuditStore, access

COOKIE = "lad_agent_session"
CSRF_HEADER = "X-CSRF-Token"
CSRF_FIELD = "csrf"

_SCOPE = {"viewer": "read", "reviewer": "review", "admin": "admin"}
_bearer = HTTPBearer(auto_error=False, description="A token of lad-agent users token.")
_cookie = APIKeyCookie(name=COOKIE, auto_error=False, description="A session of POST /session.")


@dataclass(frozen=True)
class User:
    """Who is asking. `scopes` None: not by a token, so all that the role allows.

    `open`: nobody had to sign in, and every page says so.
    """

    name: str
    role: str
    scopes: frozenset[str] | None = None
    open: bool = False

    def may(self, role: str, scope: str) -> bool:
        """Whether role and token allow what needs `role`, and of a token `scope`."""
        allowed = ROLES.index(self.role) >= ROLES.index(role)
        return allowed and (self.scopes is None or scope in self.scopes)


def current_user(
    request: Request,
    token: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)] = None,
    session: Annotated[str | None, Security(_cookie)] = None,
) -> User:
    """Who is asking, by token, by session, or because the service is open.

    Raises:
        Problem: 401 where nobody is known; 403 where an open service is asked from outside.
    """
    found = services(request)
    if "Authorization" in request.headers:
        return _by_token(found.store, token)
    if session:
        account = found.store.ask(lambda s: access.session_user(s, session))
        if account is not None:
            return User(account.name, account.role)
    if found.store.ask(access.has_users):
        told = "the session has ended; sign in again" if session else "sign in, or send a token"
        raise _unknown(told)
    _check_loopback(request)
    return User(found.settings.by, "admin", open=True)


def needs(role: str, scope: str | None = None) -> Callable[[User], User]:
    """A dependency that gives the user, who must have `role`, and of a token `scope`."""
    wanted = scope or _SCOPE[role]

    def check(user: Annotated[User, Depends(current_user)]) -> User:
        if not user.may(role, wanted):
            if user.scopes is not None and wanted not in user.scopes:
                raise Problem(403, "missing-scope", f"the token lacks the scope {wanted!r}")
            raise Problem(403, "missing-role", f"{user.name} is {user.role}; this needs {role}")
        return user

    return check


def csrf_token(request: Request) -> str:
    """What a page of ours must send back with every form, bound to the session."""
    return _csrf(_session(request).encode() or services(request).secret)


async def check_csrf(request: Request) -> None:
    """Refuse a request that no page of ours has sent: by its token, and by where it comes from.

    A bearer token is never sent by a browser on its own, so it needs none.

    Raises:
        Problem: 403.
    """
    if "Authorization" in request.headers:
        return
    check_origin(request)
    sent = request.headers.get(CSRF_HEADER)
    if sent is None and _is_form(request):
        field = (await request.form(max_files=0)).get(CSRF_FIELD)
        sent = field if isinstance(field, str) else None
    _compare(request, sent)


async def check_call(request: Request) -> None:
    """As `check_csrf`, for the API: the token comes in the header, and by a session alone.

    Raises:
        Problem: 403.
    """
    if "Authorization" in request.headers:
        return
    check_origin(request)
    if _session(request):
        _compare(request, request.headers.get(CSRF_HEADER))


def check_origin(request: Request) -> None:
    """Refuse what a browser sends from another site's page.

    Raises:
        Problem: 403.
    """
    origin = request.headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("Host"):
        raise Problem(403, "forged", "sent from another site's page")


def sign_in(request: Request, response: Response, name: str, password: str) -> tuple[User, str]:
    """Check a password and open a session; its cookie goes with `response`.

    Returns who it is and the session's `csrf_token`.

    Raises:
        Problem: 401 where name or password is wrong; 429 after too many failures.
    """
    found = services(request)
    account = _checked(request, name, password)
    secret = secrets.token_urlsafe(32)
    minutes = found.settings.session_minutes
    found.store.transact([lambda unit: access.open_session(unit, secret, account.name, minutes)])
    response.set_cookie(
        COOKIE,
        secret,
        max_age=math.ceil(minutes * 60),
        httponly=True,
        samesite="strict",
        secure=not _is_plain_loopback(request),
    )
    return User(account.name, account.role), _csrf(secret.encode())


def sign_out(request: Request, response: Response) -> None:
    """Close the session and take its cookie back."""
    if secret := _session(request):
        services(request).store.transact([lambda unit: access.close_session(unit, secret)])
    response.delete_cookie(COOKIE, httponly=True, samesite="strict")


def check_signature(request: Request, user: User, password: str | None) -> None:
    """Where the setting asks for it, a decision is signed with the password (21 CFR 11.200).

    Raises:
        Problem: 401 where it is missing or wrong; 429 after too many failures.
    """
    if not services(request).settings.sign_with_password or user.open:
        return
    if not password:
        raise Problem(401, "unsigned", "every decision is signed: send your password with it")
    _checked(request, user.name, password)


def check_address(host: str, store: AuditStore) -> None:
    """Refuse to listen where others can reach a service that anybody may use.

    Raises:
        UsageError: no loopback address, and no user yet.
    """
    if not is_loopback(host) and not store.ask(access.has_users):
        raise UsageError(
            f"--host {host}: others could reach it and nobody would have to sign in; first: "
            "lad-agent users add NAME --role admin"
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _by_token(store: AuditStore, token: HTTPAuthorizationCredentials | None) -> User:
    secret = token.credentials if token else ""
    found = store.ask(lambda session: access.token(session, secret))
    if found is None:
        raise _unknown("the token is unknown, revoked or has run out")
    return User(found[1].name, found[1].role, frozenset(found[0].scopes))


def _checked(request: Request, name: str, password: str) -> access.Account:
    """The account, if this is its password; failures are counted by name and by address."""
    found: Services = services(request)
    address = f"address {request.client.host if request.client else ''}"
    if (wait_s := found.attempts.wait_s(f"name {name}", address)) > 0:
        seconds = str(round(wait_s) + 1)
        raise Problem(
            429,
            "too-many-attempts",
            f"too many failed attempts; try again in {seconds} s",
            headers={"Retry-After": seconds},
        )
    account = found.store.ask(lambda session: access.user(session, name))
    kept = account.password if account is not None and account.active else None
    if not passwords.matches(kept, password) or account is None:
        found.attempts.failed(f"name {name}", address)
        raise _unknown("the name or the password is wrong")
    found.attempts.succeeded(f"name {name}")
    return account


def _unknown(told: str) -> Problem:
    return Problem(401, "unknown-user", told, headers={"WWW-Authenticate": "Bearer"})


def _check_loopback(request: Request) -> None:
    """A name that another site's owner pointed at 127.0.0.1 must not reach an open service."""
    client = request.client.host if request.client else ""
    asked = urlsplit(f"//{request.headers.get('Host', '')}").hostname or ""
    if not (is_loopback(client) and is_loopback(asked)):
        raise Problem(403, "not-local", "this service is open, and for this machine alone")


def _is_plain_loopback(request: Request) -> bool:
    return request.url.scheme == "http" and is_loopback(request.url.hostname or "")


def _compare(request: Request, sent: str | None) -> None:
    if sent is None or not hmac.compare_digest(sent.encode(), csrf_token(request).encode()):
        raise Problem(403, "forged", "not sent by a page of this service; load it again")


def _csrf(key: bytes) -> str:
    return hmac.new(key, b"csrf", hashlib.sha256).hexdigest()


def _session(request: Request) -> str:
    return request.cookies.get(COOKIE, "")


def _is_form(request: Request) -> bool:
    kind = request.headers.get("Content-Type", "")
    return kind.startswith(("application/x-www-form-urlencoded", "multipart/form-data"))
