"""Rows as files that other programs read: CSV, JSON, JSON lines, Parquet.

Rows are streamed: an export of any size takes little memory. A file is whole, or not there.
"""

import csv
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import Double, Integer, Select, TableClause, select
from sqlalchemy.orm import Session

from lad_agent import atomic
from lad_agent.errors import UsageError
from lad_agent.results import neutral
from lad_agent.store.filters import InspectionFilter, inspection_terms
from lad_agent.store.models import Inspection
from lad_agent.store.views import INSPECTIONS, REVIEWS

SUFFIXES = (".csv", ".json", ".jsonl", ".parquet")

Columns = Mapping[str, type]
"""Names in their order, each with `str`, `int` or `float`; any value may be None."""
Row = Mapping[str, Any]

_GROUP = 10_000


@dataclass(frozen=True)
class Written:
    """A file that was written: rows in it, and the SHA-256 of its bytes."""

    rows: int
    sha256: str


def columns(view: TableClause) -> Columns:
    """The columns of a view with their types."""
    kinds = {Integer: int, Double: float}
    return {column.name: kinds.get(type(column.type), str) for column in view.c}


def inspections(session: Session, wanted: InspectionFilter) -> Iterator[Row]:
    """The wanted rows of `v_inspections` by their intake's time.

    Raises:
        UsageError: a `text` without a word in it.
    """
    view = INSPECTIONS.c
    query = select(INSPECTIONS).where(*inspection_terms(wanted, view)).order_by(view.id)
    yield from _rows(session, query)


def reviews(session: Session, wanted: InspectionFilter) -> Iterator[Row]:
    """The rows of `v_reviews` whose inspections are wanted, by the time they were opened."""
    query = select(REVIEWS).order_by(REVIEWS.c.id)
    if wanted != InspectionFilter():
        ids = select(Inspection.id).where(*inspection_terms(wanted))
        query = query.where(REVIEWS.c.inspection_id.in_(ids))
    yield from _rows(session, query)


def write(
    path: Path,
    columns: Columns,
    rows: Iterable[Row],
    note: Callable[[Written], object] = lambda written: None,
) -> Written:
    """Write `rows` as the suffix of `path` says.

    In CSV a text that a spreadsheet would take as a formula gets a `'` before it. `note` is told of
    the file when it is whole, before it gets its name: no file is there that was not noted.

    Raises:
        UsageError: another suffix, no folder there, or the file cannot be written.
        ImportError: `.parquet` without pyarrow.
    """
    writer = _WRITERS.get(path.suffix.lower())
    if writer is None:
        raise UsageError(f"{path}: ends in none of {' '.join(SUFFIXES)}")
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise UsageError(f"{path}: give a file in a folder that is there")
    try:
        with atomic.replacing(path) as part:
            count = writer(part, columns, rows)
            with part.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                os.fsync(file.fileno())
            written = Written(count, digest)
            note(written)
        atomic.sync_folder(path.absolute().parent)
    except OSError as error:
        raise UsageError(
            f"{path}: cannot be written ({error.strerror or error}); make room, or give another"
        ) from error
    return written


def _rows(session: Session, query: Select[Any]) -> Iterator[Row]:
    for row in session.execute(query.execution_options(yield_per=1000)):
        yield row._asdict()


def _write_csv(path: Path, columns: Columns, rows: Iterable[Row]) -> int:
    # A file name that is no UTF-8 reaches us with lone surrogates; they are written as \udcXX.
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        table = csv.writer(file, lineterminator="\r\n")
        table.writerow(columns)
        count = 0
        for count, row in enumerate(rows, 1):  # noqa: B007 - the last one is the number of rows
            table.writerow([neutral(row[name]) for name in columns])
        return count


def _write_json(path: Path, columns: Columns, rows: Iterable[Row]) -> int:
    with path.open("w", encoding="utf-8", errors="backslashreplace") as file:
        count = 0
        for count, line in enumerate(_lines(columns, rows), 1):
            file.write(("[\n" if count == 1 else ",\n") + line)
        file.write("\n]\n" if count else "[]\n")
        return count


def _write_jsonl(path: Path, columns: Columns, rows: Iterable[Row]) -> int:
    with path.open("w", encoding="utf-8", errors="backslashreplace") as file:
        count = 0
        for count, line in enumerate(_lines(columns, rows), 1):  # noqa: B007
            file.write(line + "\n")
        return count


def _lines(columns: Columns, rows: Iterable[Row]) -> Iterator[str]:
    for row in rows:
        yield json.dumps({name: row[name] for name in columns}, ensure_ascii=False)


def _write_parquet(path: Path, columns: Columns, rows: Iterable[Row]) -> int:
    import pyarrow
    from pyarrow import parquet

    types = {str: pyarrow.string(), int: pyarrow.int64(), float: pyarrow.float64()}
    schema = pyarrow.schema([(name, types[kind]) for name, kind in columns.items()])
    left, count = iter(rows), 0
    with parquet.ParquetWriter(path, schema, compression="zstd") as file:
        while group := list(islice(left, _GROUP)):
            texts = [{name: _utf8(row[name]) for name in columns} for row in group]
            file.write_table(pyarrow.Table.from_pylist(texts, schema=schema))
            count += len(group)
    return count


def _utf8(value: object) -> object:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    return value


_WRITERS: dict[str, Callable[[Path, Columns, Iterable[Row]], int]] = {
    ".csv": _write_csv,
    ".json": _write_json,
    ".jsonl": _write_jsonl,
    ".parquet": _write_parquet,
}
