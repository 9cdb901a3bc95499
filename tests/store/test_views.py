"""The views: their columns are a promise, and every query of the docs runs on them."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import Select, inspect, select, text
from sqlalchemy.exc import DBAPIError

from lad_agent.store import VIEWS_VERSION, AuditStore, InspectionFilter, open_store, schema, views
from tests.store.populated import populate

COLUMNS = {
    "v_inspections": (
        "id part_id station lot attempt product result final reason detail cause anomalous "
        "anomaly_score confidence decision_score rationale rule places well_formed evidence "
        "evidence_detail reviewer finding disposition comment reviewed_at audit image "
        "image_sha256 task_version recipe_version model actor opened_at recorded_at closed_at "
        "day hour tokens elapsed_s"
    ),
    "v_reviews": (
        "id inspection_id kind part_id station lot product result anomalous opened_at decided_at "
        "decided_by finding disposition rule comment agrees day"
    ),
    "v_daily_yield": "day product station inspections ok not_ok waiting escalated yield_rate",
    "v_causes": "day product station cause inspections",
    "v_daily_counts": "day product station recipe_version model result final cause inspections",
    "v_hourly_counts": "hour product station result final inspections",
    "v_lot_counts": "lot product station result final inspections",
}
"""Pinned at version 4: add at the end, raise the version, and say so in docs/querying.md."""

TIMES = {"id", "opened_at", "recorded_at", "closed_at", "reviewed_at", "day", "hour"}

DOCS = Path(__file__).parents[2] / "docs"
QUERIES = re.findall(r"```sql\n(.*?)```", (DOCS / "querying.md").read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuditStore]:
    with open_store(tmp_path_factory.mktemp("views") / "audit.db") as store:
        populate(store)
        yield store


def test_the_columns_are_those_that_were_promised(filled: AuditStore) -> None:
    with filled._connection() as connection:
        found = {
            name: [column["name"] for column in inspect(connection).get_columns(name)]
            for name in inspect(connection).get_view_names()
        }
    assert found == {name: columns.split() for name, columns in COLUMNS.items()}
    assert {view.name: view.c.keys() for view in views.ALL} == found
    assert VIEWS_VERSION == 4


def test_every_column_is_explained() -> None:
    told = (DOCS / "querying.md").read_text()
    for columns in COLUMNS.values():
        assert [name for name in columns.split() if f"`{name}`" not in told] == []


def test_views_cannot_be_written(filled: AuditStore) -> None:
    for name in COLUMNS:
        with (
            pytest.raises(Exception, match=rf"{name}|view"),
            filled._connection(writing=True) as connection,
        ):
            connection.execute(text(f"DELETE FROM {name}"))


def test_what_a_row_says(filled: AuditStore) -> None:
    with filled._connection() as connection:
        rows = connection.execute(
            text("SELECT part_id, result, final, cause, reviewer, finding, anomalous, "
                 "decision_score, audit FROM v_inspections ORDER BY id")
        ).all()  # fmt: skip
    assert [tuple(row) for row in rows[:-1]] == [
        ("a", "OK", "OK", None, "anna", "conforming", 0, 0.171875, 1),
        ("b", "NotOK", "NotOK", "R1", None, None, 1, 0.828125, 0),
        ("c", "NotDecidable", "NotOK", "R2", "bert", "nonconforming", 1, 0.828125, 0),
        ("d", "NotDecidable", None, None, None, None, None, None, 0),
        ("e", "OK", "NotOK", "R3", "bert", "nonconforming", 0, 0.171875, 1),
        ("f", "NotOK", "OK", None, "anna", "conforming", 1, 0.828125, 1),
        ("g", None, None, None, None, None, None, None, 0),
    ]


def test_what_the_sums_say(filled: AuditStore) -> None:
    with filled._connection() as connection:
        yields = connection.execute(
            text("SELECT product, station, inspections, ok, not_ok, waiting, escalated, yield_rate "
                 "FROM v_daily_yield WHERE station <> 'x' ORDER BY product, station")
        ).all()  # fmt: skip
        causes = connection.execute(
            text("SELECT product, cause, inspections FROM v_causes ORDER BY cause")
        ).all()
    assert [tuple(row) for row in yields[1:]] == [
        ("pushpins", "line-1", 1, 0, 0, 1, 1, None),
        ("pushpins", "line-2", 2, 1, 1, 0, 0, 0.5),
        ("screw_bag", "line-1", 4, 1, 2, 1, 1, 1 / 3),
    ]
    assert [tuple(row) for row in causes] == [
        ("screw_bag", "R1", 1),
        ("screw_bag", "R2", 1),
        ("pushpins", "R3", 1),
    ]


def test_the_docs_hold_ten_queries() -> None:
    assert len(QUERIES) == 10


@pytest.mark.parametrize("number", range(len(QUERIES)))
def test_every_query_of_the_docs_finds_something(filled: AuditStore, number: int) -> None:
    query = QUERIES[number].replace("part-000.png", "a")
    with filled._connection() as connection:
        assert connection.execute(text(query)).all() != []


def test_both_databases_say_the_same(filled: AuditStore, each_store: AuditStore) -> None:
    populate(each_store)
    with each_store._connection() as connection:
        looked = inspect(connection)
        names = {name: looked.get_columns(name) for name in looked.get_view_names()}
    assert {name: [column["name"] for column in columns] for name, columns in names.items()} == {
        name: columns.split() for name, columns in COLUMNS.items()
    }
    stable = [name for name in views.INSPECTIONS.c.keys() if name not in TIMES]  # noqa: SIM118
    query = select(*(views.INSPECTIONS.c[name] for name in stable)).order_by(views.INSPECTIONS.c.id)
    assert _rows(each_store, query) == _rows(filled, query)
    for view in views.ALL[2:]:
        stable = [name for name in view.c.keys() if name not in TIMES]  # noqa: SIM118
        sums = select(*(view.c[name] for name in stable))
        assert sorted(_rows(each_store, sums), key=repr) == sorted(_rows(filled, sums), key=repr)
    for query in map(text, QUERIES):
        with each_store._connection() as connection:
            connection.execute(query)
    found = [one.intake.part_id for one in each_store.inspections(InspectionFilter(text="BAD R1"))]
    assert found == ["c", "b"]


def test_datasettes_metadata_names_what_is_there(filled: AuditStore) -> None:
    metadata = yaml.safe_load((DOCS / "datasette-metadata.yaml").read_text())
    tables = metadata["databases"]["lad-agent"]["tables"]
    assert set(COLUMNS) < set(tables)
    with filled._connection() as connection:
        looked = inspect(connection)
        there = {*looked.get_table_names(), *looked.get_view_names()}
        for name, told in tables.items():
            assert name in there
            columns = {column["name"] for column in looked.get_columns(name)}
            named = {*told.get("columns", ()), *told.get("facets", ())} | {
                told[key] for key in ("sort", "sort_desc") if key in told
            }
            assert named <= columns, name


def test_a_downgrade_takes_them_away_and_an_upgrade_brings_them_back(tmp_path: Path) -> None:
    with open_store(tmp_path / "audit.db") as store:
        populate(store)
        with store._connection(writing=True) as connection:
            schema.migrate_down(connection, "0002")
            assert inspect(connection).get_view_names() == []
            with pytest.raises(DBAPIError):
                connection.execute(text("SELECT * FROM rationale_search"))
            schema.migrate(connection)
        with store._connection() as connection:
            found = connection.scalar(text("SELECT count(*) FROM v_inspections"))
            indexed = "SELECT count(*) FROM rationale_search WHERE rationale_search MATCH 'washers'"
            assert (found, connection.scalar(text(indexed))) == (8, 6)


def _rows(store: AuditStore, query: Select[Any]) -> list[tuple[Any, ...]]:
    with store._connection() as connection:
        return [tuple(row) for row in connection.execute(query)]
