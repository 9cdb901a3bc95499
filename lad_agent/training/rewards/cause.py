"""The broken rule, named (optional)."""

from lad_agent import protocol, rationale
from lad_agent.training.rewards.case import Case


def cause(text: str, case: Case) -> float:
    """1 where the first rule that the rationale calls bad is the case's broken rule.

    A conforming case, or one whose rule is unknown, earns it by calling none bad or saying no.

    >>> from lad_agent.recipe import Rule
    >>> rules = (Rule(id="R1", text="exactly 2 nuts"),)
    >>> case = Case("screw_bag", rules, anomalous=True, rule="R1")
    >>> said = "product: screw bag of screw bag ok; R1 nuts at B2: 1 of 2 bad"
    >>> cause(f"<think>{said}</think><answer>yes</answer>", case)
    1.0
    >>> cause("<think>something is wrong</think><answer>yes</answer>", case)
    0.0
    """
    answer = protocol.parse(text)
    if answer is None:
        return 0.0
    if not case.anomalous or case.rule is None:
        return float(answer.anomalous == case.anomalous)
    named, _ = rationale.named_fault(answer.rationale)
    return float(named == case.rule)
