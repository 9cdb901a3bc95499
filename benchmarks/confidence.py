"""Which source of confidence knows the errors: each feature alone, all together, two models.

    python -m benchmarks.confidence [--count 680] [--model FOLDER] [--keep DIR] [--jobs N]

`--count` is the number of parts a product, half of them anomalous, within the ranges of training;
half as many more are from beyond them. All are judged twice: by the model, and by a copy of it that
was weakened on purpose (noise on its weights); those in doubt are asked four times more, so that
there is an agreement to tell of. Every confidence is learned, and every threshold
chosen, on other parts than are scored: of three thirds by content one fits, one chooses and one is
scored, in three turns, so that every part is scored once; parts from beyond the ranges fit and
choose nothing.

Judgements are kept (`--keep`), a run that was killed goes on, and the other benchmarks share them.
By default 10,200 judgements, some 20 minutes on two cores; `--count 40` takes three.
"""

import hashlib
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import judged
from lad_agent import confidence, recipe
from lad_agent.judgement import Judgement, Result
from lad_agent.training import synloco
from lad_agent.training.calibration import Part, fitting
from lad_agent.training.calibration.choosing import side
from lad_agent.training.evaluation import Resampling, bootstrap, scores
from lad_agent.training.evaluation.scores import Flags, Floats

ERROR = 0.01
"""Share of wrong verdicts among the decided at which coverage is told."""

WEAKENED = 0.28
"""Standard deviation of the weakened model's noise, in that of each weight matrix."""

POLICY = recipe.load(recipe.shipped(synloco.PRODUCTS[0])).policy

Confidence = Callable[[Judgement], float]
Source = Callable[[Sequence[Part]], Confidence]
"""Learns from parts how to read a confidence."""


@dataclass(frozen=True)
class Scored:
    """Parts, how sure each verdict is, and whether it is accepted by a threshold from elsewhere."""

    parts: Sequence[Part]
    sure: Floats
    accepted: Flags

    @property
    def right(self) -> Flags:
        return np.array([part.right for part in self.parts], dtype=bool)

    @property
    def coverage(self) -> float:
        return float(self.accepted.mean())

    @property
    def wrong(self) -> int:
        """Wrong verdicts among the accepted."""
        return int((self.accepted & ~self.right).sum())

    def knows(self) -> tuple[float, list[float] | None]:
        """AUROC of right against wrong verdicts, and its 95% interval by bootstrap."""

        def figure(weights: Floats) -> dict[str, Floats]:
            return {"auroc": scores.area(self.sure, self.right, weights)}

        strata = [(part.example.product, part.example.kind) for part in self.parts]
        plain = figure(np.ones((1, len(self.parts))))["auroc"][0]
        return float(plain), bootstrap.intervals(figure, strata, Resampling())["auroc"]


def main() -> None:
    options = judged.arguments(__doc__, count=680).parse_args()
    whole = options.count * len(synloco.PRODUCTS)
    inside = judged.mixed("train", whole // 2, whole // 2)
    beyond = judged.mixed("held-out", whole // 4, whole // 4)
    models = {
        "the model": options.model,
        "weakened": weakened(options.model, options.keep, WEAKENED),
    }
    for name, model in models.items():
        keys = [*inside, *beyond]
        found = judged.parts(keys, model, options.keep, way=judged.DRAWN, jobs=options.jobs)
        ranges = (found[: len(inside)], found[len(inside) :])
        for verdicts, only in (("all verdicts", None), ("said to be good", False)):
            groups = [[part for part in group if _is(part, only)] for group in ranges]
            print(f"\n### {name}, {verdicts}\n")
            print(judged.table(rows(*groups)))
    print(
        "\nIn brackets: 95%, by bootstrap. Coverage: verdicts accepted by the threshold that keeps "
        f"{ERROR:.0%} errors where it was chosen; wrong: how many of those accepted here are."
    )


def rows(inside: Sequence[Part], beyond: Sequence[Part]) -> list[list[str]]:
    """Heading, and a row for each source of confidence."""
    out = [["confidence"]]
    for where, group in (("within the ranges", inside), ("beyond them", beyond)):
        wrong = sum(not part.right for part in group)
        out[0] += [f"AUROC {where} ({wrong} wrong of {len(group)})", "coverage", "wrong"]
    for name, source in SOURCES.items():
        row = [name]
        for scored in (in_turns(inside, source), elsewhere(inside, beyond, source)):
            area, ends = scored.knows()
            row.append(f"{area:.3f}" + (f" ({ends[0]:.3f}-{ends[1]:.3f})" if ends else ""))
            row += [f"{scored.coverage:.1%}", f"{scored.wrong} of {scored.accepted.sum()}"]
        out.append(row)
    return out


def in_turns(parts: Sequence[Part], source: Source, error: float = ERROR) -> Scored:
    """Every part scored by what two other thirds of the parts have taught."""
    thirds = [[part for part in parts if third(part) == n] for n in range(3)]
    turns = [
        _scored(thirds[n], thirds[(n + 1) % 3], thirds[(n + 2) % 3], source, error)
        for n in range(3)
    ]
    return Scored(
        [part for turn in turns for part in turn.parts],
        np.concatenate([turn.sure for turn in turns]),
        np.concatenate([turn.accepted for turn in turns]),
    )


def elsewhere(
    parts: Sequence[Part], others: Sequence[Part], source: Source, error: float = ERROR
) -> Scored:
    """`others` scored by what two thirds of `parts` have taught."""
    fit, choose = ([part for part in parts if third(part) == n] for n in (0, 1))
    return _scored(fit, choose, others, source, error)


def threshold(sure: Floats, right: Flags, error: float) -> float:
    """The most lenient one at which at most the share `error` of the verdicts is wrong.

    Infinity where there is none.
    """
    risk = scores.risk_coverage(sure, right, np.ones((1, len(sure))))[1][0]
    levels = np.unique(sure)[::-1]
    kept = np.flatnonzero(risk <= error)
    return float(levels[kept[-1]]) if len(kept) else float("inf")


def weakened(model: Path, keep: Path, noise: float) -> Path:
    """A copy of the model in `keep` with seeded normal noise on every matrix of its weights."""
    import torch
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    from lad_agent.reasoners.fingerprints import fingerprint

    folder = keep / f"weakened-{fingerprint(model)}-{noise:g}"
    if folder.exists():
        return folder
    unfinished = folder.with_suffix(".part")
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.copytree(model, unfinished)
    generator = torch.Generator().manual_seed(0)
    for path in sorted(unfinished.glob("model*.safetensors")):
        with safe_open(path, "pt") as opened:
            metadata = opened.metadata()
        weights = load_file(path)
        for name, values in sorted(weights.items()):
            if values.ndim == 2:
                drawn = torch.randn(values.shape, generator=generator)
                weights[name] = values + noise * values.std() * drawn.to(values)
        save_file(weights, path, metadata)
    return unfinished.rename(folder)


def _feature(name: str) -> Source:
    place = confidence.FEATURES.index(name)

    def read(judgement: Judgement) -> float:
        found = confidence.features(judgement)
        return found[place] if found else -np.inf

    return lambda parts: read


def _raw(parts: Sequence[Part]) -> Confidence:
    return lambda judgement: confidence.raw(judgement) or 0.0


def learned(parts: Sequence[Part]) -> Confidence:
    """The confidence that a calibration on these parts gives."""
    model = fitting.fit(parts, seed=0)
    if model is None:
        print("too few errors to learn from: the raw confidence stands in", file=sys.stderr)
    return lambda judgement: confidence.calibrated(judgement, model).confidence or 0.0


SOURCES: Mapping[str, Source] = {
    **{name.replace("_", " "): _feature(name) for name in confidence.FEATURES},
    "all, learned": learned,
}


def _scored(
    fit: Sequence[Part],
    choose: Sequence[Part],
    score: Sequence[Part],
    source: Source,
    error: float,
) -> Scored:
    read = source(fit)

    def values(parts: Sequence[Part]) -> Floats:
        return np.array([read(part.judgement) for part in parts], dtype=np.float64)

    def open_to_it(parts: Sequence[Part]) -> Flags:
        return np.array([decidable(part) for part in parts], dtype=bool)

    chosen_from = [part for part in choose if decidable(part)]
    right = np.array([part.right for part in chosen_from], dtype=bool)
    least = threshold(values(chosen_from), right, error) if chosen_from else np.inf
    sure = values(score)
    return Scored(score, sure, open_to_it(score) & (sure >= least))


def decidable(part: Part) -> bool:
    """Whether confidence alone decides if a person looks at the part."""
    return side(part.judgement, POLICY) is not Result.NOT_DECIDABLE


def _is(part: Part, verdict: bool | None) -> bool:
    """Whether the part has a verdict, and where one is named this one."""
    said = part.judgement.anomalous
    return said is not None if verdict is None else said == verdict


def third(part: Part) -> int:
    """0, 1 or 2, by the part's content."""
    return hashlib.sha256(f"third {part.example.sha256}".encode()).digest()[0] % 3


if __name__ == "__main__":
    main()
