"""What `import lad_agent` offers, and how little it costs."""

import subprocess
import sys

import lad_agent

HEAVY = ("torch", "transformers", "pydantic", "sqlalchemy", "langgraph", "openai", "PIL", "rich")


def test_every_exported_name_is_there() -> None:
    assert lad_agent.__all__ == sorted(lad_agent.__all__)
    for name in lad_agent.__all__:
        assert getattr(lad_agent, name) is not None
    assert set(lad_agent.__all__) <= set(dir(lad_agent))


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(lad_agent, "nothing")


def _loaded_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*(name.split('.')[0] for name in sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(ran.stdout.split())


def test_importing_the_package_or_the_command_line_is_light() -> None:
    for statement in ("import lad_agent", "import lad_agent.cli.app"):
        assert _loaded_by(statement).isdisjoint(HEAVY), statement
