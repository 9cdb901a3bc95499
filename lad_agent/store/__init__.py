"""The audit store: an append-only ledger of every inspection, and tables to ask it by.

Open it with `open_store`; `AuditStore` is for front doors, `AsyncStore` for the workflow.
"""

from lad_agent.store.audit_store import AuditStore, open_store
from lad_agent.store.ledger import ChainFault, ChainReport, Entry
from lad_agent.store.queries import (
    History,
    Inspected,
    InspectionFilter,
    Review,
    ReviewFilter,
)
from lad_agent.store.writer import AsyncStore

__all__ = [
    "AsyncStore",
    "AuditStore",
    "ChainFault",
    "ChainReport",
    "Entry",
    "History",
    "Inspected",
    "InspectionFilter",
    "Review",
    "ReviewFilter",
    "open_store",
]
