from collections.abc import Iterator
from pathlib import Path

import pytest

from lad_agent.store import AuditStore, open_store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[AuditStore]:
    with open_store(tmp_path / "audit.db", busy_timeout_s=2.0) as opened:
        yield opened
