"""Inspect parts for logical anomalies: a reasoner, a workflow and an audit store.

The public API; everything else may change. Names are loaded when first used, so that importing
the package is quick. See `lad_agent.graphs` for embedding the workflow in another graph.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lad_agent.errors import LadAgentError
    from lad_agent.graphs.blocking import blocking
    from lad_agent.graphs.checkpoints import pauses
    from lad_agent.graphs.embedding import (
        Inspection,
        Part,
        Station,
        build_inspection_graph,
        inspection_node,
    )
    from lad_agent.graphs.inspection import build
    from lad_agent.graphs.runner import Done, Order, Report, resume, run_batch
    from lad_agent.graphs.state import Context, State, start
    from lad_agent.inputs import Gathered, Item, gather
    from lad_agent.inspection import Intake, Outcome, ReviewDecision
    from lad_agent.judgement import Decision, Disposition, Finding, Judgement, Reason, Result
    from lad_agent.policy import decide
    from lad_agent.reasoners import open_reasoner
    from lad_agent.reasoners.base import Question, Reasoner
    from lad_agent.recipe import Policy, Recipe, Region, Rule
    from lad_agent.recipe import load as load_recipe
    from lad_agent.store import AsyncStore, AuditStore, open_store

__all__ = [
    "AsyncStore",
    "AuditStore",
    "Context",
    "Decision",
    "Disposition",
    "Done",
    "Finding",
    "Gathered",
    "Inspection",
    "Intake",
    "Item",
    "Judgement",
    "LadAgentError",
    "Order",
    "Outcome",
    "Part",
    "Policy",
    "Question",
    "Reason",
    "Reasoner",
    "Recipe",
    "Region",
    "Report",
    "Result",
    "ReviewDecision",
    "Rule",
    "State",
    "Station",
    "blocking",
    "build",
    "build_inspection_graph",
    "decide",
    "gather",
    "inspection_node",
    "load_recipe",
    "open_reasoner",
    "open_store",
    "pauses",
    "resume",
    "run_batch",
    "start",
]

_HOMES = {
    "errors": ("LadAgentError",),
    "graphs.blocking": ("blocking",),
    "graphs.checkpoints": ("pauses",),
    "graphs.embedding": (
        "Inspection",
        "Part",
        "Station",
        "build_inspection_graph",
        "inspection_node",
    ),
    "graphs.inspection": ("build",),
    "graphs.runner": ("Done", "Order", "Report", "resume", "run_batch"),
    "graphs.state": ("Context", "State", "start"),
    "inputs": ("Gathered", "Item", "gather"),
    "inspection": ("Intake", "Outcome", "ReviewDecision"),
    "judgement": ("Decision", "Disposition", "Finding", "Judgement", "Reason", "Result"),
    "policy": ("decide",),
    "reasoners": ("open_reasoner",),
    "reasoners.base": ("Question", "Reasoner"),
    "recipe": ("Policy", "Recipe", "Region", "Rule", "load_recipe"),
    "store": ("AsyncStore", "AuditStore", "open_store"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f"{__name__}.{_HOME[name]}")
    return getattr(module, "load" if name == "load_recipe" else name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
