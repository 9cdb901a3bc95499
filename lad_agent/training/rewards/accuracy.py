"""The verdict against the truth."""

from lad_agent import protocol
from lad_agent.training.rewards.case import Case


def accuracy(text: str, case: Case) -> float:
    """1 where the answer's verdict is the case's, else 0; an answer out of form has no verdict.

    The verdict is read by the parser that serving uses: words that merely contain a verdict, and
    answers left empty, count for nothing.

    >>> good = Case("screw_bag", (), anomalous=False)
    >>> accuracy("<think>all there</think><answer>no</answer>", good)
    1.0
    >>> [accuracy(f"<think>all there</think><answer>{word}</answer>", good)
    ...  for word in ("yes", "not", "normal", "unknown", "")]
    [0.0, 0.0, 0.0, 0.0, 0.0]
    """
    answer = protocol.parse(text)
    return float(answer is not None and answer.anomalous == case.anomalous)
