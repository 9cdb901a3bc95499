"""`lad-agent`, noting what training draws: `python -m tests.training.seen_cli FILE train ...`."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lad_agent.cli import app
from lad_agent.training import grpo, sft

Note = Callable[[Mapping[str, Any]], None]


def main() -> None:
    file = Path(sys.argv.pop(1))

    def note(entry: Mapping[str, Any]) -> None:
        with file.open("a", encoding="utf-8") as seen:
            seen.write(json.dumps(entry) + "\n")

    noting_rows(note, setattr)
    noting_answers(note, setattr)
    app.main()


def noting_rows(note: Note, patch: Callable[[object, str, object], None]) -> None:
    """Have `note` told of every row of SFT."""
    collate = sft.Collator.__call__

    def noting(self: sft.Collator, rows: Sequence[Mapping[str, int]]) -> dict[str, Any]:
        for row in rows:
            note(dict(row))
        return collate(self, rows)

    patch(sft.Collator, "__call__", noting)


def noting_answers(note: Note, patch: Callable[[object, str, object], None]) -> None:
    """Have `note` told of every answer of GRPO: which prompt it is to, by number and position."""
    position, shares, places = grpo.Feed.position, grpo.shares, dict[int, int]()

    def placed(self: grpo.Feed, k: int) -> int:
        places[k] = position(self, k)
        return places[k]

    def noting(texts: Sequence[str], right: Sequence[float], k: Sequence[int]) -> dict[str, float]:
        for text, number in zip(texts, k, strict=True):
            note({"k": number, "position": places[number], "said": text})
        return shares(texts, right, k)

    patch(grpo.Feed, "position", placed)
    patch(grpo, "shares", noting)


if __name__ == "__main__":
    main()
