"""Backups: a whole copy of a store in one SQLite file, made while others write, and verified.

The backup of a PostgreSQL store is its ledger in an SQLite store, whose tables follow from it, and
what else the database holds; it can be read and verified where no server is, and be restored into
either database.
"""

from pathlib import Path

import uuid_utils
from sqlalchemy import Connection, func, insert, inspect, select

from lad_agent import atomic
from lad_agent.errors import CheckFailed, StoreReadOnly, UsageError
from lad_agent.store import sqlite
from lad_agent.store.archive import copy_ledger
from lad_agent.store.audit_store import AuditStore, open_store
from lad_agent.store.faults import ChainReport
from lad_agent.store.ledger import ends
from lad_agent.store.models import PROJECTIONS, Base, Chain, Event


def backup(store: AuditStore, target: Path) -> ChainReport:
    """Copy the store into the new file `target`; the report is of the copy.

    Images are files of their own, beside the store: they are not in it.

    Raises:
        UsageError: the file is there already.
        CheckFailed: the copy's ledger is not intact, as then the store's is not.
        StoreReadOnly: the file cannot be written.
    """
    if target.exists():
        raise UsageError(f"{target}: is there already; give the backup another name")
    beside = target.with_name(f".new-{uuid_utils.uuid7()}.db")
    try:
        _copy(store, beside)
        report = _checked(beside, store.name)
        beside.replace(target)
        atomic.sync_folder(target.parent)
    except OSError as error:
        raise StoreReadOnly(
            f"{target}: the backup cannot be written ({error.strerror}); make room, or give another"
        ) from error
    finally:
        for left in (beside, *(beside.with_name(beside.name + end) for end in ("-wal", "-shm"))):
            left.unlink(missing_ok=True)
    return report


def restore(source: Path, value: str | Path) -> ChainReport:
    """Make the store that `value` names from a backup; the report is of the restored one.

    Raises:
        UsageError: there is a store already that holds something.
        CheckFailed: the backup's ledger is not intact; nothing was made.
        StoreError: one of them cannot be used as it is.
    """
    with open_store(source, create=False) as saved:
        report = saved.verify_chain()
        if not report.intact:
            raise CheckFailed(f"{source}: {report.faults[0]}; nothing was restored")
        with open_store(value) as made:
            with saved._connection() as old, made._connection(writing=True) as new:
                if new.scalar(select(func.count()).select_from(Event)):
                    raise UsageError(
                        f"{made.name}: holds events already; move it away, or give another --store"
                    )
                _copy_all(old, new)
            return made.verify_chain()


def _copy(store: AuditStore, target: Path) -> None:
    if store.is_file:
        store.copy(target)
        return
    with (
        open_store(target) as made,
        store._connection() as old,
        made._connection(writing=True) as new,
    ):
        _copy_all(old, new)


def _copy_all(old: Connection, new: Connection) -> None:
    """The ledger, the tables made of it, and those that are no projections."""
    copy_ledger(old, new, old.scalar(select(func.max(Event.seq))) or 0, ends(old))
    made = {Event.__table__, Chain.__table__, *(table.__table__ for table in PROJECTIONS)}
    there = inspect(old).get_table_names()  # not all, in a store of an older version
    for table in Base.metadata.sorted_tables:
        if table in made or table.name not in there:
            continue
        if rows := old.execute(select(table)).mappings().all():
            new.execute(insert(table), [dict(row) for row in rows])


def _checked(copy: Path, name: str) -> ChainReport:
    with open_store(copy, create=False, older=True) as made:
        with made._connection() as connection:
            damage = sqlite.damage(connection)
        report = made.verify_chain()
        made.compact()
    if damage is not None:
        raise CheckFailed(f"{name}: its pages are damaged ({damage}); no backup was made")
    if not report.intact:
        raise CheckFailed(f"{name}: {report.faults[0]}; no backup was made")
    return report
