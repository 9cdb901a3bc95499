"""The audit store as one object: opens the database, runs transactions, answers questions."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self, TypeVar, cast

from sqlalchemy import URL, Connection, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.orm import Session

from lad_agent.errors import (
    CheckFailed,
    NotFound,
    StoreCorrupt,
    StoreError,
    StoreReadOnly,
    UsageError,
)
from lad_agent.inspection import Intake, Opened, Outcome, ReviewDecision
from lad_agent.judgement import Decision, Judgement
from lad_agent.store import kept, ledger, operations, projections, queries, schema, sqlite
from lad_agent.store.ledger import ChainReport, Ledger
from lad_agent.store.operations import Unit
from lad_agent.store.queries import History, Inspected, InspectionFilter, Review, ReviewFilter
from lad_agent.store.schema import State

T = TypeVar("T")
Operation = Callable[[Unit], object]

BUSY_TIMEOUT_S = 10.0


def open_store(
    value: str | Path, *, create: bool = True, busy_timeout_s: float = BUSY_TIMEOUT_S
) -> "AuditStore":
    """Open the store that `--store` names: a file path or a SQLAlchemy URL.

    Makes a new one where there is none, unless `create` is false. Another process that writes is
    waited for up to `busy_timeout_s`.

    Raises:
        UsageError: not a URL of a kind that can be used.
        StoreError: it cannot be used as it is; the subclass and the message say why.
    """
    return AuditStore(_url(value), create=create, busy_timeout_s=busy_timeout_s)


class AuditStore:
    """The ledger of inspections with its projections, in one database. Thread-safe.

    Every method that writes is one transaction, done when it returns. All methods raise
    `StoreError` (or a subclass) where the database fails.
    """

    def __init__(
        self, url: URL, *, create: bool = True, busy_timeout_s: float = BUSY_TIMEOUT_S
    ) -> None:
        file = sqlite.database_file(url)
        if file is None:
            raise UsageError("an audit store must be a file; give --store a path")
        self.file = file.absolute()
        self.images = self.file.with_name(self.file.name + ".images")
        absolute = url.set(database=str(self.file))
        self._engine = sqlite.engine(absolute, busy_timeout_s=busy_timeout_s)
        try:
            self._open(create)
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
        """See `operations.record`."""
        self._one(lambda unit: operations.record(unit, inspection_id, decision, judgement))

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
            unit.ledger.write()
            return results

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
                f"{self.images}: the image of an escalated part could not be kept "
                f"({error.strerror}); make room or make the folder writable, then run again"
            ) from error

    # --- questions ------------------------------------------------------------------------------

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
    ) -> list[Inspected]:
        """The wanted inspections by time of intake."""
        with self._session() as session:
            return list(
                queries.inspections(session, wanted, newest_first=newest_first, limit=limit)
            )

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
    ) -> list[Review]:
        """The wanted reviews, the one that has waited longest first."""
        with self._session() as session:
            return list(queries.reviews(session, wanted, limit=limit))

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

    def verify_chain(self, station: str | None = None) -> ChainReport:
        """Check the ledger of one station or all; the report lists every fault."""
        with self._connection() as connection:
            return ledger.verify(connection, station)

    def rebuild(self) -> int:
        """Make every projection anew from the events; returns how many events there are.

        Raises:
            CheckFailed: the ledger is not intact; nothing was changed.
        """
        with self._connection(writing=True) as connection:
            report = ledger.verify(connection)
            if not report.intact:
                raise CheckFailed(f"{self.file}: {report.faults[0]}; nothing was rebuilt")
            return projections.rebuild(connection)

    @property
    def schema_version(self) -> str | None:
        """The revision of the database's schema; None where it has none."""
        with self._connection() as connection:
            return schema.version(connection)

    # --- inside ---------------------------------------------------------------------------------

    def _open(self, create: bool) -> None:
        _check_place(self.file, create)
        with self._connection() as connection:
            state = schema.state(connection)
        if state is State.EMPTY and create:
            self._make()
        elif state is not State.CURRENT:
            raise schema.refusal(state, self.file)
        with sqlite.errors_explained(self.file):
            sqlite.use_wal(self._engine)

    def _make(self) -> None:
        with self._connection(writing=True) as connection:
            if schema.state(connection) is State.EMPTY:  # another process may have been faster
                schema.migrate(connection)

    @contextmanager
    def _connection(self, *, writing: bool = False) -> Iterator[Connection]:
        with (
            sqlite.errors_explained(self.file),
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
                    f"{self.file}: a row cannot be read ({type(error).__name__}); "
                    "restore a backup, or give another --store"
                ) from error

    def _one(self, step: Callable[[Unit], T]) -> T:
        return cast("T", self.transact([step])[0])


def _check_place(file: Path, create: bool) -> None:
    try:
        if file.is_dir():
            raise StoreError(f"{file}: is a folder; give --store a file")
        if not file.parent.is_dir():
            raise StoreError(f"{file.parent}: no such folder; make it, or give another --store")
        if not create and not file.exists():
            raise schema.refusal(State.EMPTY, file)
    except OSError as error:
        raise StoreReadOnly(
            f"{file}: cannot be reached ({error.strerror}); change its rights, "
            "or give another --store"
        ) from error


def _url(value: str | Path) -> URL:
    if isinstance(value, Path) or "://" not in value:
        return URL.create("sqlite", database=str(Path(value).absolute()))
    try:
        url = make_url(value)
    except ArgumentError as error:
        raise UsageError("--store is neither a path nor a SQLAlchemy URL") from error
    if url.get_backend_name() != "sqlite":
        raise UsageError(
            f"--store {url.render_as_string(hide_password=True)}: only SQLite can be used; "
            "give a path or sqlite:///PATH"
        )
    return url


def _there(found: T | None, message: str) -> T:
    if found is None:
        raise NotFound(message)
    return found
