"""SynLOCO on disk, in MVTec LOCO AD's folder layout, with a line of truth for every picture.

<product>/train/good/000.png              validation/good/
          train/varied/varied/  train/varied/good/  ...
          test/good/  test/logical_anomalies/  test/structural_anomalies/
          ground_truth/<kind>/000/000.png  defects_config.json
          recipe.yaml  reference.png  truth.jsonl
"""

import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from lad_agent import rationale, recipe
from lad_agent.errors import StoreReadOnly, UsageError
from lad_agent.recipe import Rule
from lad_agent.training import synloco
from lad_agent.training.synloco.nuisance import plain
from lad_agent.training.synloco.scene import DAMAGE, Image, Look
from lad_agent.training.workers import pool

APART = 1 << 32
"""Added to the seed: no training that draws its own pictures, as the pocket's, has drawn these."""

_FOLDERS = {
    "normal": "good",
    "logical": "logical_anomalies",
    "structural": "structural_anomalies",
    "varied": "varied",
}
_KIND_NAMES = {"normal": "good", "logical": "logical", "structural": "structural"}
_CHUNK = 25
_VARIED: tuple[synloco.Kind, ...] = (
    "varied", "normal", "varied", "logical", "varied", "structural",
)  # fmt: skip
"""By turns: nearly everything breaks a rule where all is drawn."""


@dataclass(frozen=True)
class Task:
    """One picture to write: its place in the layout and what it is made from."""

    directory: Path
    product: str
    part: str
    kind: synloco.Kind
    number: int
    seed: int
    index: int
    split: synloco.Split
    size: int


def write(
    directory: Path,
    product: str,
    count: int,
    seed: int,
    split: synloco.Split = "train",
    size: int = 392,
    workers: int = 1,
    train: int | None = None,
    validation: int | None = None,
    varied: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Write `count` test pictures of one product, half of them anomalous; returns its folder.

    A quarter of all is logical, a quarter structural (an odd one more logical). `train` and
    `validation` good pictures default to a tenth each. `varied` pictures of any content are for
    training too: who learns from good parts alone unlearns to count. The same arguments give the
    same bytes whatever `workers` is, and no picture that `sample` gives for a seed below 2^32.

    Raises:
        UsageError: the product is unknown, or the folder holds another set already.
        StoreReadOnly: the folder cannot be written.
    """
    if product not in synloco.PRODUCTS:
        raise UsageError(f"unknown product {product!r}; known: {', '.join(synloco.PRODUCTS)}")
    if count < 1 or not 56 <= size <= 4096:
        raise UsageError("--count is at least 1 and --size from 56 to 4096 pixels")
    folder = directory / product
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is there already; give another folder or remove it")
    tenth = max(1, count // 10)
    seed += APART
    unfinished = directory / f"{product}.unfinished"
    tasks = list(
        _tasks(
            unfinished, product, count, seed, split, size,
            tenth if train is None else train, tenth if validation is None else validation, varied,
        )
    )  # fmt: skip
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        _write_recipe(unfinished, product, seed, size)
        lines = _run(tasks, workers, progress)
        _write_defects(unfinished, product)
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (unfinished / "truth.jsonl").write_text(text, encoding="utf-8")
        unfinished.rename(folder)
    except OSError as error:
        raise StoreReadOnly(
            f"{folder}: cannot be written ({error.strerror}); free room or choose another folder"
        ) from error
    return folder


def reference(product: str, seed: int, size: int) -> Image:
    """A normal picture in plain light, uint8 [size, size, 3]."""
    rng = np.random.default_rng([seed, synloco.PRODUCTS.index(product), 0x0F])
    drawer = synloco.module(product)
    scene = drawer.draw(rng, drawer.normal(rng), Look())
    return plain(scene, size).image


def _tasks(
    folder: Path,
    product: str,
    count: int,
    seed: int,
    split: synloco.Split,
    size: int,
    train: int,
    validation: int,
    varied: int,
) -> Iterable[Task]:
    bad = count // 2
    structural = bad // 2
    groups: tuple[tuple[str, synloco.Kind, int], ...] = (
        ("train", "normal", train),
        ("validation", "normal", validation),
        ("test", "normal", count - bad),
        ("test", "logical", bad - structural),
        ("test", "structural", structural),
    )
    index = 0
    for part, kind, number in groups:
        for n in range(number):
            yield Task(folder, product, part, kind, n, seed, index, split, size)
            index += 1
    for n in range(varied):
        kind = _VARIED[n % len(_VARIED)]
        yield Task(folder, product, "train/varied", kind, n, seed, index + n, split, size)


def _run(
    tasks: list[Task], workers: int, progress: Callable[[int, int], None]
) -> list[dict[str, Any]]:
    for task in tasks:
        _image_path(task).parent.mkdir(parents=True, exist_ok=True)
    if workers <= 1:
        lines = []
        for task in tasks:
            lines.append(_write_picture(task))
            progress(len(lines), len(tasks))
        return lines
    with pool(workers) as processes:
        lines = []
        for line in processes.map(_write_picture, tasks, chunksize=_CHUNK):
            lines.append(line)
            progress(len(lines), len(tasks))
        return lines


def _write_picture(task: Task) -> dict[str, Any]:
    sample = synloco.sample(task.product, task.seed, task.index, task.split, task.size, task.kind)
    path = _image_path(task)
    _write_png(path, sample.photo.image)
    mask, kind, rule = None, _KIND_NAMES.get(task.kind), sample.plan.rule
    if kind is None:
        kind, rule = _judged(sample)
    elif kind != "good" and task.part == "test" and sample.photo.mask is not None:
        mask = _mask_path(task)
        mask.parent.mkdir(parents=True, exist_ok=True)
        value = _pixel_values(task.product)[_defect(sample.plan.rule, sample.plan.structural)]
        _write_png(mask, np.where(sample.photo.mask > 0, np.uint8(value), np.uint8(0)))
    return {
        "image": path.relative_to(task.directory).as_posix(),
        "product": task.product,
        "split": task.split,
        "anomalous": kind != "good",
        "kind": kind,
        "rule": rule,
        "cause": sample.plan.cause,
        "objects": [
            {
                "cls": part.cls,
                "box": [round(v, 1) for v in part.box],
                "centre": [round(v, 1) for v in part.centre],
                "cell": part.cell,
            }
            for part in sample.photo.parts
        ],
        "attributes": sample.photo.attributes,
        "stratum": sample.photo.stratum,
        "mask": mask.relative_to(task.directory).as_posix() if mask else None,
        "seed": task.seed,
        "index": task.index,
    }


def _judged(sample: synloco.Sample) -> tuple[str, str | None]:
    """What a picture of any content is under its product's rules, and the first one it breaks."""
    product = sample.plan.product
    rules = [Rule(id=rule_id, text=text) for rule_id, text in synloco.rules(product)]
    clauses = rationale.clauses(product, rules, synloco.facts_of(sample))
    broken = next((clause for clause in clauses if not clause.ok), None)
    if broken is None:
        return "good", None
    return ("structural" if broken.subject == DAMAGE else "logical"), broken.rule


def _image_path(task: Task) -> Path:
    return task.directory / task.part / _FOLDERS[task.kind] / f"{task.number:03d}.png"


def _mask_path(task: Task) -> Path:
    return task.directory / "ground_truth" / _FOLDERS[task.kind] / f"{task.number:03d}" / "000.png"


def _write_png(path: Path, image: Image) -> None:
    pixels = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    coded, data = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not coded:
        raise OSError(0, "PNG encoding failed", str(path))
    path.write_bytes(data.tobytes())


def _write_recipe(folder: Path, product: str, seed: int, size: int) -> None:
    shutil.copyfile(recipe.shipped(product), folder / "recipe.yaml")
    _write_png(folder / "reference.png", reference(product, seed, size))


def _defect(rule: str | None, structural: str | None) -> str:
    return structural or f"rule_{rule}"


def _pixel_values(product: str) -> dict[str, int]:
    """LOCO gives every defect class its own grey value in the masks, from 255 downwards."""
    names = [f"rule_{rule}" for rule, _ in synloco.rules(product)]
    return {name: 255 - n for n, name in enumerate([*names, "scratch", "bent", "dirt", "broken"])}


def _write_defects(folder: Path, product: str) -> None:
    entries = [
        {
            "defect_name": name,
            "pixel_value": value,
            "saturation_threshold": 1.0,
            "relative_saturation": True,
        }
        for name, value in _pixel_values(product).items()
    ]
    (folder / "defects_config.json").write_text(json.dumps(entries, indent=1), encoding="utf-8")
