"""A part as it is taken in, whichever way it came."""

from pathlib import Path

from lad_agent import images
from lad_agent.errors import UnreadableInput
from lad_agent.inspection import Intake
from lad_agent.recipe import Recipe


def intake(
    part_id: str,
    image: Path,
    recipe: Recipe,
    *,
    station: str,
    model: str,
    actor: str,
    lot: str | None = None,
    attempt: int = 1,
) -> Intake:
    """What is known of a part before it is judged by `model`, a reasoner's fingerprint.

    Reads the file, to hash it; what cannot be read has no hash, and the workflow finds out why.
    """
    try:
        sha256 = images.file_sha256(image)
    except UnreadableInput:
        sha256 = None
    return Intake(
        part_id=part_id,
        station=station,
        lot=lot,
        attempt=attempt,
        image=str(image),
        image_sha256=sha256,
        product=recipe.product,
        task_version=recipe.task_version,
        recipe_version=recipe.recipe_version,
        recipe_path=str(recipe.path),
        model=model,
        actor=actor,
    )
