"""The form of the answer."""

from lad_agent import protocol
from lad_agent.training.rewards.case import Case


def structure(text: str, case: Case) -> float:
    """1 for exactly one think block and then exactly one answer of yes or no, else 0.

    >>> case = Case("screw_bag", (), anomalous=True)
    >>> structure("<think>two nuts</think><answer>no</answer>", case)
    1.0
    >>> [structure(text, case) for text in ("<answer>no</answer>", "<think></think>no")]
    [0.0, 0.0]
    """
    return float(protocol.parse(text) is not None)
