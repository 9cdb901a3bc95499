"""What each stage of training is worth on SynLOCO, over seeds.

    python -m benchmarks.ablation OUT [--model FOLDER] [--minutes 15] [--seeds 5] [--jobs N]
    python -m benchmarks.ablation OUT --before-rules [--warm-up 400] ...

The first takes a model that SFT has made, and lets it go on for the same time by GRPO, by SFT, and
by SFT on captions alone: is GRPO worth its time? The second is the table of LAD-Reasoner's paper:
it keeps the model's tower and teaches a language model anew, as `lad-agent train pocket` does, to
where it can list what it sees and has never met a rule; `--warm-up` steps of inspections then make
the base of all seeds, which is to judge a little better than chance: earlier it says yes to
everything, and no verdict within a group of answers differs from another. Both are
`lad-agent evaluate --ablation` with pictures and settings of their own; stopped at any moment, the
same call goes on. Writes OUT/ablation.md and OUT/ablation.json.
"""

import argparse
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from transformers import Qwen2_5_VLForConditionalGeneration

from benchmarks.figures import SEED, picture
from lad_agent import atomic, images, recipe
from lad_agent.rationale import Facts
from lad_agent.reasoners import EMBEDDED
from lad_agent.reasoners.fingerprints import fingerprint
from lad_agent.reasoners.witness import load_witness
from lad_agent.recipe import Recipe
from lad_agent.training import ablation, stage, synloco
from lad_agent.training.config import RunConfig, changed, load
from lad_agent.training.pocket import run as pocket
from lad_agent.training.pocket.data import KINDS, SHARES
from lad_agent.training.pocket.run import PocketConfig
from lad_agent.training.synloco import dataset

AFTER_SFT = ("base", "grpo", "sft", "captions")
LESSONS_SEED = 900
"""Of the pictures to learn from: not the pocket's own."""
HELD_SEED = SEED + 29
EARLY = {"learning_rate": 3e-5, "warmup": 3, "beta": 0.0, "max_completion": 144}
"""GRPO that fits as many steps as possible into the time: on any prompts, no reference model, no
answer that goes on long behind the longest. Of 20 steps from another warm-up, judged on pictures
that nothing here is measured on, a rate of 1e-4 gained nothing but more answers of yes; at 3e-4
fewer were well-formed."""
LATE = {"pool": 64, "refresh": 20}
"""GRPO where most groups are dead: on prompts chosen among those the model is unsure of."""
LISTING = PocketConfig(seed=LESSONS_SEED + 1, dense_pictures=0, sft_pictures=12_000)


def main() -> None:
    parser = argparse.ArgumentParser(description="What each stage of training is worth.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", type=Path, default=EMBEDDED)
    parser.add_argument("--before-rules", action="store_true")
    parser.add_argument("--warm-up", type=int, default=400)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--pictures", type=int, default=4000, help="to learn from")
    parser.add_argument("--held-out", type=int, default=400, help="to judge by, a product")
    options = parser.parse_args()
    out, before_rules = options.out, options.before_rules
    pocket.bind(out, Pictures(fingerprint(options.model), options.pictures, options.held_out))
    start = listing(options.model, out / "listing") if before_rules else options.model
    torch.set_num_threads(os.cpu_count() or 1)
    torch.set_flush_denormal(True)
    for product, share in SHARES.items():
        lessons(out / "lessons", product, round(share * options.pictures))
        if not (out / "held-out" / product).exists():
            dataset.write(
                out / "held-out", product, options.held_out, HELD_SEED,
                size=196, workers=options.jobs, train=0, validation=0,
            )  # fmt: skip
    config = settings(start, out / "lessons", out / "held-out", **(EARLY if before_rules else LATE))
    if before_rules:
        base = warmed_up(config, out / "warm-up", options.warm_up)
        if base is None:
            return
        config = changed(config, base=str(base))
    found = ablation.run(
        config,
        out,
        arms=ablation.NAMES if before_rules else AFTER_SFT,
        seeds=options.seeds,
        warm_up=0,
        minutes=options.minutes,
        jobs=options.jobs,
    )
    if found is not None:
        print(ablation.table(found))


@dataclass(frozen=True)
class Pictures:
    """What an ablation learns from and is judged by belongs to: how many, and the model."""

    model: str
    to_learn_from: int
    to_judge_by: int


def settings(model: Path, lessons: Path, held_out: Path, **grpo: float) -> RunConfig:
    """The shipped configuration of the pocket, and what of its GRPO is otherwise."""
    return changed(
        load("pocket"),
        base=str(model),
        samples=0,
        data={"paths": [lessons], "held_out": held_out},
        grpo=grpo,
    )


def warmed_up(config: RunConfig, folder: Path, steps: int) -> Path | None:
    """What the model of `config` becomes by `steps` steps of inspections alone; None if stopped."""
    texts = {"caption": 0.0, "question": 0.0, "inspection": 1.0}
    config = changed(
        config.model_copy(update={"data": config.data.model_copy(update={"held_out": None})}),
        sft={"steps": steps, "texts": config.sft.texts.model_dump() | texts},
    )
    done = ablation.carried_out("sft", config, folder, print)
    return folder / stage.result(config) if done else None


@dataclass(frozen=True)
class Listing:
    """What a run towards a model that lists belongs to."""

    config: PocketConfig
    model: str


def listing(model: Path, folder: Path, config: PocketConfig = LISTING) -> Path:
    """Write the tower of `model` with a new language model that lists what it sees into `folder`.

    The language model learns as `lad-agent train pocket` teaches it, until rules would come.
    """
    run, processes = folder.with_name("listing-run"), pocket.whole_share(os.cpu_count() or 1)
    pocket.bind(run, Listing(config, fingerprint(model)))
    if folder.exists():
        return folder
    clock = pocket.Clock(run)
    pocket.make_pictures(run, config, clock, processes)
    net = Qwen2_5_VLForConditionalGeneration.from_pretrained(model)
    witness = load_witness(model)
    assert witness is not None  # every pocket model keeps one
    parts = {"tower": net.model.visual, "head": witness.head}
    pocket.write_tensors(
        pocket.dense_path(run),
        {
            f"net.{part}.{name}": tensor.contiguous()
            for part, module in parts.items()
            for name, tensor in module.state_dict().items()
        },
    )
    pocket.language(run, config, (config.lookups, config.captions), clock, processes)
    net.model.language_model.load_state_dict(load_file(pocket.language_path(run, config.captions)))
    with atomic.new_folder(folder) as part:
        shutil.copytree(model, part)
        net.save_pretrained(part)
        card = json.loads((part / "model_card.json").read_bytes())
        card.pop("figures", None)  # they are the other model's
        (part / "model_card.json").write_text(json.dumps(card, indent=1), encoding="utf-8")
    return folder


def lessons(out: Path, product: str, count: int) -> None:
    """Write pictures of any content to learn from, all of them in the split train, with truth.

    `lad-agent synth` writes what a line gives, in LOCO's way: good parts alone in train. A model
    that goes on learning from these unlearns to count.
    """
    task = recipe.load(recipe.shipped(product))
    rng = np.random.default_rng([LESSONS_SEED, synloco.PRODUCTS.index(product)])
    kinds, shares = zip(*KINDS.items(), strict=True)

    def drawn() -> Iterator[Lesson]:
        for number in range(count):
            kind = cast(synloco.Kind, str(rng.choice(kinds, p=shares)))
            case = picture(task, "train", LESSONS_SEED, number, kind)
            bad = "structural" if kind == "structural" else "logical"
            yield Lesson(
                case.image, case.facts, bad if case.truth.anomalous else None, case.truth.rule
            )

    write_lessons(out / product, task, drawn())


class Lesson(NamedTuple):
    """A picture to learn from, what is in it, the kind of its fault (None: good), and its rule."""

    image: Image.Image
    facts: Facts
    fault: str | None
    rule: str | None


def write_lessons(folder: Path, task: Recipe, taught: Iterable[Lesson]) -> None:
    """Write a product's pictures in the split train with their truth, and a recipe of its rules.

    The pictures are cut to the recipe's region already; so is the reference.
    """
    if folder.exists():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with atomic.new_folder(folder) as part:
        (part / "train").mkdir(parents=True)
        rules = [rule.model_dump(include={"id", "text"}) for rule in task.rules]
        told = {"product": task.product, "references": ["reference.png"], "rules": rules}
        (part / "recipe.yaml").write_text(yaml.safe_dump(told), encoding="utf-8")
        reference = images.references(task)[0]
        images.cut(reference, task.region).save(part / "reference.png")
        lines = []
        for number, lesson in enumerate(taught):
            name = f"train/{number:05d}.png"
            lesson.image.save(part / name)
            lines.append(json.dumps(line(lesson, task.product, name)) + "\n")
        (part / "truth.jsonl").write_text("".join(lines), encoding="utf-8")


def line(lesson: Lesson, product: str, name: str) -> dict[str, Any]:
    """A line of truth, as training reads it."""
    facts = lesson.facts
    return {
        "image": name,
        "product": product,
        "kind": lesson.fault or "good",
        "rule": lesson.rule,
        "cause": None,
        "mask": None,
        "objects": [
            {"cls": noun, "cell": cell} for noun, at in facts.places.items() for cell in at
        ],
        "attributes": dict(facts.attributes),
    }


if __name__ == "__main__":
    main()
