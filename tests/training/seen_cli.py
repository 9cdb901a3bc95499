"""`lad-agent`, noting what training draws: `python -m tests.training.seen_cli FILE train ...`."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lad_agent.cli import app
from lad_agent.training import sft


def main() -> None:
    file, collate = Path(sys.argv.pop(1)), sft.Collator.__call__

    def noting(self: sft.Collator, rows: Sequence[Mapping[str, int]]) -> dict[str, Any]:
        with file.open("a", encoding="utf-8") as seen:
            seen.writelines(json.dumps(dict(row)) + "\n" for row in rows)
        return collate(self, rows)

    sft.Collator.__call__ = noting  # type: ignore[method-assign]
    app.main()


if __name__ == "__main__":
    main()
