"""What the service works with: made once, found at `request.app.state.services`."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from fastapi import Request

from lad_agent import recipe
from lad_agent.errors import UsageError
from lad_agent.inputs import RECIPE_FILE, find_recipe
from lad_agent.reasoners.base import Reasoner
from lad_agent.recipe import Recipe
from lad_agent.service.attempts import Attempts
from lad_agent.service.inspecting import Inspecting
from lad_agent.service.metrics import Metrics
from lad_agent.settings import Settings
from lad_agent.store import AuditStore


@dataclass(frozen=True)
class Services:
    """`recipes` is by product. `secret` is this process's own, for what needs no store."""

    store: AuditStore
    recipes: Mapping[str, Recipe]
    reasoner: Reasoner
    settings: Settings
    metrics: Metrics = field(default_factory=Metrics)
    attempts: Attempts = field(default_factory=Attempts)
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32))

    @cached_property
    def inspecting(self) -> Inspecting:
        """What accepts parts and judges them."""
        return Inspecting(self.store, self.recipes, self.reasoner, self.settings, self.metrics)


def services(request: Request) -> Services:
    """The services of the app that `request` came to."""
    found: Services = request.app.state.services
    return found


def load_recipes(folder: Path | None) -> dict[str, Recipe]:
    """The recipes of a folder, `*.yaml` and `*/recipe.yaml`, by product; else those shipped.

    Raises:
        UsageError: none there, two of one product, or one that cannot be used.
    """
    if folder is None:
        return {name: find_recipe(name, Path()) for name in recipe.SHIPPED}
    paths = sorted([*folder.glob("*.yaml"), *folder.glob(f"*/{RECIPE_FILE}")])
    if not paths:
        raise UsageError(f"{folder}: no recipes in it (*.yaml, */{RECIPE_FILE})")
    found: dict[str, Recipe] = {}
    for path in paths:
        loaded = find_recipe(str(path.absolute()), Path())
        if (other := found.get(loaded.product)) is not None:
            raise UsageError(f"{path}: of {loaded.product}, as {other.path}; keep one of them")
        found[loaded.product] = loaded
    return found
