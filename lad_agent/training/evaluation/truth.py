"""What images really show: from `truth.jsonl`, the folder names of MVTec LOCO AD, or own labels."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lad_agent import images, rationale, recipe
from lad_agent.errors import UnreadableInput, UsageError
from lad_agent.training.evaluation import jsonl
from lad_agent.training.sources import Example, loco, mvtec_ad, open_source
from lad_agent.training.sources import folder as own
from lad_agent.training.sources.example import pictures

LOCO_FOLDERS = {
    "good": "good",
    "logical_anomalies": "logical",
    "structural_anomalies": "structural",
}
"""Kind of a test image by the name of its folder."""


@dataclass(frozen=True)
class Truth:
    """What an image really shows.

    `difference` is how far its counts are off the recipe's rules, None where nobody counted.
    `rule` is the broken one where a truth file says so; `mask_rules` are those of the defect
    classes in the image's masks, where there is no more than masks. `for_training`: the picture
    lies in the split that trainings learn from.
    """

    product: str
    anomalous: bool
    kind: str
    rule: str | None
    stratum: str
    difference: int | None
    image: Path
    mask_rules: frozenset[str] = frozenset()
    for_training: bool = False

    @classmethod
    def of(cls, example: Example) -> "Truth":
        """What the label of a picture says."""
        return cls(
            product=example.product,
            anomalous=example.anomalous,
            kind=example.kind,
            rule=example.rule,
            stratum="all",
            difference=None,
            image=example.image,
            for_training=example.split == "train",
        )

    @property
    def rules(self) -> frozenset[str]:
        """Rules of which any one names the cause rightly; empty where the cause is unknown."""
        return self.mask_rules if self.rule is None else frozenset({self.rule})


def read_truth(directory: Path) -> dict[str, Truth]:
    """Truth by image hash of every product under `directory`.

    A product's folder holds `truth.jsonl`, or `test/good`, `test/logical_anomalies` and
    `test/structural_anomalies` as in MVTec LOCO AD, or a folder for each defect as in MVTec AD;
    where both are there, the file is read. Where neither is, `directory` may be a user's own
    pictures, labelled by folders or a CSV.

    Raises:
        UsageError: there is none of them; a file, line or image of it cannot be read; or one
            picture is called both good and anomalous.
    """
    files = sorted(directory.rglob("truth.jsonl")) if directory.is_dir() else []
    told = {file.parent for file in files}
    trees = [d for d in _trees(directory) if d not in told]
    labelled = [] if files or trees or not own.recognises(directory) else [directory]
    if not (files or trees or labelled):
        raise UsageError(
            f"{directory}: no truth.jsonl in it (lad-agent synth writes one), "
            "no test/good or test/logical_anomalies as in MVTec LOCO AD, "
            "and it is no CSV of own pictures, and holds no good, bad or labels.csv"
        )
    known: dict[str, Truth] = {}
    for source, truth in [*_from_files(files), *_from_trees(trees), *_from_own(labelled)]:
        digest = _digest(source, truth.image)
        other = known.get(digest)
        if other is not None and other.anomalous != truth.anomalous:
            raise UsageError(
                f"{source}: {truth.image} and {other.image} are the same picture, "
                "one called good and one anomalous; correct one of them"
            )
        known[digest] = truth
    return known


def mask_rules(folder: Path, image: Path, classes: Mapping[int, str]) -> frozenset[str]:
    """Rules of the defect classes in the masks of `image`, of a product's folder in LOCO's layout.

    The masks are `ground_truth/<kind>/<stem>/*.png`; every class has a grey value of its own.

    Raises:
        UsageError: a mask cannot be read.
    """
    try:
        values = loco.mask_values(folder / loco.MASKS / image.parent.name / image.stem)
    except UnreadableInput as error:
        raise UsageError(f"the mask {error}; copy it again") from error
    return frozenset(rule for value, rule in classes.items() if value in values)


def rules_of_classes(folder: Path) -> dict[int, str]:
    """Rule by grey value, of the classes in `defects_config.json` that stand for a rule.

    A class named `rule_R1` stands for R1; any other may carry a field `rule`.

    Raises:
        UsageError: the file is there and is not of LOCO's form.
    """
    path = folder / loco.DEFECTS
    if not path.is_file():
        return {}
    try:
        classes = loco.defects(path)
    except UnreadableInput as error:
        raise UsageError(
            f"{error}; a list of defect_name and pixel_value (0 to 255) is wanted"
        ) from error
    return {value: defect.breaks for value, defect in classes.items() if defect.breaks}


def _from_files(files: Sequence[Path]) -> Iterator[tuple[Path, Truth]]:
    for file in files:
        for truth in jsonl.read(file, partial(_truth, file, _rules(file.parent))):
            yield file, truth


def _from_trees(folders: Sequence[Path]) -> Iterator[tuple[Path, Truth]]:
    for folder in folders:
        if strange := _strange(folder / "test"):
            yield from _from_mvtec_ad(folder, strange)
            continue
        classes = rules_of_classes(folder)
        for name, kind in LOCO_FOLDERS.items():
            for image in sorted((folder / "test" / name).glob("*")):
                if image.suffix.lower() not in images.SUFFIXES:
                    continue
                yield (
                    folder,
                    Truth(
                        product=folder.resolve().name,
                        anomalous=kind != "good",
                        kind=kind,
                        rule=None,
                        stratum="all",
                        difference=None,
                        image=image,
                        mask_rules=mask_rules(folder, image, classes) if classes else frozenset(),
                    ),
                )


def _strange(tests: Path) -> list[str]:
    """Folders with pictures that MVTec LOCO AD does not have in `test`."""
    return sorted(
        found.name
        for found in tests.iterdir()
        if found.is_dir()
        and found.name not in LOCO_FOLDERS
        and not found.name.startswith(".")
        and any(pictures(found))
    )


def _from_mvtec_ad(folder: Path, defects: Sequence[str]) -> Iterator[tuple[Path, Truth]]:
    """The test pictures of a category of MVTec AD, which has a folder in `test` for each defect."""
    if mvtec_ad.categories(folder) != [folder] or loco.categories(folder):
        raise UsageError(
            f"{folder}/test: {', '.join(defects)} is of neither layout: MVTec LOCO AD has "
            f"{', '.join(LOCO_FOLDERS)} there, MVTec AD train/good and ground_truth beside it; "
            "take it out, or unpack the archive again"
        )
    for source, truth in _from_own([folder]):
        if not truth.for_training:
            yield source, truth


def _from_own(paths: Sequence[Path]) -> Iterator[tuple[Path, Truth]]:
    for path in paths:
        try:
            examples = list(open_source(path))
        except UnreadableInput as error:
            raise UsageError(str(error)) from error
        for example in examples:
            yield path, Truth.of(example)


def _trees(directory: Path) -> list[Path]:
    """Folders under `directory`, itself included, with tests in a layout of MVTec's."""
    tests = [directory / "test", *directory.rglob("test")]
    return sorted({t.parent for t in tests if any((t / name).is_dir() for name in LOCO_FOLDERS)})


def _truth(file: Path, rules: Sequence[rationale.Count], entry: Mapping[str, Any]) -> Truth:
    return Truth(
        product=entry["product"],
        anomalous=bool(entry["anomalous"]),
        kind=entry["kind"],
        rule=entry["rule"],
        stratum=entry["stratum"],
        difference=_difference(entry, rules),
        image=file.parent / entry["image"],
        for_training=entry["image"].startswith("train/"),
    )


def _digest(source: Path, image: Path) -> str:
    try:
        return hashlib.sha256(image.read_bytes()).hexdigest()
    except OSError as error:
        raise UsageError(f"{source}: {image} cannot be read ({error.strerror})") from error


def _rules(directory: Path) -> list[rationale.Count]:
    path = directory / "recipe.yaml"
    if not path.is_file():
        return []
    forms = [rationale.read_rule(rule.text) for rule in recipe.load(path).rules]
    return [form for form in forms if isinstance(form, rationale.Count)]


def _difference(entry: Mapping[str, Any], rules: Sequence[rationale.Count]) -> int:
    """The largest distance of a count from its rule."""
    names = [part["cls"] for part in entry["objects"]]
    return max(
        (abs(sum(rationale.same_noun(n, r.noun) for n in names) - r.number) for r in rules),
        default=0,
    )
