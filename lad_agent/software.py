"""The versions of what shapes an answer beside model and recipe."""

import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("lad-agent", "torch", "transformers", "tokenizers", "peft", "numpy", "pillow")


def versions(*more: str) -> dict[str, str]:
    """The version of Python and of every package of `PACKAGES` and `more` that is installed."""
    found = {"python": platform.python_version()}
    for name in (*PACKAGES, *more):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
