"""Who may use the service: passwords, sessions and tokens; and the requests that it accepted.

These tables are no projections: secrets never enter the ledger, which only says that one changed.
Passwords come hashed; of sessions and tokens only the digest is kept, so that whoever reads the
database can use neither.
"""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import JSON, UniqueConstraint, delete, insert, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from lad_agent.errors import Conflict, NotFound, UsageError
from lad_agent.store import operations, projections
from lad_agent.store.ledger import now, timestamp
from lad_agent.store.models import Base, Inspection, UserRow
from lad_agent.store.operations import Unit, new_id

ROLES = ("viewer", "reviewer", "admin")
"""What a person may do; each may do what those before it may."""

SCOPES = ("read", "inspect", "review", "admin")
"""What a token may be used for, within its owner's role."""


TOKEN_PREFIX = "lad_"
"""What a token begins with, so that scanners for leaked secrets know it."""


class PasswordRow(Base):
    """A user's password, as argon2 hashed it."""

    __tablename__ = "passwords"

    name: Mapped[str] = mapped_column(primary_key=True)
    hash: Mapped[str]


class SessionRow(Base):
    """Somebody who is signed in."""

    __tablename__ = "sessions"

    digest: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    until: Mapped[str]


class TokenRow(Base):
    """A token that a program uses in its owner's name."""

    __tablename__ = "tokens"
    __table_args__ = (UniqueConstraint("digest"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    digest: Mapped[str]
    name: Mapped[str]
    label: Mapped[str]
    scopes: Mapped[list[str]] = mapped_column(JSON)
    made_at: Mapped[str]
    until: Mapped[str | None]
    revoked_at: Mapped[str | None]


class RequestRow(Base):
    """A request that the service at `station` has accepted; `fingerprint` is that of its body."""

    __tablename__ = "requests"

    key: Mapped[str] = mapped_column(primary_key=True)
    fingerprint: Mapped[str]
    inspection_id: Mapped[str]
    station: Mapped[str]
    at: Mapped[str]


@dataclass(frozen=True)
class Account:
    """A user as last changed; `password` is the hash, None where none was ever set."""

    name: str
    role: str
    active: bool
    changed_at: str
    password: str | None


@dataclass(frozen=True)
class Token:
    """A token without its secret; `until` None: it does not run out."""

    id: str
    name: str
    label: str
    scopes: tuple[str, ...]
    made_at: str
    until: str | None
    revoked_at: str | None

    @property
    def valid(self) -> bool:
        """Whether it may be used now."""
        return self.revoked_at is None and (self.until is None or self.until > now())


@dataclass(frozen=True)
class Accepted:
    """What was made of an earlier request of the same key."""

    fingerprint: str
    inspection_id: str


def digest(secret: str) -> str:
    """What is kept of a session's or token's secret, which is random and needs no slow hash."""
    return hashlib.sha256(secret.encode()).hexdigest()


# --- users ----------------------------------------------------------------------------------------


def has_users(session: Session) -> bool:
    """Whether anybody was ever made a user."""
    return session.scalar(select(UserRow.name).limit(1)) is not None


def users(session: Session) -> list[Account]:
    """All users by name, those without rights too."""
    return [_account(row) for row in session.execute(_ACCOUNTS.order_by(UserRow.name)).mappings()]


def user(session: Session, name: str) -> Account | None:
    """The user of that name."""
    row = session.execute(_ACCOUNTS.where(UserRow.name == name)).mappings().one_or_none()
    return _account(row) if row else None


def add_user(unit: Unit, station: str, by: str, name: str, role: str, password: str) -> None:
    """Make a user, or give one back the rights; `password` is hashed.

    Raises:
        Conflict: there is an active user of that name.
        UsageError: no such role.
    """
    if (found := _user(unit, name)) is not None and found["active"]:
        raise Conflict(f"user {name!r} is there already; lad-agent users role changes the role")
    _check_role(role)
    operations.change_user(unit, station, by, name, role, active=True)
    set_password(unit, station, by, name, password)


def change_role(unit: Unit, station: str, by: str, name: str, role: str) -> None:
    """Give an active user another role.

    Raises:
        NotFound: no such user.
        UsageError: no such role.
    """
    _check_role(role)
    _active(unit, name)
    operations.change_user(unit, station, by, name, role, active=True)


def remove_user(unit: Unit, station: str, by: str, name: str) -> None:
    """Take all rights from a user, end the sessions and revoke the tokens.

    The name stays, for the ledger tells of it.

    Raises:
        NotFound: no such user.
    """
    role = _active(unit, name)["role"]
    operations.change_user(unit, station, by, name, role, active=False)
    unit.connection.execute(delete(PasswordRow).where(PasswordRow.name == name))
    unit.connection.execute(delete(SessionRow).where(SessionRow.name == name))
    owned = select(TokenRow.id).where(TokenRow.name == name, TokenRow.revoked_at.is_(None))
    for token_id in unit.connection.scalars(owned).all():
        revoke_token(unit, station, by, token_id)


def set_password(unit: Unit, station: str, by: str, name: str, password: str) -> None:
    """Set a user's password, which comes hashed, and end the sessions.

    Raises:
        NotFound: no such user.
    """
    _active(unit, name)
    unit.connection.execute(delete(PasswordRow).where(PasswordRow.name == name))
    unit.connection.execute(insert(PasswordRow), {"name": name, "hash": password})
    unit.connection.execute(delete(SessionRow).where(SessionRow.name == name))
    _changed(unit, station, by, {"user": name, "what": "password set"})


# --- sessions -------------------------------------------------------------------------------------


def open_session(unit: Unit, secret: str, name: str, minutes: float) -> None:
    """Remember who signed in, and forget sessions that ran out."""
    until = timestamp(datetime.now(UTC) + timedelta(minutes=minutes))
    unit.connection.execute(delete(SessionRow).where(SessionRow.until <= now()))
    row = {"digest": digest(secret), "name": name, "until": until}
    unit.connection.execute(insert(SessionRow), row)


def session_user(session: Session, secret: str) -> Account | None:
    """Whose session it is; None where it ran out, was closed, or the user has no rights."""
    query = _ACCOUNTS.join(SessionRow, SessionRow.name == UserRow.name).where(
        SessionRow.digest == digest(secret), SessionRow.until > now(), UserRow.active
    )
    row = session.execute(query).mappings().one_or_none()
    return _account(row) if row else None


def close_session(unit: Unit, secret: str) -> None:
    """Sign out."""
    unit.connection.execute(delete(SessionRow).where(SessionRow.digest == digest(secret)))


# --- tokens ---------------------------------------------------------------------------------------


def issue_token(
    unit: Unit,
    station: str,
    by: str,
    name: str,
    *,
    secret: str,
    label: str,
    scopes: tuple[str, ...],
    days: float | None,
) -> str:
    """Let programs that hold `secret` act for a user; returns the token's id.

    Raises:
        NotFound: no such user.
        UsageError: no scope, or an unknown one.
    """
    unknown = sorted(set(scopes) - set(SCOPES))
    if unknown or not scopes:
        raise UsageError(f"scope {unknown[0] if unknown else ''!r}: known: {', '.join(SCOPES)}")
    _active(unit, name)
    token_id = new_id()
    until = timestamp(datetime.now(UTC) + timedelta(days=days)) if days is not None else None
    said = {"name": name, "label": label, "scopes": sorted(set(scopes)), "until": until}
    row = {"id": token_id, "digest": digest(secret), "made_at": now(), **said}
    unit.connection.execute(insert(TokenRow), row)
    _changed(unit, station, by, {"what": "token issued", "token": token_id, **said})
    return token_id


def revoke_token(unit: Unit, station: str, by: str, token_id: str) -> None:
    """End a token; nothing where it is revoked already.

    Raises:
        NotFound: no such token.
    """
    row = unit.connection.execute(select(TokenRow.__table__).where(TokenRow.id == token_id))
    found = row.mappings().one_or_none()
    if found is None:
        raise NotFound(f"no token {token_id!r}; lad-agent users tokens shows them")
    if found["revoked_at"] is None:
        which = update(TokenRow).where(TokenRow.id == token_id)
        unit.connection.execute(which.values(revoked_at=now()))
        _changed(
            unit, station, by, {"what": "token revoked", "token": token_id, "name": found["name"]}
        )


def tokens(session: Session) -> list[Token]:
    """All tokens, the oldest first."""
    return [_token(row) for row in session.scalars(select(TokenRow).order_by(TokenRow.id))]


def token(session: Session, secret: str) -> tuple[Token, Account] | None:
    """The valid token of that secret with its owner; None where it may not be used."""
    row = session.scalars(select(TokenRow).where(TokenRow.digest == digest(secret))).one_or_none()
    if row is None or not (found := _token(row)).valid:
        return None
    owner = user(session, found.name)
    return (found, owner) if owner is not None and owner.active else None


# --- requests -------------------------------------------------------------------------------------


def accept(unit: Unit, key: str, fingerprint: str, inspection_id: str, station: str) -> None:
    """Remember an accepted request by its key.

    Raises:
        Conflict: one of the same key and another body was accepted meanwhile.
    """
    row = unit.connection.execute(select(RequestRow.__table__).where(RequestRow.key == key))
    found = row.mappings().one_or_none()
    if found is None:
        values = {"key": key, "fingerprint": fingerprint, "inspection_id": inspection_id}
        unit.connection.execute(insert(RequestRow), {**values, "station": station, "at": now()})
    elif found["fingerprint"] != fingerprint:
        raise Conflict("the idempotency key was used for another request; use a new key")


def accepted(session: Session, key: str) -> Accepted | None:
    """What was made of the request of that key."""
    row = session.get(RequestRow, key)
    return Accepted(row.fingerprint, row.inspection_id) if row else None


def unfinished(session: Session, station: str) -> list[str]:
    """Inspections that the service at `station` accepted and did not come to record."""
    query = (
        select(Inspection.id)
        .join(RequestRow, RequestRow.inspection_id == Inspection.id)
        .where(RequestRow.station == station, Inspection.recorded_at.is_(None))
        .order_by(Inspection.id)
        .distinct()
    )
    return list(session.scalars(query))


def _check_role(role: str) -> None:
    if role not in ROLES:
        raise UsageError(f"role {role!r}: known: {', '.join(ROLES)}")


def _user(unit: Unit, name: str) -> Any:
    row = unit.connection.execute(select(UserRow.__table__).where(UserRow.name == name))
    return row.mappings().one_or_none()


def _active(unit: Unit, name: str) -> Any:
    found = _user(unit, name)
    if found is None or not found["active"]:
        raise NotFound(f"no user {name!r}; lad-agent users list shows them")
    return found


def _changed(unit: Unit, station: str, by: str, payload: dict[str, Any]) -> None:
    unit.happened(
        projections.ACCESS_CHANGED, payload, station=station, actor=by, inspection_id=None
    )


def _account(row: Any) -> Account:
    return Account(row["name"], row["role"], row["active"], row["changed_at"], row["hash"])


def _token(row: TokenRow) -> Token:
    return Token(
        id=row.id,
        name=row.name,
        label=row.label,
        scopes=tuple(row.scopes),
        made_at=row.made_at,
        until=row.until,
        revoked_at=row.revoked_at,
    )


_ACCOUNTS = select(
    UserRow.name, UserRow.role, UserRow.active, UserRow.changed_at, PasswordRow.hash
).outerjoin(PasswordRow, PasswordRow.name == UserRow.name)
