"""Exports: whole, typed, and harmless to whoever opens them."""

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from lad_agent.errors import UsageError
from lad_agent.results import neutral, printable
from lad_agent.store import AuditStore, InspectionFilter, export, open_store, views
from tests.store.populated import populate
from tests.store.samples import HOSTILE, NOT_OK, intake, judgement

FORMULAS = (
    '=HYPERLINK("http://x","y")',
    "+1+1",
    "-2+3",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "＝1",
    '"=1"',
    "a,=1",
    HOSTILE,
)
"""Texts that a spreadsheet takes for a formula, and some that try to come to be one."""

COLUMNS = export.columns(views.INSPECTIONS)
TEXTS = (
    "part_id",
    "station",
    "lot",
    "product",
    "rationale",
    "rule",
    "reviewer",
    "comment",
    "image",
)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Mapping[str, Any]]]:
    """Every kind of inspection, and one with each formula in every text."""
    with open_store(tmp_path_factory.mktemp("export") / "audit.db") as store:
        populate(store)
        for text in FORMULAS:
            _record(store, text)
        yield store.ask(lambda session: list(export.inspections(session, InspectionFilter())))


def _record(store: AuditStore, text: str) -> None:
    opened = store.take_in(
        intake(f"{text}.", station=text, lot=text, product=text, image=text, model=text, actor=text)
    )
    store.record(opened.id, NOT_OK, judgement(rationale=text, rule=text))


@pytest.mark.parametrize("suffix", export.SUFFIXES)
def test_every_format_holds_every_row(
    tmp_path: Path, rows: list[Mapping[str, Any]], suffix: str
) -> None:
    path = tmp_path / f"all{suffix}"
    written = export.write(path, COLUMNS, iter(rows))
    assert written.rows == len(rows) == 8 + len(FORMULAS)
    found = _read(path)
    assert [row["id"] for row in found] == [row["id"] for row in rows]
    assert all(list(row) == list(COLUMNS) for row in found)
    assert [path] == list(tmp_path.iterdir())
    assert len(written.sha256) == 64


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_json_gives_texts_back_verbatim(
    tmp_path: Path, rows: list[Mapping[str, Any]], suffix: str
) -> None:
    export.write(tmp_path / f"all{suffix}", COLUMNS, rows)
    assert _read(tmp_path / f"all{suffix}") == [dict(row) for row in rows]


def test_parquet_gives_types_and_texts_back(tmp_path: Path, rows: list[Mapping[str, Any]]) -> None:
    export.write(tmp_path / "all.parquet", COLUMNS, rows)
    schema = parquet.read_schema(tmp_path / "all.parquet")
    assert [str(schema.field(name).type) for name in ("id", "anomalous", "confidence")] == [
        "string", "int64", "double"
    ]  # fmt: skip
    for row, found in zip(rows, _read(tmp_path / "all.parquet"), strict=True):
        assert found == {
            name: value.encode("utf-8", "backslashreplace").decode()
            if isinstance(value, str)
            else value
            for name, value in row.items()
        }


def test_no_cell_of_a_csv_is_a_formula(tmp_path: Path, rows: list[Mapping[str, Any]]) -> None:
    export.write(tmp_path / "all.csv", COLUMNS, rows)
    found = _read(tmp_path / "all.csv")
    for row, wanted in zip(found, rows, strict=True):
        for name in TEXTS:
            cell, text = row[name], wanted[name] or ""
            assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "＝"))
            assert cell.removeprefix("'") in (text, _utf8(text)) or cell == _utf8(text)
    numbers = [row["anomaly_score"] for row in found if row["anomaly_score"]]
    assert all(float(number) >= 0 for number in numbers)


@given(st.text())
def test_neutral_texts_begin_with_nothing_dangerous(text: str) -> None:
    made = str(neutral(text))
    assert not made.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert made in (text, "'" + text)


@given(st.text())
def test_printable_texts_obey_no_code(text: str) -> None:
    made = printable(text)
    assert made.isprintable()
    assert printable(made) == made
    made.encode()


def test_reviews_are_those_of_the_wanted_inspections(store: AuditStore) -> None:
    populate(store)
    everything = store.ask(lambda session: list(export.reviews(session, InspectionFilter())))
    assert [row["part_id"] for row in everything] == ["a", "c", "d", "e", "f", HOSTILE]
    assert [row["agrees"] for row in everything] == [1, 1, None, 0, 0, 0]
    some = InspectionFilter(product="pushpins", reviewer="bert")
    found = store.ask(lambda session: list(export.reviews(session, some)))
    assert [row["part_id"] for row in found] == ["e"]


def test_no_rows_are_a_file_too(tmp_path: Path) -> None:
    for suffix in export.SUFFIXES:
        path = tmp_path / f"none{suffix}"
        assert export.write(path, COLUMNS, []).rows == 0
        assert _read(path) == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("all.xlsx", "ends in none of .csv .json .jsonl .parquet"),
        ("gone/all.csv", "give a file in a folder that is there"),
    ],
)
def test_a_place_that_cannot_be_is_refused(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        export.write(tmp_path / name, COLUMNS, [])


def test_a_failed_export_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "all.csv"
    path.write_text("old")

    def failing() -> Iterator[Mapping[str, Any]]:
        yield dict.fromkeys(COLUMNS)
        raise OSError(28, "No space left on device")

    with pytest.raises(UsageError, match="No space left"):
        export.write(path, COLUMNS, failing())
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def _read(path: Path) -> list[dict[str, Any]]:
    match path.suffix:
        case ".csv":
            with path.open(encoding="utf-8", newline="") as file:
                return list(csv.DictReader(file))
        case ".json":
            found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
            return found
        case ".jsonl":
            return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]
        case _:
            rows: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
            return rows


def _utf8(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
