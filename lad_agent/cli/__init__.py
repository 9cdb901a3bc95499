"""The command line: one module a command group, with nothing heavier than typer at the top."""
