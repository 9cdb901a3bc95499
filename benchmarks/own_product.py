"""Whether GRPO sharpens a model of a product of one's own, or SFT for as long does.

    python -m benchmarks.own_product KIT RUN PICTURES OUT [--minutes 5] [--seeds 3] [--jobs N]

KIT is what `lad-agent train product` took and RUN what it made; PICTURES are labelled ones to judge
by. Composes other pictures of the kit, and lets the model go on from RUN on their verdicts alone by
GRPO, and by SFT, from as many seeds; stopped at any moment, the same call goes on. Writes
OUT/ablation.md and OUT/ablation.json. See docs/own-product.md.
"""

import argparse
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from PIL import Image

from benchmarks.ablation import LATE, LESSONS_SEED, Lesson, settings, write_lessons
from lad_agent import rationale
from lad_agent.training import ablation
from lad_agent.training.pocket import run as pocket
from lad_agent.training.pocket.architecture import IMAGE_SIZE
from lad_agent.training.product import kit as kits
from lad_agent.training.product import scenes
from lad_agent.training.product.kit import Kit


def main() -> None:
    parser = argparse.ArgumentParser(description="GRPO or SFT for a product of one's own.")
    parser.add_argument("kit", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--composed", type=int, default=3000, help="pictures to learn from")
    options = parser.parse_args()
    torch.set_flush_denormal(True)
    kit = kits.read(options.kit)
    pocket.bind(options.out, Composed(kit.digest, options.composed))
    lessons = options.out / "lessons"
    write_lessons(lessons / kit.product, kit.recipe, composed(kit, options.composed))
    found = ablation.run(
        settings(options.run, lessons, options.pictures, **LATE),
        options.out,
        arms=("base", "grpo", "sft"),
        seeds=options.seeds,
        warm_up=0,
        minutes=options.minutes,
        jobs=options.jobs,
    )
    if found is not None:
        print(ablation.table(found))


@dataclass(frozen=True)
class Composed:
    """What the pictures to learn from belong to."""

    kit: str
    count: int


def composed(kit: Kit, count: int) -> Iterator[Lesson]:
    """Pictures of the kit as the trial at the end of its training draws them, of other seeds."""
    kinds, shares = zip(*scenes.KINDS.items(), strict=True)
    for number in range(count):
        rng = np.random.default_rng([LESSONS_SEED, number])
        kind = cast(scenes.Kind, str(rng.choice(kinds, p=shares)))
        photo = scenes.shoot(rng, kit, kind, IMAGE_SIZE)
        facts = scenes.facts_of(kit, photo)
        clauses = rationale.clauses(kit.product, kit.recipe.rules, facts)
        broken = [clause.rule for clause in clauses if not clause.ok]
        image = Image.fromarray(photo.image)
        yield Lesson(image, facts, "logical" if broken else None, broken[0] if broken else None)


if __name__ == "__main__":
    main()
