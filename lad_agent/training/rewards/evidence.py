"""The rationale against itself and the rules (optional)."""

from lad_agent import protocol, rationale
from lad_agent.training.rewards.case import Case


def evidence(text: str, case: Case) -> float:
    """1 where list, count, rule and verdict agree, 0 where they contradict, 0.5 where unreadable.

    It says nothing of the truth: a rationale made up from the rules alone is consistent. Of use
    only beside `accuracy`.

    >>> from lad_agent.recipe import Rule
    >>> case = Case("screw_bag", (Rule(id="R1", text="exactly 2 nuts"),), anomalous=True)
    >>> seen = "product: screw bag of screw bag ok; R1 nuts at B2: 1 of 2"
    >>> evidence(f"<think>{seen} bad</think><answer>yes</answer>", case)
    1.0
    >>> evidence(f"<think>{seen} ok</think><answer>no</answer>", case)
    0.0
    """
    answer = protocol.parse(text)
    if answer is None:
        return 0.0
    found, _ = rationale.check_evidence(
        answer.rationale, answer.anomalous, case.product, case.rules
    )
    return {"consistent": 1.0, "contradicted": 0.0}.get(found, 0.5)
