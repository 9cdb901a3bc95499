"""Rewards for GRPO: pure functions from an answer's text and its case to a number.

Two suffice, as in LAD-Reasoner (arXiv 2504.12749): `accuracy` of the verdict and `structure` of
the answer. `evidence` and `cause` are optional. No reward looks at an answer's length.
"""

from collections.abc import Callable, Mapping

from lad_agent.training.rewards.accuracy import accuracy
from lad_agent.training.rewards.case import Case
from lad_agent.training.rewards.cause import cause
from lad_agent.training.rewards.evidence import evidence
from lad_agent.training.rewards.structure import structure

__all__ = ["REWARDS", "Case", "Reward", "accuracy", "cause", "evidence", "structure"]

Reward = Callable[[str, Case], float]

REWARDS: Mapping[str, Reward] = {
    "accuracy": accuracy,
    "structure": structure,
    "evidence": evidence,
    "cause": cause,
}
"""By the names that a training configuration uses."""
