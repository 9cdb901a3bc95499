"""The audit store: an append-only ledger of every inspection, and tables to ask it by.

Open it with `open_store`; `AuditStore` is for front doors, `AsyncStore` for the workflow.
"""

from lad_agent.store.access import ROLES, SCOPES, Account, Token
from lad_agent.store.audit_store import AuditStore, open_store
from lad_agent.store.faults import ChainFault, ChainReport, Kind
from lad_agent.store.filters import InspectionFilter, ReviewFilter
from lad_agent.store.heads import Head, Signing
from lad_agent.store.ledger import Entry
from lad_agent.store.queries import History, Inspected, Review
from lad_agent.store.views import VERSION as VIEWS_VERSION
from lad_agent.store.writer import AsyncStore

__all__ = [
    "ROLES",
    "SCOPES",
    "VIEWS_VERSION",
    "Account",
    "AsyncStore",
    "AuditStore",
    "ChainFault",
    "ChainReport",
    "Entry",
    "Head",
    "History",
    "Inspected",
    "InspectionFilter",
    "Kind",
    "Review",
    "ReviewFilter",
    "Signing",
    "Token",
    "open_store",
]
