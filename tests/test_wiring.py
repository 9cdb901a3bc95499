"""What is seen to beside inspecting: decided reviews are applied."""

from pathlib import Path

from lad_agent.graphs.checkpoints import pauses
from lad_agent.judgement import Disposition, Finding
from lad_agent.store import AsyncStore, AuditStore, ReviewFilter, open_store
from lad_agent.wiring import pauses_file, settle
from tests.service import floor

SCRAP = floor.ReviewDecision(
    finding=Finding.NONCONFORMING, disposition=Disposition.SCRAP, comment="bent", by="anna"
)


class _Overtaken(AsyncStore):
    """In the moment before `late` is applied, its decision is taken back."""

    def __init__(self, audit: AuditStore, late: str) -> None:
        super().__init__(audit)
        self._audit, self._late = audit, late

    async def apply_review(self, inspection_id: str) -> None:
        if inspection_id == self._late:
            (review,) = self._audit.history(self._late).reviews
            self._audit.undo_review(review.id, "anna", "looked again")
        await super().apply_review(inspection_id)


async def test_a_decision_taken_back_meanwhile_holds_up_no_other(tmp_path: Path) -> None:
    with open_store(tmp_path / "audit.db") as audit:
        late, other = (floor.escalate(audit, tmp_path, n).inspection_id for n in (0, 2))
        for review in audit.reviews():
            audit.decide_review(review.id, SCRAP)
        async with _Overtaken(audit, late) as store, pauses(pauses_file(audit)) as saver:
            await settle(audit, store, saver)
        assert audit.inspection(late).closed_at is None
        assert audit.inspection(other).closed_at is not None
        assert [r.inspected.id for r in audit.reviews(ReviewFilter(decided=False))] == [late]
