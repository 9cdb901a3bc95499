"""The audit store as one object: opens the database, runs transactions, answers questions."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar, cast

from sqlalchemy import URL, Connection
from sqlalchemy.orm import Session

from lad_agent.errors import (
    CheckFailed,
    LadAgentError,
    NotFound,
    StoreCorrupt,
    StoreReadOnly,
)
from lad_agent.inspection import Intake, Opened, Outcome, ReviewDecision
from lad_agent.judgement import Decision, Judgement
from lad_agent.store import (
    heads,
    holds,
    kept,
    operations,
    places,
    projections,
    queries,
    schema,
    sqlite,
    verification,
)
from lad_agent.store.dialects import DIALECTS, errors_explained
from lad_agent.store.faults import ChainReport
from lad_agent.store.filters import InspectionFilter, ReviewFilter
from lad_agent.store.heads import Head, Signing
from lad_agent.store.holds import Alarm, Broken
from lad_agent.store.ledger import Ledger
from lad_agent.store.operations import Unit
from lad_agent.store.queries import History, Inspected, Review
from lad_agent.store.schema import State

log = logging.getLogger(__name__)

T = TypeVar("T")
Operation = Callable[[Unit], object]

BUSY_TIMEOUT_S = 10.0


def open_store(
    value: str | Path,
    *,
    create: bool = True,
    older: bool = False,
    busy_timeout_s: float = BUSY_TIMEOUT_S,
    signing: Signing | None = None,
) -> "AuditStore":
    """Open the store that `--store` names: a file path or a SQLAlchemy URL.

    Makes a new one where there is none, unless `create` is false. One of an older schema is
    opened only with `older`, to migrate it. Another process that writes is waited for up to
    `busy_timeout_s`. With `signing`, heads are signed as it says.

    Raises:
        UsageError: not a URL of a kind that can be used.
        StoreError: it cannot be used as it is; the subclass and the message say why.
    """
    return AuditStore(
        places.url_of(value),
        create=create,
        older=older,
        busy_timeout_s=busy_timeout_s,
        signing=signing,
    )


class AuditStore:
    """The ledger of inspections with its projections, in one database. Thread-safe.

    Every method that writes is one transaction, done when it returns. All methods raise
    `StoreError` (or a subclass) where the database fails.
    """

    def __init__(
        self,
        url: URL,
        *,
        create: bool = True,
        older: bool = False,
        busy_timeout_s: float = BUSY_TIMEOUT_S,
        signing: Signing | None = None,
    ) -> None:
        self._dialect = DIALECTS[url.get_backend_name()]
        self._signing = signing
        self.is_file = self._dialect is sqlite
        """Whether the database is a file, or else lies on a server."""
        self.file = places.file_of(url)
        """The database's file. Of one on a server: what stands for it here, and names what lies
        beside it (images, pauses)."""
        self.images = self.file.with_name(self.file.name + ".images")
        if self.is_file:
            url = url.set(database=str(self.file))
        self.name = str(self.file) if self.is_file else url.render_as_string(hide_password=True)
        """What messages call it."""
        with errors_explained(self._dialect, self.name):
            self._engine = self._dialect.engine(url, busy_timeout_s=busy_timeout_s)
        try:
            self._open(create, older)
        except BaseException:
            self._engine.dispose()
            raise

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- the steps of an inspection -------------------------------------------------------------

    def take_in(self, intake: Intake) -> Opened:
        """See `operations.take_in`."""
        return self._one(lambda unit: operations.take_in(unit, intake))

    def record(self, inspection_id: str, decision: Decision, judgement: Judgement | None) -> None:
        """Keep a copy of the image where it will be audited, then see `operations.record`."""
        copy = self.keep_image(inspection_id) if decision.audit else None
        self._one(lambda unit: operations.record(unit, inspection_id, decision, judgement, copy))

    def escalate(self, inspection_id: str, decision: Decision, judgement: Judgement | None) -> str:
        """Keep a copy of the image, then see `operations.escalate`."""
        copy = self.keep_image(inspection_id)
        return self._one(
            lambda unit: operations.escalate(unit, inspection_id, decision, judgement, copy)
        )

    def decide_review(self, review_id: str, decision: ReviewDecision) -> Review:
        """Take a person's decision; see `operations.decide_review`."""
        self._one(lambda unit: operations.decide_review(unit, review_id, decision))
        return self.review(review_id)

    def claim_review(self, review_id: str, by: str, lease_s: float) -> str:
        """See `operations.claim_review`."""
        return self._one(lambda unit: operations.claim_review(unit, review_id, by, lease_s))

    def release_review(self, review_id: str, by: str) -> None:
        """See `operations.release_review`."""
        self._one(lambda unit: operations.release_review(unit, review_id, by))

    def undo_review(self, review_id: str, by: str, reason: str) -> Review:
        """Take a decision back; see `operations.undo_review`."""
        self._one(lambda unit: operations.undo_review(unit, review_id, by, reason))
        return self.review(review_id)

    def apply_review(self, inspection_id: str) -> None:
        """See `operations.apply_review`."""
        self._one(lambda unit: operations.apply_review(unit, inspection_id))

    def transact(self, steps: Sequence[Operation]) -> list[object]:
        """Run steps in one transaction, one commit; returns what each returned.

        Raises:
            Exception: of the first step that failed; then nothing of all was written.
        """
        with self._connection(writing=True) as connection:
            unit = Unit(connection, Ledger(connection))
            results = [step(unit) for step in steps]
            signed = self._signing is not None and heads.is_due(unit, self._signing)
            if signed:
                heads.sign(unit, cast("Signing", self._signing))
            unit.write()
        if signed:
            self._export_heads()
        return results

    def keep_content(self, content: bytes, suffix: str) -> Path:
        """Keep an image that came without a file, in `images` under its hash; where it lies.

        Raises:
            StoreReadOnly: it could not be written.
        """
        try:
            return kept.keep_content(content, suffix, self.images)
        except OSError as error:
            raise StoreReadOnly(
                f"{self.images}: an image could not be kept ({error.strerror}); make room or "
                "make the folder writable, then send it again"
            ) from error

    def keep_image(self, inspection_id: str) -> str | None:
        """Copy an inspection's image into `images`; its path there, or None if it is gone.

        Raises:
            NotFound: no such inspection.
        """
        intake = self.inspection(inspection_id).intake
        if intake.image_sha256 is None:
            return None
        try:
            return kept.keep(Path(intake.image), intake.image_sha256, self.images)
        except OSError as error:
            raise StoreReadOnly(
                f"{self.images}: the image of a part for review could not be kept "
                f"({error.strerror}); make room or make the folder writable, then run again"
            ) from error

    # --- facts of the plant ---------------------------------------------------------------------

    def put_hold(self, station: str, by: str, reason: str, product: str | None = None) -> str:
        """See `holds.put_hold`."""
        return self._one(lambda unit: holds.put_hold(unit, station, by, reason, product))

    def release_hold(self, station: str, by: str, product: str | None = None) -> int:
        """See `holds.release_hold`."""
        return self._one(lambda unit: holds.release_hold(unit, station, by, product))

    def raise_alarms(self, station: str, by: str, found: Sequence[Broken]) -> list[Alarm]:
        """See `holds.raise_alarms`."""
        return self._one(lambda unit: holds.raise_alarms(unit, station, by, found))

    def exported(self, station: str, by: str, what: Mapping[str, Any]) -> None:
        """See `operations.exported`."""
        self._one(lambda unit: operations.exported(unit, station, by, what))

    # --- questions ------------------------------------------------------------------------------

    def ask(self, question: Callable[[Session], T]) -> T:
        """Answer a question of `queries`, `stats` or `export` within one read transaction."""
        with self._session() as session:
            return question(session)

    def outcome(self, inspection_id: str) -> Outcome | None:
        """The outcome of an inspection, None while it is open or where it is not known."""
        with self._session() as session:
            found = queries.inspection(session, inspection_id)
            return found.outcome if found else None

    def inspection(self, inspection_id: str) -> Inspected:
        """The inspection of that id.

        Raises:
            NotFound: there is none.
        """
        with self._session() as session:
            found = queries.inspection(session, inspection_id)
        return _there(found, f"no inspection {inspection_id!r}; lad-agent audit list shows them")

    def inspections(
        self,
        wanted: InspectionFilter = InspectionFilter(),  # noqa: B008 - frozen
        *,
        newest_first: bool = True,
        limit: int | None = None,
        after: str | None = None,
    ) -> list[Inspected]:
        """The wanted inspections by time of intake, from the one that follows the id `after`."""
        with self._session() as session:
            found = queries.inspections(
                session, wanted, newest_first=newest_first, limit=limit, after=after
            )
            return list(found)

    def count(self, wanted: InspectionFilter = InspectionFilter()) -> int:  # noqa: B008 - frozen
        """How many inspections are of the wanted kind."""
        with self._session() as session:
            return queries.count(session, wanted)

    def history(self, inspection_id: str) -> History:
        """All that is known of one inspection.

        Raises:
            NotFound: there is none of that id.
        """
        with self._session() as session:
            found = queries.history(session, inspection_id)
        return _there(found, f"no inspection {inspection_id!r}; lad-agent audit list shows them")

    def last_attempt(self, intake: Intake) -> int:
        """The highest attempt at the same image, part, recipe and model so far; 0 if none."""
        with self._session() as session:
            return queries.last_attempt(session, intake)

    def reviews(
        self,
        wanted: ReviewFilter = ReviewFilter(),  # noqa: B008 - frozen
        *,
        limit: int | None = None,
        after: str | None = None,
    ) -> list[Review]:
        """The wanted reviews, the one that has waited longest first, from the one after an id."""
        with self._session() as session:
            return list(queries.reviews(session, wanted, limit=limit, after=after))

    def review(self, review_id: str) -> Review:
        """The review of that id.

        Raises:
            NotFound: there is none.
        """
        with self._session() as session:
            found = queries.review(session, review_id)
        return _there(found, f"no review {review_id!r}; lad-agent review list shows them")

    def review_decision(self, inspection_id: str) -> ReviewDecision | None:
        """The decision about an escalated inspection, None while it is awaited."""
        with self._session() as session:
            return queries.review_decision(session, inspection_id)

    # --- the ledger -----------------------------------------------------------------------------

    def verify_chain(
        self,
        station: str | None = None,
        *,
        exported: Sequence[Head] = (),
        trusted: frozenset[str] = frozenset(),
        told: Callable[[int], None] | None = None,
    ) -> ChainReport:
        """Check the ledger of one station or all; see `verification.verify`."""
        with self._connection() as connection:
            return verification.verify(
                connection, station, exported=exported, trusted=trusted, told=told
            )

    def sign_head(self, signing: Signing) -> None:
        """Sign where every chain stands now."""
        self._one(lambda unit: heads.sign(unit, signing))

    def export_heads(self, file: Path) -> int:
        """Append to `file` the signed heads that it lacks; see `heads.export`."""
        with self._connection() as connection:
            return heads.export(connection, file)

    def rebuild(self, told: Callable[[int], None] | None = None) -> int:
        """Make every projection anew from the events; returns how many events there are.

        One transaction: whoever reads meanwhile sees the tables as they were, and so they stay if
        it is cut off. `told` hears how many events are done, every few thousand.

        Raises:
            CheckFailed: the ledger is not intact; nothing was changed.
        """
        with self._connection(writing=True) as connection:
            report = verification.verify(connection)
            if not report.intact:
                raise CheckFailed(f"{self.name}: {report.faults[0]}; nothing was rebuilt")
            return projections.rebuild(connection, told)

    def changed_tables(self) -> list[str]:
        """The projections that are not what the events say, by name; nothing is changed.

        Nobody else can write meanwhile.
        """
        with self._connection(writing=True) as connection, connection.begin_nested() as trial:
            before = projections.digests(connection)
            projections.rebuild(connection)
            after = projections.digests(connection)
            trial.rollback()
        return [name for name, digest in after.items() if before[name] != digest]

    def migrate(self) -> None:
        """Bring a store of an older schema to this version's; all in one transaction."""
        with self._connection(writing=True) as connection:
            if schema.state(connection) is State.OLDER:
                schema.migrate(connection)
                projections.rebuild(connection)

    def copy(self, target: Path) -> None:
        """Copy the file as it is into the new file `target`, while others go on working."""
        with errors_explained(sqlite, str(target)):
            sqlite.copy(self._engine, target)

    def compact(self) -> None:
        """Make the database one file without leftovers, as it is carried about."""
        with errors_explained(self._dialect, self.name):
            sqlite.compact(self._engine)

    def prune_images(self, budget: int) -> list[str]:
        """Delete kept images, the oldest first, until they are within `budget` bytes.

        What an undecided review shows stays. Returns the deleted ones, relative to `images`.

        Raises:
            StoreReadOnly: one cannot be deleted.
        """
        needed = {review.kept for review in self.reviews(ReviewFilter(decided=False))}
        try:
            return kept.prune(self.images, budget, {name for name in needed if name})
        except OSError as error:
            raise StoreReadOnly(
                f"{self.images}: an image cannot be deleted ({error.strerror}); change its rights"
            ) from error

    @property
    def schema_version(self) -> str | None:
        """The revision of the database's schema; None where it has none."""
        with self._connection() as connection:
            return schema.version(connection)

    # --- inside ---------------------------------------------------------------------------------

    def _open(self, create: bool, older: bool) -> None:
        if self.is_file:
            places.check(self.file, create)
        with self._connection() as connection:
            state = schema.state(connection)
        if state is State.EMPTY and create:
            self._make()
        elif state is not State.CURRENT and not (older and state is State.OLDER):
            raise schema.refusal(state, self.name)
        if not self._is_sealed:
            with errors_explained(self._dialect, self.name):
                self._dialect.prepare(self._engine)

    def _make(self) -> None:
        with self._connection(writing=True) as connection:
            if schema.state(connection) is State.EMPTY:  # another process may have been faster
                schema.migrate(connection)

    @property
    def _is_sealed(self) -> bool:
        """An archive: nobody has the right to write it, so not one byte of it is changed."""
        return self.is_file and self.file.exists() and not self.file.stat().st_mode & 0o222

    def _export_heads(self) -> None:
        """A head that cannot be exported now is exported with the next; `doctor` shows its age."""
        if self._signing is not None and self._signing.export_to is not None:
            try:
                self.export_heads(self._signing.export_to)
            except LadAgentError as error:
                log.warning("%s", error)

    @contextmanager
    def _connection(self, *, writing: bool = False) -> Iterator[Connection]:
        if writing and self._is_sealed:
            raise StoreReadOnly(
                f"{self.name}: nobody has the right to write it (an archive?); give another --store"
            )
        with (
            errors_explained(self._dialect, self.name),
            self._engine.connect().execution_options(writing=writing) as connection,
            connection.begin(),
        ):
            yield connection

    @contextmanager
    def _session(self) -> Iterator[Session]:
        with self._connection() as connection, Session(connection) as session:
            try:
                yield session
            except ValueError as error:
                raise StoreCorrupt(
                    f"{self.name}: a row cannot be read ({type(error).__name__}); "
                    "restore a backup, or give another --store"
                ) from error

    def _one(self, step: Callable[[Unit], T]) -> T:
        return cast("T", self.transact([step])[0])


def _there(found: T | None, message: str) -> T:
    if found is None:
        raise NotFound(message)
    return found
