"""SynLOCO parts, drawn and judged once and kept: what effort, promise and confidence read.

Every part is made from its key alone, goes through image preparation and gate as on the line, and
is judged by a model in one way of asking. The judgements lie in a folder, one file of JSON lines a
model, way and product; what is there, under whatever name the same was asked, is not judged again,
and a run that was killed goes on where it ended.
"""

import argparse
import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from benchmarks.progress import shown
from lad_agent import images, recipe
from lad_agent.confidence import ASKING
from lad_agent.judgement import Judgement
from lad_agent.promise import SURE, lower_bound, upper_bound
from lad_agent.reasoners import EMBEDDED
from lad_agent.reasoners.base import Question
from lad_agent.recipe import Recipe
from lad_agent.training import runs, synloco
from lad_agent.training.calibration import Part
from lad_agent.training.sources import Example
from lad_agent.training.synloco import dataset
from lad_agent.training.workers import pool

Kind = Literal["good", "logical", "structural"]
FAULTS: tuple[Kind, ...] = ("logical", "structural")

SEED = 2_000_000
"""Of the first pictures: training used seeds below a million, the figures those from it on."""

FEWEST = 20
"""Parts a product, or bad ones in all, of which anything can be told."""

SIZE = 196
"""Side of the photographs in pixels: that of the shipped recipes, in most of the training too."""

WORDLESS: Mapping[str, Any] = {"rationale": "", "raw_text": "", "places": ()}
"""Of a judgement that is kept: words would be most of a file, and are not asked for again."""

_KINDS: Mapping[Kind, synloco.Kind] = {
    "good": "normal",
    "logical": "logical",
    "structural": "structural",
}
_SPLITS: tuple[synloco.Split, ...] = ("train", "held-out")
_BATCH = 64


@dataclass(frozen=True)
class Key:
    """One part: the picture follows from it. `split` says which ranges of nuisance it is from."""

    product: str
    split: synloco.Split
    kind: Kind
    index: int


@dataclass(frozen=True)
class Way:
    """A way of asking: the shipped recipes with some of the policy's values changed.

    With `references` above 1 as many pictures of good parts stand in the recipe, of which the
    first is the shipped one.
    """

    name: str
    policy: Mapping[str, Any] = field(default_factory=dict)
    references: int = 1


SHIPPED = Way("shipped")
GREEDY = Way("greedy", {"samples": 0})
DRAWN = Way("drawn", {"samples": 4, "sample_below": 0.9})
"""Four more rationales for those in doubt, whatever the shipped recipes ask for."""


def arguments(said: str | None, *, count: int, fewest: int = FEWEST) -> argparse.ArgumentParser:
    """The options that all share; `count` is the default of `--count`, `fewest` its least."""

    def enough(text: str) -> int:
        if int(text) < fewest:
            raise argparse.ArgumentTypeError(f"{fewest} at least, to tell anything")
        return int(text)

    parser = argparse.ArgumentParser(
        description=said, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=enough, default=count)
    parser.add_argument("--model", type=Path, default=EMBEDDED)
    parser.add_argument("--keep", type=Path, default=Path("runs/judged"))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    return parser


def mixed(
    split: synloco.Split,
    good: int,
    bad: int,
    products: Sequence[str] = synloco.PRODUCTS,
    faults: Sequence[Kind] = FAULTS,
) -> list[Key]:
    """Keys of `good` and `bad` parts in all, the products in turn, and their faults.

    More of them begin with the same ones, so that what was judged for fewer is used again.
    """
    keys = [
        Key(products[n % len(products)], split, "good", n // len(products)) for n in range(good)
    ]
    for n in range(bad):
        turn, place = divmod(n, len(products))
        index, fault = divmod(turn, len(faults))
        keys.append(Key(products[place], split, faults[fault], index))
    return keys


def parts(
    keys: Sequence[Key], model: Path, keep: Path, *, way: Way = SHIPPED, jobs: int = 1
) -> list[Part]:
    """The parts of `keys` in their order, judged by the model folder `model`.

    `elapsed_s` of each judgement is its share of its batch's time, in one process of one thread.
    """
    from lad_agent.reasoners.fingerprints import fingerprint

    keep.mkdir(parents=True, exist_ok=True)
    recipes = {
        product: asked(product, way, keep) for product in sorted({key.product for key in keys})
    }
    name = fingerprint(model)
    files = {product: keep / _file(name, way, task) for product, task in recipes.items()}
    wanted = set(keys)
    known = {
        key: part
        for task in recipes.values()
        for key, part in _kept(keep, name, way, task)
        if key in wanted
    }
    todo = sorted(wanted - known.keys(), key=dataclasses.astuple)
    if todo:
        batches = _batches(todo, recipes)
        with pool(jobs, open_reasoner, model) as processes:
            said = processes.map(partial(_judge, recipes), batches)
            told = shown(zip(batches, said, strict=True), len(batches), way.name)
            for batch, found in told:
                _append(files[batch[0].product], batch, found)
                known |= zip(batch, found, strict=True)
    return [known[key] for key in keys]


def asked(product: str, way: Way, keep: Path) -> Recipe:
    """The recipe that a way of asking judges by; its further references are written to `keep`."""
    task = recipe.load(recipe.shipped(product))
    changed = dataclasses.replace(task, policy=task.policy.model_copy(update=way.policy))
    if way.references == 1:
        return changed
    folder = keep / "references"
    folder.mkdir(parents=True, exist_ok=True)
    more = [folder / f"{product}-{number}.png" for number in range(1, way.references)]
    for number, path in enumerate(more, 1):
        if not path.exists():
            Image.fromarray(dataset.reference(product, SEED + 100 + number, SIZE)).save(path)
    return dataclasses.replace(
        changed,
        references=(*task.references, *more),
        reference_sha256=(*task.reference_sha256, *map(images.file_sha256, more)),
        task_version=f"{task.task_version}-{way.references}",
    )


def drawn(key: Key) -> Image.Image:
    """The photograph of a part."""
    seed = SEED + 10 * list(_KINDS).index(key.kind) + _SPLITS.index(key.split)
    sample = synloco.sample(key.product, seed, key.index, key.split, SIZE, _KINDS[key.kind])
    return Image.fromarray(sample.photo.image)


def question(photograph: Image.Image, task: Recipe) -> Question | None:
    """What a reasoner is asked about a photograph; None where the gate stops it."""
    picture = images.prepare(photograph, task.region, task.image_size)
    if images.gate(picture, images.shorter_side(photograph, task.region)) is not None:
        return None
    return Question(task, picture, sha256(photograph))


def sha256(photograph: Image.Image) -> str:
    """Of its pixels."""
    return hashlib.sha256(photograph.tobytes()).hexdigest()


def asked_sha256(task: Recipe) -> str:
    """Of all in a recipe, and in the photographs' size, that a judgement depends on."""
    policy = task.policy.model_dump_json(include=set(ASKING))
    return hashlib.sha256(f"{task.task_version} {policy} {SIZE}".encode()).hexdigest()


def table(rows: Iterable[Sequence[str]]) -> str:
    """Rows as a Markdown table, the first one its heading."""
    head, *rest = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([head, "|" + "---|" * (head.count("|") - 1), *rest])


def share(seen: int, of: int) -> str:
    """A share with its exact 95% interval; "-" where there is nothing."""
    if not of:
        return "-"
    tail = (1 + SURE) / 2
    low, high = lower_bound(seen, of, tail), upper_bound(seen, of, tail)
    return f"{seen / of:.1%} ({low:.1%}-{high:.1%})"


def read_lines(file: Path) -> list[dict[str, Any]]:
    """The JSON lines that earlier runs have kept, none where there is no file."""
    if file.exists():
        _mend(file)
    return runs.read_lines(file)


def append_lines(file: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Keep more lines."""
    with file.open("a", encoding="utf-8") as opened:
        opened.writelines(json.dumps(line) + "\n" for line in lines)


def open_reasoner(model: Path) -> None:
    """Open the model of this process, on one thread."""
    import torch

    from lad_agent.reasoners.local import TransformersReasoner

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    _reasoners.append(TransformersReasoner(model, device="cpu", max_batch=_BATCH))


def judge(questions: Sequence[Question | None]) -> list[Judgement]:
    """A judgement for each question by this process's model; none where the gate stopped it."""
    reasoner = _reasoners[0]
    asked = [found for found in questions if found is not None]
    judgements = iter(reasoner.judge_batch(asked))
    nothing = Judgement(anomalous=None, well_formed=False, model=reasoner.fingerprint)
    return [nothing if found is None else next(judgements) for found in questions]


_reasoners: list[Any] = []
"""The one of this process."""


def _batches(keys: Sequence[Key], products: Iterable[str]) -> list[Sequence[Key]]:
    """Each of one product."""
    return [
        group[start : start + _BATCH]
        for product in products
        for group in [[key for key in keys if key.product == product]]
        for start in range(0, len(group), _BATCH)
    ]


def _judge(recipes: Mapping[str, Recipe], batch: Sequence[Key]) -> list[Part]:
    photographs = [drawn(key) for key in batch]
    task = recipes[batch[0].product]
    questions = [question(photograph, task) for photograph in photographs]
    begun = time.perf_counter()
    judgements = judge(questions)
    kept = {**WORDLESS, "elapsed_s": (time.perf_counter() - begun) / len(batch)}
    return [
        Part(_example(key, sha256(photograph)), judgement.model_copy(update=kept))
        for key, photograph, judgement in zip(batch, photographs, judgements, strict=True)
    ]


def _example(key: Key, digest: str) -> Example:
    name = Path(f"{key.product}-{key.split}-{key.kind}-{key.index}.png")
    return Example(name, digest, key.product, "test", key.kind)


def _file(model: str, way: Way, task: Recipe) -> str:
    """A name by all that a judgement depends on."""
    return f"{model}-{way.name}-{task.product}-{asked_sha256(task)[:8]}.jsonl"


def _kept(keep: Path, model: str, way: Way, task: Recipe) -> Iterator[tuple[Key, Part]]:
    """What this or another way has judged by the same question."""
    for file in sorted(keep.glob(_file(model, dataclasses.replace(way, name="*"), task))):
        yield from _read(file)


def _read(file: Path) -> Iterator[tuple[Key, Part]]:
    for line in read_lines(file):
        key = Key(**line["key"])
        judgement = Judgement.model_validate(line["judgement"])
        yield key, Part(_example(key, line["sha256"]), judgement)


def _append(file: Path, batch: Sequence[Key], found: Sequence[Part]) -> None:
    append_lines(
        file,
        (
            {
                "key": dataclasses.asdict(key),
                "sha256": part.example.sha256,
                "judgement": part.judgement.model_dump(mode="json", exclude_defaults=True),
            }
            for key, part in zip(batch, found, strict=True)
        ),
    )


def _mend(file: Path) -> None:
    """Cut off a last line that a killed run left torn: it would swallow the next one."""
    with file.open("rb+") as opened:
        opened.truncate(opened.read().rfind(b"\n") + 1)
