"""Results against the truth: the figures that README, model card and `lad-agent evaluate` print.

Joined by the hash of the image's bytes. Rates follow machine vision's words: `escape_rate` is
anomalous parts passed of all anomalous, `overkill_rate` good parts rejected of all good. Malformed
and unjudged answers count as wrong verdicts. AUROC is that of `decision_score`, ties counted half
(Mann-Whitney U); a part without a score stands at 0.5.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from lad_agent import rationale, recipe
from lad_agent.errors import UsageError

Metrics = dict[str, Any]
Line = TypeVar("Line")


@dataclass(frozen=True)
class Truth:
    """What an image really shows; `difference` is how far its counts are off the recipe's rules."""

    product: str
    anomalous: bool
    kind: str
    rule: str | None
    stratum: str
    difference: int
    image: Path


@dataclass(frozen=True)
class Judged:
    """One result beside its truth."""

    truth: Truth
    anomalous: bool | None
    score: float
    result: str
    rule: str | None
    well_formed: bool
    evidence: str


def evaluate(results: Path, truth: Path) -> Metrics:
    """Figures of `results` (a results.jsonl) against the truth files under `truth`.

    Raises:
        UsageError: a file is missing or not of its form, or no image of the results has a truth.
    """
    known = read_truth(truth)
    lines = list(_read(results, lambda entry: _judged(entry, known)))
    judged = [line for line in lines if line is not None]
    if not judged:
        raise UsageError(f"{results}: none of its images has a truth under {truth}")
    products = sorted({j.truth.product for j in judged})
    return {
        "overall": metrics(judged),
        "products": {p: metrics([j for j in judged if j.truth.product == p]) for p in products},
        "strata": {
            f"{p}/{s}": verdicts(
                [j for j in judged if (j.truth.product, j.truth.stratum) == (p, s)]
            )
            for p, s in sorted({(j.truth.product, j.truth.stratum) for j in judged})
        },
        "rule_difference": by_difference(judged),
        "without_truth": len(lines) - len(judged),
    }


def metrics(judged: Sequence[Judged]) -> Metrics:
    """All figures of one group, logical and structural faults apart, baselines beside them."""
    good = [j for j in judged if not j.truth.anomalous]
    kinds = {
        kind: verdicts([*good, *faults])
        for kind in ("logical", "structural")
        if (faults := [j for j in judged if j.truth.kind == kind])
    }
    bad = [j for j in judged if j.truth.anomalous]
    caught = [j for j in bad if j.anomalous and j.truth.rule]
    contradicted = [j for j in judged if j.evidence == "contradicted"]
    wrong = [j for j in judged if j.anomalous != j.truth.anomalous]
    return {
        **verdicts(judged),
        **kinds,
        "cause_named": _share(caught, lambda j: j.rule == j.truth.rule),
        "evidence_check": {
            "contradicted": len(contradicted),
            "catch_rate": _share(wrong, lambda j: j.evidence == "contradicted"),
            "cost": _share(
                [j for j in judged if j.anomalous == j.truth.anomalous],
                lambda j: j.evidence == "contradicted",
            ),
        },
        "baselines": {
            "always_yes": _always(judged, True),
            "always_no": _always(judged, False),
        },
    }


def verdicts(judged: Sequence[Judged]) -> Metrics:
    """Figures of verdicts and results of one group; None where a class is absent."""
    good = [j for j in judged if not j.truth.anomalous]
    bad = [j for j in judged if j.truth.anomalous]
    hit = _share(bad, lambda j: j.anomalous is True)
    clear = _share(good, lambda j: j.anomalous is False)
    found = sum(j.anomalous is True for j in bad)
    false_alarms = sum(j.anomalous is not False for j in good)
    decided = [j for j in judged if j.result != "NotDecidable"]
    return {
        "n": len(judged),
        "good": len(good),
        "anomalous": len(bad),
        "balanced_accuracy": None if hit is None or clear is None else (hit + clear) / 2,
        "accuracy": _share(judged, lambda j: j.anomalous == j.truth.anomalous),
        "f1": 2 * found / (found + false_alarms + len(bad)) if bad else None,
        "auroc": auroc([j.score for j in good], [j.score for j in bad]),
        "escape_rate": _share(bad, lambda j: j.result == "OK"),
        "escape_rate_decided": _share(
            [j for j in bad if j.result != "NotDecidable"], lambda j: j.result == "OK"
        ),
        "overkill_rate": _share(good, lambda j: j.result == "NotOK"),
        "outgoing_defect_rate": _share(
            [j for j in judged if j.result == "OK"], lambda j: j.truth.anomalous
        ),
        "coverage": len(decided) / len(judged) if judged else None,
        "well_formed": _share(judged, lambda j: j.well_formed),
    }


def by_difference(judged: Sequence[Judged]) -> Metrics:
    """Good parts, and logical faults by how far a count is off its rule (0: not a count)."""
    groups: dict[str, list[Judged]] = {}
    for j in judged:
        if j.truth.kind == "good":
            groups.setdefault("good", []).append(j)
        elif j.truth.kind == "logical":
            groups.setdefault(str(min(j.truth.difference, 4)), []).append(j)
    return {
        name: {
            "n": len(group),
            "right": _share(group, lambda j: j.anomalous == j.truth.anomalous),
            "passed": _share(group, lambda j: j.result == "OK"),
        }
        for name, group in sorted(groups.items())
    }


def auroc(good: Sequence[float], bad: Sequence[float]) -> float | None:
    """Area under the ROC curve: P(score of a bad part > that of a good one), ties half."""
    if not good or not bad:
        return None
    low = np.sort(np.asarray(good, dtype=np.float64))
    high: npt.NDArray[np.float64] = np.asarray(bad, dtype=np.float64)
    below = np.searchsorted(low, high, side="left")
    upto = np.searchsorted(low, high, side="right")
    return float((below + upto).sum() / 2 / (len(low) * len(high)))


def read_truth(directory: Path) -> dict[str, Truth]:
    """Truth by image hash from every `truth.jsonl` under `directory`.

    Raises:
        UsageError: there is none, or a line or an image of it cannot be read.
    """
    files = sorted(directory.rglob("truth.jsonl")) if directory.is_dir() else []
    if not files:
        raise UsageError(f"{directory}: no truth.jsonl in it; lad-agent synth writes one")
    out: dict[str, Truth] = {}
    for file in files:
        make = partial(_truth, file, _rules(file.parent))
        out |= {_digest(file, truth.image): truth for truth in _read(file, make)}
    return out


def table(figures: Metrics) -> str:
    """The figures as a Markdown table, one row a product."""
    head = (
        "| product | n | bal. acc. logical | bal. acc. structural | AUROC | escapes | overkill "
        "| coverage | well-formed |\n|---|---|---|---|---|---|---|---|---|"
    )
    rows = [("all", figures["overall"]), *figures["products"].items()]
    return "\n".join([head, *(_row(name, group) for name, group in rows)])


def _row(name: str, group: Metrics) -> str:
    values = [
        (group.get("logical") or {}).get("balanced_accuracy"),
        (group.get("structural") or {}).get("balanced_accuracy"),
        *(group[k] for k in ("auroc", "escape_rate", "overkill_rate", "coverage", "well_formed")),
    ]
    told = " | ".join("-" if v is None else f"{v:.3f}" for v in values)
    return f"| {name} | {group['n']} | {told} |"


def _judged(entry: Mapping[str, Any], known: Mapping[str, Truth]) -> Judged | None:
    truth, score = known.get(entry.get("image_sha256") or ""), entry.get("decision_score")
    if truth is None:
        return None
    return Judged(
        truth=truth,
        anomalous=entry.get("anomalous"),
        score=0.5 if score is None else float(score),
        result=str(entry["result"]),
        rule=entry.get("rule"),
        well_formed=bool(entry.get("well_formed")),
        evidence=str(entry.get("evidence", "unchecked")),
    )


def _always(judged: Sequence[Judged], answer: bool) -> Metrics:
    right = _share(judged, lambda j: j.truth.anomalous == answer)
    both = len({j.truth.anomalous for j in judged}) == 2
    return {"balanced_accuracy": 0.5 if both else None, "accuracy": right}


def _truth(file: Path, rules: Sequence[rationale.Count], entry: Mapping[str, Any]) -> Truth:
    return Truth(
        product=entry["product"],
        anomalous=bool(entry["anomalous"]),
        kind=entry["kind"],
        rule=entry["rule"],
        stratum=entry["stratum"],
        difference=_difference(entry, rules),
        image=file.parent / entry["image"],
    )


def _digest(file: Path, image: Path) -> str:
    try:
        return hashlib.sha256(image.read_bytes()).hexdigest()
    except OSError as error:
        raise UsageError(f"{file}: {image} cannot be read ({error.strerror})") from error


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


def _read(path: Path, make: Callable[[Mapping[str, Any]], Line]) -> Iterator[Line]:
    """What `make` makes of each line, a JSON object."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: cannot be read (not UTF-8 text)") from error
    lines = text.removesuffix("\n").split("\n") if text else []  # splitlines splits at U+2028 too
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise UsageError(f"{path}, line {number}: not JSON") from error
        if not isinstance(entry, dict):
            raise UsageError(f"{path}, line {number}: not a JSON object")
        try:
            made = make(entry)
        except KeyError as error:
            raise UsageError(f"{path}, line {number}: has no {error}") from error
        except (TypeError, ValueError) as error:
            raise UsageError(f"{path}, line {number}: not of its form ({error})") from error
        yield made


def _share(group: Sequence[Judged], holds: Callable[[Judged], bool]) -> float | None:
    return sum(map(holds, group)) / len(group) if group else None
