"""What the workflow asks of an audit store; any store that keeps these promises will do."""

from typing import Protocol

from lad_agent.inspection import Intake, Opened, Outcome, ReviewDecision
from lad_agent.judgement import Decision, Judgement


class Store(Protocol):
    """An audit store, as the workflow sees it.

    A method returns only after its commit has. All are idempotent: a workflow that was killed
    runs again under the same id. Each raises `lad_agent.errors.StoreError` where the store cannot
    be used, and `lad_agent.errors.NotFound` for an id that it does not hold.
    """

    async def take_in(self, intake: Intake) -> Opened:
        """Make the open row, or find it again by part, image, recipe version, model, attempt."""
        ...

    async def last_attempt(self, intake: Intake) -> int:
        """The highest attempt at the same part, image, recipe and model so far; 0 if none."""
        ...

    async def hold(self, product: str) -> str | None:
        """Why every part of this product goes to people now, in words; None: no hold is on."""
        ...

    async def record(
        self, inspection_id: str, decision: Decision, judgement: Judgement | None
    ) -> None:
        """Complete the inspection; opens a blind review of kind audit where decided so."""
        ...

    async def escalate(
        self, inspection_id: str, decision: Decision, judgement: Judgement | None
    ) -> str:
        """Record NotDecidable and open a review of kind escalation; returns the review's id."""
        ...

    async def review_decision(self, inspection_id: str) -> ReviewDecision | None:
        """The person's decision on the escalation of this inspection, None while it is open."""
        ...

    async def decide_review(self, review_id: str, decision: ReviewDecision) -> None:
        """Take a person's decision; the first one stands.

        Raises:
            UsageError: decided already, or an incomplete decision.
        """
        ...

    async def apply_review(self, inspection_id: str) -> None:
        """After the person's decision: the inspection's final result."""
        ...

    async def outcome(self, inspection_id: str) -> Outcome | None:
        """The line of results, None where nothing is recorded yet."""
        ...
