"""`python -m lad_agent` is `lad-agent`."""

from lad_agent.cli.app import main

main()
