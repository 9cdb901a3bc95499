"""The LangGraph workflow of one inspection, embedding it, and the runner of many."""

from lad_agent.graphs.blocking import blocking
from lad_agent.graphs.embedding import (
    Finished,
    Inspection,
    Part,
    Progress,
    Station,
    build_inspection_graph,
    inspection_node,
)

__all__ = [
    "Finished",
    "Inspection",
    "Part",
    "Progress",
    "Station",
    "blocking",
    "build_inspection_graph",
    "inspection_node",
]
