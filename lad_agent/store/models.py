"""The tables of the audit store, typed.

`events` and `chains` are the ledger; every other table is a projection of the events, written in
the same transaction and rebuilt from them at will (`lad_agent.store.projections`).
"""

import re
from typing import Any

from sqlalchemy import (
    JSON,
    CheckConstraint,
    Dialect,
    ForeignKey,
    Index,
    MetaData,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

SCHEMA_VERSION = "0012"
"""The revision of the newest migration, which these tables mirror."""

_ODD = re.compile("[\x00\ud800-\udfff\uffff]")
_ESCAPED = re.compile("\uffff([0-9a-f]{4})")


def escaped(text: str) -> str:
    """`text` as UTF-8 and every database can hold it; `unescaped` gives it back verbatim.

    File names that are no UTF-8 reach Python as lone surrogates, and PostgreSQL refuses NUL. Each
    of these becomes U+FFFF, which no text uses, and its code in hex; U+FFFF itself likewise.

    >>> unescaped(escaped("a\\x00\\udc80\\uffff")) == "a\\x00\\udc80\\uffff"
    True
    """
    if _ODD.search(text) is None:
        return text
    return _ODD.sub(lambda match: f"\uffff{ord(match[0]):04x}", text)


def unescaped(text: str) -> str:
    """The inverse of `escaped`."""
    if "\uffff" not in text:
        return text
    return _ESCAPED.sub(lambda match: chr(int(match[1], 16)), text)


class Verbatim(TypeDecorator[str]):
    """Text of any kind, hostile or not, given back exactly as it came."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else escaped(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else unescaped(value)


class Base(DeclarativeBase):
    """Metadata of all tables; times are UTC in ISO 8601 with microseconds, ids are UUIDv7."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {str: Verbatim, dict[str, Any]: JSON, list[str]: JSON}  # noqa: RUF012


class Event(Base):
    """One thing that happened. Append-only by triggers.

    `canonical` is the RFC 8785 JSON of all other columns (but `hash`) and the payload; `hash` is
    the SHA-256 of its bytes; `prev_hash` is the hash of the station's event before.
    """

    __tablename__ = "events"
    __table_args__ = (Index(None, "station", "seq"),)

    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    station: Mapped[str]
    type: Mapped[str]
    inspection_id: Mapped[str | None] = mapped_column(index=True)
    at: Mapped[str]
    actor: Mapped[str]
    canonical: Mapped[str] = mapped_column(Text)
    prev_hash: Mapped[str]
    hash: Mapped[str] = mapped_column(unique=True)


class Chain(Base):
    """The end of a station's chain, so that a missing tail is found too."""

    __tablename__ = "chains"

    station: Mapped[str] = mapped_column(primary_key=True)
    seq: Mapped[int]
    hash: Mapped[str]
    events: Mapped[int]


class RecipeRow(Base):
    """A recipe version that parts were judged against.

    `content` holds its rules, hashes of the references, region, policy and calibration; null
    where the file had changed before it could be taken in.
    """

    __tablename__ = "recipes"

    recipe_version: Mapped[str] = mapped_column(primary_key=True)
    task_version: Mapped[str]
    product: Mapped[str]
    path: Mapped[str]
    content: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    first_at: Mapped[str]


class ModelRow(Base):
    """A reasoner, by its fingerprint."""

    __tablename__ = "models"

    model: Mapped[str] = mapped_column(primary_key=True)
    first_at: Mapped[str]


class Inspection(Base):
    """One image of one part judged against one recipe version.

    Open until `recorded_at`; then `result` stands. `final` is the result after review, null while
    an escalation is open; `closed_at` is when the workflow had nothing left to do.
    """

    __tablename__ = "inspections"
    __table_args__ = (Index(None, "product", "result"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(unique=True)
    part_id: Mapped[str] = mapped_column(index=True)
    station: Mapped[str]
    lot: Mapped[str | None]
    attempt: Mapped[int]
    image: Mapped[str]
    image_sha256: Mapped[str | None] = mapped_column(index=True)
    product: Mapped[str]
    task_version: Mapped[str]
    recipe_version: Mapped[str] = mapped_column(ForeignKey(RecipeRow.recipe_version))
    recipe_path: Mapped[str]
    model: Mapped[str] = mapped_column(ForeignKey(ModelRow.model))
    actor: Mapped[str]
    opened_at: Mapped[str]
    result: Mapped[str | None]
    reason: Mapped[str | None]
    detail: Mapped[str | None]
    audit: Mapped[bool]
    final: Mapped[str | None]
    recorded_at: Mapped[str | None]
    closed_at: Mapped[str | None]


class JudgementRow(Base):
    """The reasoner's answer; none where it was not asked, or had none."""

    __tablename__ = "judgements"

    inspection_id: Mapped[str] = mapped_column(ForeignKey(Inspection.id), primary_key=True)
    at: Mapped[str]
    anomalous: Mapped[bool | None]
    anomaly_score: Mapped[float | None]
    confidence: Mapped[float | None]
    rationale: Mapped[str]
    rule: Mapped[str | None]
    places: Mapped[list[str]]
    raw_text: Mapped[str]
    well_formed: Mapped[bool]
    weakest_token: Mapped[float | None]
    samples: Mapped[int]
    agreement: Mapped[float | None]
    evidence: Mapped[str]
    evidence_detail: Mapped[str | None]
    seen_product: Mapped[str | None]
    model: Mapped[str]
    tokens: Mapped[int]
    elapsed_s: Mapped[float]
    mean_logprob: Mapped[float | None]
    sum_logprob: Mapped[float | None]
    image_quality: Mapped[float | None]


class ReviewRow(Base):
    """A part waiting for a person, or decided by one.

    `kept` is the copy of the image, relative to the store's folder of images; null where the
    image was not there any more. `agrees` is 1 where the finding says what the reasoner said, 0
    where not, null where one of them is missing.
    """

    __tablename__ = "reviews"
    __table_args__ = (
        UniqueConstraint("inspection_id", "kind"),
        CheckConstraint("(decided_at IS NULL) = (finding IS NULL)", name="decided"),
        CheckConstraint(
            "finding IS NULL OR (finding = 'nonconforming') = (disposition IS NOT NULL)",
            name="disposition",
        ),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    inspection_id: Mapped[str] = mapped_column(ForeignKey(Inspection.id))
    kind: Mapped[str]
    opened_at: Mapped[str]
    kept: Mapped[str | None]
    decided_at: Mapped[str | None] = mapped_column(index=True)
    decided_by: Mapped[str | None]
    finding: Mapped[str | None]
    disposition: Mapped[str | None]
    rule: Mapped[str | None]
    comment: Mapped[str | None]
    agrees: Mapped[int | None]


class ClaimRow(Base):
    """Who has an open review in hand, and until when nobody else may decide it."""

    __tablename__ = "claims"

    review_id: Mapped[str] = mapped_column(ForeignKey(ReviewRow.id), primary_key=True)
    at: Mapped[str]
    by: Mapped[str]
    until: Mapped[str]


class InForce(Base):
    """What a station judges a product with: `what` is recipe or model, `value` its version."""

    __tablename__ = "in_force"

    station: Mapped[str] = mapped_column(primary_key=True)
    product: Mapped[str] = mapped_column(primary_key=True)
    what: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]
    since: Mapped[str]
    by: Mapped[str]


class HoldRow(Base):
    """A hold: while it is on, every part (of the product, where it names one) goes to people."""

    __tablename__ = "holds"

    id: Mapped[str] = mapped_column(primary_key=True)
    product: Mapped[str | None]
    reason: Mapped[str]
    on_at: Mapped[str]
    on_by: Mapped[str]
    released_at: Mapped[str | None]
    released_by: Mapped[str | None]


class AlarmRow(Base):
    """A promise that was seen to be broken, until a person has answered (see `holds.Broken`).

    `recipe_version` is null in alarms of an older version of the package.
    """

    __tablename__ = "alarms"

    id: Mapped[str] = mapped_column(primary_key=True)
    product: Mapped[str]
    recipe_version: Mapped[str | None]
    model: Mapped[str]
    calibrated_at: Mapped[str]
    what: Mapped[str]
    detail: Mapped[str]
    raised_at: Mapped[str]
    answered_at: Mapped[str | None]
    answered_by: Mapped[str | None]


class UserRow(Base):
    """A person who may use the service, as last changed."""

    __tablename__ = "users"

    name: Mapped[str] = mapped_column(primary_key=True)
    role: Mapped[str]
    active: Mapped[bool]
    changed_at: Mapped[str]
    changed_by: Mapped[str]


class HeadRow(Base):
    """A signed head: event `seq` says that the ledger stood at event `through`."""

    __tablename__ = "heads"

    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    through: Mapped[int]
    at: Mapped[str]
    public_key: Mapped[str]


class ArchiveRow(Base):
    """A sealed period: event `seq` says that all events up to `through` went into `file`."""

    __tablename__ = "archives"

    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    through: Mapped[int]
    at: Mapped[str]
    file: Mapped[str]


class TallyRow(Base):
    """How many inspections of a day are alike; "" where they have no result or cause (yet)."""

    __tablename__ = "tallies"
    __table_args__ = {"sqlite_with_rowid": False}  # noqa: RUF012

    day: Mapped[str] = mapped_column(primary_key=True)
    product: Mapped[str] = mapped_column(primary_key=True)
    station: Mapped[str] = mapped_column(primary_key=True)
    recipe_version: Mapped[str] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(primary_key=True)
    result: Mapped[str] = mapped_column(primary_key=True)
    final: Mapped[str] = mapped_column(primary_key=True)
    cause: Mapped[str] = mapped_column(primary_key=True)
    inspections: Mapped[int]


class HourlyTallyRow(Base):
    """How many inspections of an hour are alike in less; "" where they have no result (yet)."""

    __tablename__ = "hourly_tallies"
    __table_args__ = {"sqlite_with_rowid": False}  # noqa: RUF012

    hour: Mapped[str] = mapped_column(primary_key=True)
    product: Mapped[str] = mapped_column(primary_key=True)
    station: Mapped[str] = mapped_column(primary_key=True)
    result: Mapped[str] = mapped_column(primary_key=True)
    final: Mapped[str] = mapped_column(primary_key=True)
    inspections: Mapped[int]


class LotTallyRow(Base):
    """How many inspections of a lot are alike; "" where they have no lot, or no result (yet)."""

    __tablename__ = "lot_tallies"
    __table_args__ = {"sqlite_with_rowid": False}  # noqa: RUF012

    lot: Mapped[str] = mapped_column(primary_key=True)
    product: Mapped[str] = mapped_column(primary_key=True)
    station: Mapped[str] = mapped_column(primary_key=True)
    result: Mapped[str] = mapped_column(primary_key=True)
    final: Mapped[str] = mapped_column(primary_key=True)
    inspections: Mapped[int]


PROJECTIONS = (
    RecipeRow,
    ModelRow,
    Inspection,
    JudgementRow,
    ReviewRow,
    ClaimRow,
    InForce,
    HoldRow,
    AlarmRow,
    UserRow,
    HeadRow,
    ArchiveRow,
    TallyRow,
    HourlyTallyRow,
    LotTallyRow,
)
"""Every table that is rebuilt from the events, parents first."""
