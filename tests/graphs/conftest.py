"""A real store and real checkpoints in a folder of the test's own."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from lad_agent import recipe
from lad_agent.graphs.checkpoints import PauseSaver, pauses
from lad_agent.graphs.runner import Order, Report, run_batch
from lad_agent.inputs import Item
from lad_agent.recipe import Recipe
from lad_agent.store import AsyncStore, AuditStore, open_store
from tests.scripted import Scripted, write_parts, write_recipe

ORDER = Order(station="line-1", actor="tester")


@dataclass
class Bench:
    """All that a batch needs; `run` inspects with it."""

    folder: Path
    recipe: Recipe
    audit: AuditStore
    store: AsyncStore
    saver: PauseSaver

    def items(self, count: int) -> list[Item]:
        paths = write_parts(self.folder / "parts", count)
        return [Item(f"parts/{path.name}", path, self.recipe) for path in paths]

    def with_recipe(self, product: str = "screw_bag", **policy: float) -> None:
        self.recipe = recipe.load(write_recipe(self.folder / "other", product, **policy))

    async def run(
        self, items: list[Item], reasoner: Scripted | None = None, **order: object
    ) -> Report:
        return await run_batch(
            items,
            replace(ORDER, **order),  # type: ignore[arg-type]
            store=self.store,
            reasoner=reasoner or Scripted(),
            checkpointer=self.saver,
        )

    def threads(self) -> int:
        """How many pauses are on disk."""
        import sqlite3

        with sqlite3.connect(self.folder / "pauses.db") as connection:
            count: int = connection.execute(
                "select count(distinct thread_id) from checkpoints"
            ).fetchone()[0]
        connection.close()
        return count


@pytest.fixture
def audit(tmp_path: Path) -> Iterator[AuditStore]:
    with open_store(tmp_path / "audit.db") as store:
        yield store


@pytest.fixture
async def bench(tmp_path: Path, audit: AuditStore) -> AsyncIterator[Bench]:
    loaded = recipe.load(write_recipe(tmp_path / "recipe"))
    async with AsyncStore(audit) as store, pauses(tmp_path / "pauses.db") as saver:
        yield Bench(tmp_path, loaded, audit, store, saver)
