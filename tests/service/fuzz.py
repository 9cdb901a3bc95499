"""The long form of `test_openapi`: schemathesis with all its phases, on a service of its own.

python -m tests.service.fuzz [--examples 100] [schemathesis' own options]
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.service.conftest import API, serving

TOKEN = "token-fuzz"
WITHOUT = (f"{API}/events", f"{API}/session")
"""A stream has no end, and signing out ends what the others test with."""


def main() -> None:
    """Exits as schemathesis does: 1 where an answer was not as documented."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=100, help="For each operation.")
    chosen, more = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as name, serving(Path(name)) as running:
        running.add_user("anna", "admin", TOKEN)
        command = [
            str(Path(sys.executable).with_name("schemathesis")),
            f"--config-file={Path(__file__).with_suffix('.toml')}",
            "run",
            f"{running.url}{API}/openapi.json",
            f"--header=Authorization: Bearer {TOKEN}",
            f"--max-examples={chosen.examples}",
            *(f"--exclude-path={path}" for path in WITHOUT),
            *more,
        ]
        code = subprocess.run(command, cwd=name, check=False).returncode
    sys.exit(code)


if __name__ == "__main__":
    main()
