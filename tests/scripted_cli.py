"""`lad-agent` with a scripted reasoner: `python -m tests.scripted_cli DELAY_S inspect ...`."""

import sys

from lad_agent import reasoners
from lad_agent.cli import app
from tests.scripted import Scripted


def main() -> None:
    delay_s = float(sys.argv.pop(1))
    reasoners.open_reasoner = lambda *_, **__: Scripted(delay_s=delay_s)  # type: ignore[assignment]
    app.main()


if __name__ == "__main__":
    main()
