"""The schema: migrated and fresh are the same, and only one module speaks SQLite."""

import re
import sqlite3
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex, CreateTable

import lad_agent.store
from lad_agent.errors import StoreSchema
from lad_agent.store import AuditStore, open_store, postgres, schema
from lad_agent.store.models import SCHEMA_VERSION, Base
from lad_agent.store.sqlite import TRIGGERS
from tests.store.samples import DOUBT, HOSTILE, SCRAP, intake, judgement, tables


def test_migrated_and_fresh_are_the_same(store: AuditStore, tmp_path: Path) -> None:
    fresh = tmp_path / "fresh.db"
    engine = create_engine(f"sqlite:///{fresh}")
    Base.metadata.create_all(engine)
    engine.dispose()
    migrated = _objects(store.file)
    del migrated["table", "alembic_version"]
    assert migrated == _objects(fresh)
    assert {name for kind, name in migrated if kind == "trigger"} == set(TRIGGERS)


def test_alembic_finds_nothing_to_do(store: AuditStore) -> None:
    with store._connection() as connection:
        assert _differences(connection) == []


def test_the_newest_migration_is_the_version_of_the_tables(store: AuditStore) -> None:
    config = Config()
    config.set_main_option("script_location", "lad_agent.store:migrations")
    assert ScriptDirectory.from_config(config).get_heads() == [SCHEMA_VERSION]
    assert store.schema_version == SCHEMA_VERSION


def test_a_store_is_durable_and_strict(store: AuditStore) -> None:
    with store._connection() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1


def test_a_store_of_each_schema_is_migrated_with_what_it_holds(
    each_store: AuditStore, store_url: str
) -> None:
    opened = each_store.take_in(intake(HOSTILE))
    review_id = each_store.escalate(opened.id, DOUBT, judgement(rationale=HOSTILE))
    each_store.claim_review(review_id, "bert", 60)
    each_store.put_hold("line-1", "anna", HOSTILE)
    before, report = tables(each_store), each_store.verify_chain()
    for revision in reversed(_revisions()[:-1]):
        with each_store._connection(writing=True) as connection:
            schema.migrate_down(connection, revision)
            assert schema.version(connection) == revision
        with pytest.raises(StoreSchema, match=r"older version.*lad-agent store migrate"):
            open_store(store_url)
        with open_store(store_url, older=True) as older:
            assert older.schema_version == revision
            older.migrate()
            assert older.schema_version == SCHEMA_VERSION
            older.migrate()
        assert tables(each_store) == before
        assert each_store.verify_chain() == report
    each_store.decide_review(review_id, SCRAP.model_copy(update={"by": "bert"}))


def test_migrated_and_fresh_are_the_same_on_postgresql(postgres_url: str) -> None:
    with open_store(postgres_url) as store, store._connection(writing=True) as connection:
        assert _differences(connection) == []
        triggers = "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal"
        assert set(connection.execute(text(triggers)).scalars()) >= set(postgres.TRIGGERS)


def _differences(connection: Connection) -> list[object]:
    """What Alembic would change; the index of rationales is each database's own."""

    def include(name: str | None, *_: object) -> bool:
        return "rationale_search" not in str(name)

    context = MigrationContext.configure(connection, opts={"include_name": include})
    found: list[object] = compare_metadata(context, Base.metadata)
    return found


def _revisions() -> list[str]:
    """All revisions, the oldest first."""
    config = Config()
    config.set_main_option("script_location", "lad_agent.store:migrations")
    found = ScriptDirectory.from_config(config).walk_revisions()
    return [one.revision for one in found][::-1]


def test_an_older_store_is_refused_with_the_remedy(
    store: AuditStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "SCHEMA_VERSION", "9999")
    with pytest.raises(StoreSchema, match=r"older version.*lad-agent store migrate"):
        open_store(store.file)


def test_every_table_has_postgresql_ddl() -> None:
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    for table in Base.metadata.sorted_tables:
        assert "CREATE TABLE" in str(CreateTable(table).compile(dialect=dialect))
        for index in table.indexes:
            assert "CREATE INDEX" in str(CreateIndex(index).compile(dialect=dialect))


def test_only_one_module_speaks_a_database_of_its_own() -> None:
    spoken = re.compile(
        r"PRAGMA|exec_driver_sql|import sqlite3|dialects\.sqlite|AUTOINCREMENT|BEGIN|RAISE\("
    )
    root = Path(lad_agent.store.__file__).parent
    speaks = sorted(path.name for path in root.rglob("*.py") if spoken.search(path.read_text()))
    assert speaks == ["postgres.py", "sqlite.py"]


def _is_ours(name: str | None, kind: str, _parents: object) -> bool:
    """FTS5 keeps its index in tables of its own."""
    return kind != "table" or not str(name).startswith("rationale_search")


def _objects(file: Path) -> dict[tuple[str, str], str]:
    connection = sqlite3.connect(file)
    rows = connection.execute("SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL")
    found = {(kind, name): re.sub(r"[\s\"]+", " ", sql) for kind, name, sql in rows}
    connection.close()
    return found
