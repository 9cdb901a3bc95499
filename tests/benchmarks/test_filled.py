"""A store that was grown is what its events say, as one that was recorded."""

from pathlib import Path

import pytest
from sqlalchemy import func, select

from benchmarks import filled
from lad_agent.store import InspectionFilter, open_store, stats
from lad_agent.store.models import Event, Inspection


def test_a_grown_store_is_whole_and_spread_as_its_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filled, "RECORDED", 120)
    monkeypatch.setattr(filled, "GROUP", 40)
    with open_store(tmp_path / "grown.db") as grown, open_store(tmp_path / "120.db") as base:
        filled.fill(grown, 1000)
        report = grown.verify_chain()
        assert report.intact, report.faults
        assert grown.changed_tables() == []
        assert grown.count() == 1000
        distinct = [Inspection.part_id, Inspection.key, Inspection.image_sha256]
        query = select(*(func.count(column.distinct()) for column in distinct))
        assert grown.ask(lambda session: session.execute(query).one()) == (1000, 1000, 1000)
        for store in (grown, base):
            by_version = store.ask(lambda session: stats.yields(session, _ALL, "recipe_version"))
            assert {row.group for row in by_version if row.inspections} == _VERSIONS
        kinds = select(Event.type).distinct()
        assert grown.ask(lambda session: set(session.scalars(kinds))) == base.ask(
            lambda session: set(session.scalars(kinds))
        )


_ALL = InspectionFilter()
_VERSIONS = {f"{product}-{quarter}" for product in filled.SHIPPED for quarter in range(4)}
