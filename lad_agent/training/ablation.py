"""The table of LAD-Reasoner's paper (arXiv 2504.12749): what each stage is worth, and what else the
same effort would have bought.

<folder>/seed-0/base/ sft/ grpo/ sft-grpo/ sft-sft/ captions/ captions-grpo/   one run each
<folder>/seed-0/base.jsonl ...                     what each said about the held-out pictures
<folder>/ablation.json ablation.md                 the figures, the table

Stopped at any moment, the same call goes on where it was.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lad_agent.errors import CheckFailed, UsageError
from lad_agent.training import bases, grpo, held_out, runs, sft
from lad_agent.training.config import RunConfig, Stage, changed
from lad_agent.training.evaluation import Judged, Resampling, over_runs, paired
from lad_agent.training.sources import Example, open_source
from lad_agent.training.stage import Say, result

ENDED = "ended.txt"
"""In a run's folder: why it ended itself. What teaches nothing is not tried again."""


@dataclass(frozen=True)
class Arm:
    """A row of the table: what it is trained by, the arm that it starts from, and its words."""

    name: str
    stage: Stage
    start: str | None
    words: str


ARMS = (
    Arm("base", "sft", None, "base"),
    Arm("sft", "sft", "base", "SFT only"),
    Arm("grpo", "grpo", "base", "GRPO only"),
    Arm("sft-grpo", "grpo", "sft", "SFT, then GRPO"),
    Arm("sft-sft", "sft", "sft", "SFT, then SFT for as long as that GRPO took"),
    Arm("captions", "sft", "base", "SFT on captions alone"),
    Arm("captions-grpo", "grpo", "captions", "SFT on captions alone, then GRPO"),
)
"""In the order in which they are trained: an arm's start stands before it."""

CLAIMS = (
    ("sft", "base"),
    ("grpo", "base"),
    ("sft-grpo", "sft"),
    ("sft-grpo", "grpo"),
    ("sft-grpo", "sft-sft"),
    ("sft-grpo", "captions-grpo"),
    ("captions-grpo", "captions"),
)
"""Pairs of arms that the paper's claim is about: is the first the better one?"""

_COLUMNS = {
    "balanced_accuracy": "bal. acc.",
    "logical": "bal. acc. logical",
    "accuracy": "accuracy",
    "f1": "F1",
    "auroc": "AUROC",
    "well_formed": "well-formed",
    "cause_named": "cause named",
}


def run(
    config: RunConfig,
    out: Path,
    *,
    seeds: int = 5,
    warm_up: int = 20,
    resampling: Resampling = held_out.RESAMPLING,
    say: Say = print,
) -> dict[str, Any] | None:
    """Train every arm from as many seeds and judge it; the figures, None if stopped by SIGTERM.

    `config` names base, pictures, held-out pictures and both stages; seeds count from its own.
    `warm_up` steps of inspections teach the base the form of an answer, without which there is no
    reward; 0 takes the base as it is. Figures and table are written after every seed. A run that
    ends itself because it teaches nothing has no figures, nor has what would start from it.

    Raises:
        UsageError: no pictures or held-out pictures are named, or `out` holds other runs.
        As `sft.train` and `grpo.train`.
    """
    data = config.data
    if not data.paths or data.held_out is None:
        raise UsageError("an ablation learns and judges: --data PATH and --held-out PATH")
    examples = held_out.pictures(data.held_out)
    held_out.refuse_taught(
        examples, {e.sha256 for p in data.paths for e in open_source(p) if e.split == "train"}
    )
    # Each arm is judged here, once, and not once more after its run.
    plain = config.model_copy(update={"data": data.model_copy(update={"held_out": None})})
    judged: dict[str, dict[int, list[Judged]]] = {arm.name: {} for arm in ARMS}
    found: dict[str, Any] = {}
    for seed in range(config.seed, config.seed + seeds):
        place = out / f"seed-{seed}"
        models: dict[str | None, str] = {None: config.base}
        for arm in ARMS:
            start = models.get(arm.start)
            if start is None:
                continue
            say(f"seed {seed}: {arm.words}")
            folder = place / arm.name
            if arm.start is None and not warm_up:
                models[arm.name] = start
            else:
                own = _settings(arm, changed(plain, base=start, seed=seed), place, warm_up)
                if not _carried_out(arm.stage, own, folder, say):
                    return None
                if (folder / ENDED).exists():
                    continue
                models[arm.name] = str(folder)
            judged[arm.name][seed] = _judged(
                models[arm.name], place / f"{arm.name}.jsonl", examples
            )
        found = _figures(judged, out, resampling)
        runs.write_whole(out / "ablation.json", json.dumps(found, indent=1) + "\n")
        runs.write_whole(out / "ablation.md", table(found) + "\n")
    return found


def table(found: Mapping[str, Any]) -> str:
    """The figures as a Markdown table, a row an arm, and a line for every claim."""
    held = found["arms"]
    names = [name for name in _COLUMNS if any(one[name] is not None for one in held.values())]
    heads = ["", "seeds", *(_COLUMNS[name] for name in names), "minutes"]
    rows = []
    for arm in ARMS:
        if arm.name in held:
            one = held[arm.name]
            cells = [_cell(one, name) for name in names]
            rows.append([arm.words, str(one["runs"]), *cells, f"{one['seconds'] / 60:.1f}"])
        else:
            rows.append([arm.words, "0", *("-" for _ in names), "-"])
    lines = ["| " + " | ".join(row) + " |" for row in (heads, *rows)]
    lines.insert(1, "|" + "---|" * len(heads))
    ended = [f"{folder} ended itself: {why}" for folder, why in found["ended"].items()]
    return "\n".join([*lines, "", *map(_claim, found["claims"]), *ended])


def _settings(arm: Arm, config: RunConfig, place: Path, warm_up: int) -> RunConfig:
    texts = config.sft.texts.model_dump() | {"caption": 0.0, "question": 0.0, "inspection": 0.0}
    match arm.name:
        case "base":
            asked = texts | {"inspection": 1.0}
            return changed(config, sft={"steps": warm_up, "texts": asked})
        case "captions":
            return changed(config, sft={"texts": texts | {"caption": 1.0}})
        case "sft-sft":
            a_step = _seconds(place / "sft") / config.sft.steps
            steps = max(1, round(_seconds(place / "sft-grpo") / a_step))
            return changed(config, sft={"steps": steps})
        case _:
            return config


def _carried_out(stage: Stage, config: RunConfig, folder: Path, say: Say) -> bool:
    """Train, or go on, or find it done or ended; False if stopped by SIGTERM.

    A finished run's checkpoints go: of so many runs they would fill the disk.
    """
    begun = (folder / "run.json").exists()
    if begun and runs.find_run(folder).config != config:
        raise UsageError(f"{folder}: holds a run with other settings; name a new folder")
    if (folder / result(config)).is_dir() or (folder / ENDED).exists():
        return True
    train = sft.train if stage == "sft" else grpo.train
    try:
        if train(config, folder, resume=begun, say=say) is None:
            return False
    except CheckFailed as error:
        if not (folder / "run.json").exists():
            raise
        runs.write_whole(folder / ENDED, f"{error}\n")
        say(str(error))
    shutil.rmtree(folder / "checkpoints")
    return True


def _judged(model: str, path: Path, examples: Sequence[Example]) -> list[Judged]:
    kept = held_out.read(path, examples)
    if kept is not None:
        return kept
    judged = held_out.judge(bases.find(model), examples)
    path.parent.mkdir(parents=True, exist_ok=True)
    held_out.write(path, judged, examples)
    return judged


def _figures(
    judged: Mapping[str, Mapping[int, list[Judged]]], out: Path, resampling: Resampling
) -> dict[str, Any]:
    """Of every arm the means over seeds with their intervals; of every claim the difference."""
    arms = {}
    for name, by_seed in judged.items():
        if by_seed:
            lists = list(by_seed.values())
            logical = [[j for j in one if j.truth.kind in ("good", "logical")] for one in lists]
            found = over_runs(lists, resampling)
            apart = over_runs(logical, resampling)
            found["logical"] = apart["balanced_accuracy"]
            found["intervals"]["logical"] = apart["intervals"]["balanced_accuracy"]
            spent = [_seconds(out / f"seed-{seed}" / name) for seed in by_seed]
            arms[name] = found | {"seconds": sum(spent) / len(spent)}
    claims = []
    for better, other in CLAIMS:
        if common := sorted(judged[better].keys() & judged[other].keys()):
            one, two = ([judged[arm][seed] for seed in common] for arm in (other, better))
            moved = paired(one, two, resampling)["balanced_accuracy"]
            claims.append({"better": better, "than": other, "seeds": common, **moved})
    ended = {
        str(path.parent.relative_to(out)): path.read_text(encoding="utf-8").strip()
        for path in sorted(out.glob(f"seed-*/*/{ENDED}"))
    }
    return {"arms": arms, "claims": claims, "ended": ended}


def _seconds(folder: Path) -> float:
    """What a run took, 0 where nothing was trained."""
    lines = runs.read_lines(folder / "metrics.jsonl")
    return float(lines[-1]["seconds"]) if lines else 0.0


def _cell(arm: Mapping[str, Any], name: str) -> str:
    value, ends = arm[name], arm["intervals"][name]
    if value is None:
        return "-"
    return f"{value:.3f}" + (f" ({ends[0]:.3f}-{ends[1]:.3f})" if ends else "")


def _claim(claim: Mapping[str, Any]) -> str:
    words = {arm.name: arm.words for arm in ARMS}
    ends = claim["interval"]
    pair = f"- {words[claim['better']]}, against {words[claim['than']]}"
    if ends is None:
        return f"{pair}: no figure, a class is missing"
    verdict = "better" if ends[0] > 0 else "worse" if ends[1] < 0 else "no more than chance"
    return (
        f"{pair}: {claim['difference']:+.3f} ({ends[0]:+.3f} to {ends[1]:+.3f}) balanced accuracy "
        f"over {len(claim['seeds'])} seeds: {verdict}"
    )
