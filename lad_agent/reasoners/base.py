"""What every reasoner offers, and how drawn answers become one judgement."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

from lad_agent import confidence, images, protocol, rationale
from lad_agent.judgement import Evidence, Judgement
from lad_agent.recipe import Recipe


@dataclass(frozen=True)
class Question:
    """One image to judge. `image` is RGB, turned upright and cut to the recipe's region."""

    recipe: Recipe
    image: Image.Image
    image_sha256: str


@dataclass(frozen=True)
class Drawn:
    """One answer as generated.

    Of the tokens of the rationale (everything before the verdict) `weakest_token` is the least
    probability, `mean_logprob` and `sum_logprob` are mean and sum of the log-probabilities;
    `p_yes` is P(yes) against P(no) at the verdict. All None where there is no verdict.
    """

    text: str
    weakest_token: float | None
    mean_logprob: float | None
    sum_logprob: float | None
    p_yes: float | None
    tokens: int


class Reasoner(Protocol):
    """Judges one question at a time; many may be in flight.

    `fingerprint` names weights or endpoint and stands in every record; `products` are those the
    model was made for, None where it is open to any.
    """

    @property
    def fingerprint(self) -> str: ...

    @property
    def products(self) -> frozenset[str] | None: ...

    async def judge(self, question: Question) -> Judgement:
        """Judge one image.

        Raises:
            ReasonerTimeout: no answer in time.
            ReasonerUnavailable: not reachable or overloaded, after retries.
        """
        ...

    async def aclose(self) -> None: ...


def in_doubt(greedy: Drawn, question: Question) -> bool:
    """Whether the policy asks for more answers after the greedy one."""
    if greedy.weakest_token is None or greedy.p_yes is None:
        return False
    return greedy.weakest_token < question.recipe.policy.sample_below


def judgement(
    question: Question,
    greedy: Drawn,
    more: Sequence[Drawn],
    *,
    model: str,
    elapsed_s: float,
    witness: str | None = None,
) -> Judgement:
    """Join the greedy answer and those that came after it into one judgement.

    The verdict is the greedy answer's. The score is the mean P(yes) over all well-formed answers.
    Malformed ones disagree with the greedy verdict; the confidence is `lad_agent.confidence.raw`.
    `witness` is a contradiction found by a second witness, in words.
    """
    answer = protocol.parse(greedy.text)
    tokens = greedy.tokens + sum(drawn.tokens for drawn in more)
    if answer is None or greedy.p_yes is None or greedy.weakest_token is None:
        return Judgement(
            anomalous=None,
            raw_text=greedy.text,
            well_formed=False,
            model=model,
            tokens=tokens,
            elapsed_s=elapsed_s,
        )
    others = [(protocol.parse(drawn.text), drawn.p_yes) for drawn in more]
    agree = [a is not None and a.anomalous == answer.anomalous for a, _ in others]
    scores = [greedy.p_yes] + [p for a, p in others if a is not None and p is not None]
    agreement = statistics.fmean(agree) if more else None
    evidence, detail = _evidence(question, answer, witness)
    rule, places = rationale.named_fault(answer.rationale)
    told = Judgement(
        anomalous=answer.anomalous,
        anomaly_score=statistics.fmean(scores),
        rationale=answer.rationale,
        rule=rule,
        places=places,
        raw_text=greedy.text,
        well_formed=True,
        weakest_token=greedy.weakest_token,
        mean_logprob=greedy.mean_logprob,
        sum_logprob=greedy.sum_logprob,
        samples=len(more),
        agreement=agreement,
        evidence=evidence,
        evidence_detail=detail,
        seen_product=rationale.seen_product(answer.rationale),
        model=model,
        tokens=tokens,
        elapsed_s=elapsed_s,
        image_quality=images.headroom(question.image),
    )
    return told.model_copy(update={"confidence": confidence.raw(told)})


def _evidence(
    question: Question, answer: protocol.Answer, witness: str | None
) -> tuple[Evidence, str | None]:
    recipe = question.recipe
    found, detail = rationale.check_evidence(
        answer.rationale, answer.anomalous, recipe.product, recipe.rules
    )
    if found != "contradicted" and witness is not None:
        return "contradicted", witness
    return found, detail
