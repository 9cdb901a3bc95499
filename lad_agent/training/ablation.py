"""The table of LAD-Reasoner's paper (arXiv 2504.12749): what each stage is worth, and what else the
same effort would have bought.

<folder>/seed-0/base/ sft/ grpo/ sft-grpo/ sft-sft/ captions/ captions-grpo/   one run each
<folder>/seed-0/base.jsonl ...                     what each said about the held-out pictures
<folder>/pace/sft/ grpo/ captions/                 short runs that are timed
<folder>/ablation.json ablation.md                 the figures, the table

Stopped at any moment, the same call goes on where it was.
"""

import json
import multiprocessing
import os
import shutil
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lad_agent import atomic
from lad_agent.errors import TrainingEnded, UsageError
from lad_agent.training import bases, grpo, held_out, runs, sft, workers
from lad_agent.training.config import RunConfig, Stage, changed
from lad_agent.training.evaluation import Judged, Resampling, over_runs, paired
from lad_agent.training.sources import Example, open_source
from lad_agent.training.stage import Say, result

ENDED = "ended.txt"
"""In a run's folder: why it ended itself. What teaches nothing is not tried again."""
TIMED = 20
"""Steps that are timed before a stage is planned by time; as many as a pool lasts, if there is
one."""


@dataclass(frozen=True)
class Arm:
    """A row of the table: what it is trained by, the arm that it starts from, its words, and the
    arm that it is trained for as long as."""

    name: str
    stage: Stage
    start: str | None
    words: str
    as_long_as: str | None = None


ARMS = (
    Arm("base", "sft", None, "base"),
    Arm("sft", "sft", "base", "SFT only"),
    Arm("grpo", "grpo", "base", "GRPO only"),
    Arm("sft-grpo", "grpo", "sft", "SFT, then GRPO"),
    Arm("sft-sft", "sft", "sft", "SFT, then SFT for as long as that GRPO took", "sft-grpo"),
    Arm("captions", "sft", "base", "SFT on captions alone"),
    Arm("captions-grpo", "grpo", "captions", "SFT on captions alone, then GRPO"),
)
"""In the order in which they are trained: what an arm needs stands before it."""

NAMES = tuple(arm.name for arm in ARMS)

CLAIMS = (
    ("sft", "base"),
    ("grpo", "base"),
    ("grpo", "sft"),
    ("grpo", "captions"),
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


@dataclass(frozen=True)
class Trial:
    """What is trained: `config` names base, pictures and both stages, and the first seed; `arms`
    are those of `ARMS`, in their order. With `minutes` every stage takes as many steps as fit
    into that time, by short runs that are timed once; without, as many as `config` says."""

    config: RunConfig
    out: Path
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    warm_up: int
    minutes: float | None


def run(
    config: RunConfig,
    out: Path,
    *,
    arms: Sequence[str] = NAMES,
    seeds: int = 5,
    warm_up: int = 20,
    minutes: float | None = None,
    jobs: int = 1,
    resampling: Resampling = held_out.RESAMPLING,
    say: Say = print,
) -> dict[str, Any] | None:
    """Train arms from as many seeds and judge them; the figures, None if stopped by SIGTERM.

    `config` names base, pictures, held-out pictures and both stages; seeds count from its own.
    What an arm starts from is trained too. `warm_up` steps of inspections teach the base the form
    of an answer, without which there is no reward; 0 takes the base as it is. With `minutes` every
    stage is planned to take that long. `jobs` processes share the seeds. Figures and table are
    written after every seed, at the end where processes share them. For a run that ends itself
    because it teaches nothing, and for what would start from it, the verdicts of the model that it
    started from stand in: nothing was gained, and all rows and claims are over the same seeds.

    Raises:
        UsageError: no pictures or held-out pictures are named, an arm is not known, or `out` holds
            other runs.
        As `sft.train` and `grpo.train`.
    """
    data = config.data
    if not data.paths or data.held_out is None:
        raise UsageError("an ablation learns and judges: --data PATH and --held-out PATH")
    if data.reviews:
        raise UsageError("an ablation learns from labelled pictures alone: set data.reviews to no")
    examples = held_out.pictures(data.held_out)
    held_out.refuse_taught(
        examples, {e.sha256 for p in data.paths for e in open_source(p) if e.split == "train"}
    )
    # Each arm is judged here, once, and not once more after its run.
    plain = config.model_copy(update={"data": data.model_copy(update={"held_out": None})})
    numbers = tuple(range(config.seed, config.seed + seeds))
    trial = Trial(plain, out, chosen(arms), numbers, warm_up, minutes)
    if jobs > 1:
        _take_share(jobs)  # what is timed here is planned for processes that have no more
    if minutes is not None and not _timed(trial, say):
        return None
    if not warm_up:
        _judged(config.base, out / "base.jsonl", examples)
    if jobs > 1 and not _shared(trial, data.held_out, min(jobs, seeds)):
        return None
    judged: dict[str, dict[int, list[Judged]]] = {arm.name: {} for arm in trial.arms}
    found: dict[str, Any] = {}
    for seed in numbers:
        own = _one_seed(trial, seed, examples, say)
        if own is None:
            return None
        for name, verdicts in own.items():
            judged[name][seed] = verdicts
        found = _figures(judged, out, resampling)
        atomic.write(out / "ablation.json", json.dumps(found, indent=1) + "\n")
        atomic.write(out / "ablation.md", table(found) + "\n")
    return found


def chosen(names: Sequence[str]) -> tuple[Arm, ...]:
    """The arms of these names and all that they start from or are measured by, as in `ARMS`.

    Raises:
        UsageError: there is no such arm.
    """
    for name in names:
        if name not in NAMES:
            raise UsageError(f"no arm {name!r}; known: {', '.join(NAMES)}")
    wanted: set[str | None] = set(names)
    for arm in reversed(ARMS):
        if arm.name in wanted:
            wanted |= {arm.start, arm.as_long_as}
    return tuple(arm for arm in ARMS if arm.name in wanted)


def table(found: Mapping[str, Any]) -> str:
    """The figures as a Markdown table, a row an arm, and a line for every claim."""
    held = found["arms"]
    names = [name for name in _COLUMNS if any(one[name] is not None for one in held.values())]
    heads = ["", "seeds", *(_COLUMNS[name] for name in names), "minutes"]
    rows = []
    for arm in ARMS:
        if arm.name not in found["chosen"]:
            continue
        one = held[arm.name]
        ended = f" ({len(one['stood_in'])} ended)" if one["stood_in"] else ""
        cells = [_cell(one, name) for name in names]
        rows.append([arm.words, f"{one['runs']}{ended}", *cells, f"{one['seconds'] / 60:.1f}"])
    lines = ["| " + " | ".join(row) + " |" for row in (heads, *rows)]
    lines.insert(1, "|" + "---|" * len(heads))
    notes = [
        f"{folder} ended itself, what it started from stands in for it: {why}"
        for folder, why in found["ended"].items()
    ]
    return "\n".join([*lines, "", *map(_claim, found["claims"]), *notes])


def _one_seed(
    trial: Trial, seed: int, examples: Sequence[Example], say: Say
) -> dict[str, list[Judged]] | None:
    """Verdicts by arm; None if stopped by SIGTERM."""
    place = trial.out / f"seed-{seed}"
    made: dict[str | None, tuple[str, Path]] = {None: (trial.config.base, trial.out / "base.jsonl")}
    out = {}
    for arm in trial.arms:
        start, _ = made[arm.name] = made[arm.start]
        trained = arm.start is not None or trial.warm_up
        if trained and not _ended(trial.out, seed, arm.start):
            say(f"seed {seed}: {arm.words}")
            folder = place / arm.name
            own = settings(arm, changed(trial.config, base=start, seed=seed), trial, place)
            if not carried_out(arm.stage, own, folder, say):
                return None
            if not _ended(trial.out, seed, arm.name):
                made[arm.name] = str(folder), place / f"{arm.name}.jsonl"
        out[arm.name] = _judged(*made[arm.name], examples)
    return out


def _ended(out: Path, seed: int, name: str | None) -> bool:
    """Whether an arm has ended itself in a seed, or what it starts from has."""
    starts = {arm.name: arm.start for arm in ARMS}
    while name is not None:
        if (out / f"seed-{seed}" / name / ENDED).exists():
            return True
        name = starts[name]
    return False


def _shared(trial: Trial, held: Path, jobs: int) -> bool:
    """Let processes train the seeds, each its share of them, into the folder; False if stopped.

    What one of them fails at is told by whoever goes through the folder afterwards.
    """
    context = multiprocessing.get_context("spawn")
    started = [context.Process(target=_worker, args=(trial, held, n, jobs)) for n in range(jobs)]
    stopped = False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True
        for worker in started:
            worker.terminate()

    before = signal.signal(signal.SIGTERM, stop)
    try:
        for worker in started:
            worker.start()
        for worker in started:
            worker.join()
    finally:
        signal.signal(signal.SIGTERM, before)
    return not stopped


def _worker(trial: Trial, held: Path, number: int, jobs: int) -> None:
    workers.end_with_parent()
    _take_share(jobs)
    examples = held_out.pictures(held)
    for seed in trial.seeds[number::jobs]:
        if _one_seed(trial, seed, examples, _say_to_stderr) is None:
            return


def _take_share(jobs: int) -> None:
    """Of the processor's cores, and the arithmetic that all of them do alike."""
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // jobs))
    torch.set_flush_denormal(True)


def _say_to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _timed(trial: Trial, say: Say) -> bool:
    """Train a few steps of every stage that there is; False if stopped by SIGTERM.

    From a base that was warmed up: one that knows no form never ends an answer, and GRPO would
    seem twice as slow as it is.
    """
    config, section = trial.config, trial.config.grpo
    if trial.warm_up:
        warmed = trial.out / "pace" / "base"
        first = settings(ARMS[0], config, trial, warmed)
        if not carried_out("sft", first, warmed, say):
            return False
        config = changed(config, base=str(warmed))
    for name, arm in {_paced_by(arm): arm for arm in trial.arms if arm.start is not None}.items():
        steps = section.refresh if arm.stage == "grpo" and section.pool else TIMED
        short = changed(_taught_by(arm, config), samples=0, **{arm.stage: {"steps": steps}})
        say(f"timing {name}")
        if not carried_out(arm.stage, short, trial.out / "pace" / name, say):
            return False
    return True


def _paced_by(arm: Arm) -> str:
    """The name of what is timed for an arm: its stage, or captions, which are shorter texts."""
    return arm.name if arm.name == "captions" else arm.stage


def settings(arm: Arm, config: RunConfig, trial: Trial, place: Path) -> RunConfig:
    """The configuration of an arm, from that of the trial with the arm's base and seed."""
    config = _taught_by(arm, config)
    if arm.start is None:
        return changed(config, sft={"steps": trial.warm_up})
    if arm.as_long_as is not None:
        before = place / arm.start
        steps = _seconds(place / arm.as_long_as) / _seconds(before) * _steps(before)
    elif trial.minutes is not None:
        pace = trial.out / "pace" / _paced_by(arm)
        steps = 60 * trial.minutes / _seconds(pace) * _steps(pace)
    else:
        return config
    return changed(config, **{arm.stage: {"steps": max(1, round(steps))}})


def _taught_by(arm: Arm, config: RunConfig) -> RunConfig:
    """`config` with the texts that an arm learns from."""
    only = {"base": "inspection", "captions": "caption"}.get(arm.name)
    if only is None:
        return config
    none = dict.fromkeys(("caption", "question", "inspection"), 0.0)
    return changed(config, sft={"texts": config.sft.texts.model_dump() | none | {only: 1.0}})


def carried_out(stage: Stage, config: RunConfig, folder: Path, say: Say) -> bool:
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
    except TrainingEnded as error:
        atomic.write(folder / ENDED, f"{error}\n")
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
    """Of every arm the means over seeds with their intervals; of every claim the difference.
    `stood_in` are the seeds in which something stands in for an arm that ended itself."""
    arms = {}
    for name, by_seed in judged.items():
        lists = list(by_seed.values())
        found = over_runs(lists, resampling)
        apart = over_runs(_logical(lists), resampling)
        found["logical"] = apart["balanced_accuracy"]
        found["intervals"]["logical"] = apart["intervals"]["balanced_accuracy"]
        spent = [_seconds(out / f"seed-{seed}" / name) for seed in by_seed]
        stood_in = [seed for seed in by_seed if _ended(out, seed, name)]
        arms[name] = found | {"seconds": sum(spent) / len(spent), "stood_in": stood_in}
    claims = []
    for better, other in CLAIMS:
        if better in judged and other in judged:
            one, two = (list(judged[arm].values()) for arm in (other, better))
            moved = paired(one, two, resampling)["balanced_accuracy"]
            apart = paired(_logical(one), _logical(two), resampling)["balanced_accuracy"]
            both = {*arms[better]["stood_in"], *arms[other]["stood_in"]}
            claims.append(
                {
                    "better": better,
                    "than": other,
                    "seeds": list(judged[better]),
                    "stood_in": sorted(both),
                    **moved,
                    "logical": apart,
                }
            )
    ended = {
        str(path.parent.relative_to(out)): path.read_text(encoding="utf-8").strip()
        for path in sorted(out.glob(f"seed-*/*/{ENDED}"))
    }
    return {"chosen": list(judged), "arms": arms, "claims": claims, "ended": ended}


def _logical(runs: Iterable[Sequence[Judged]]) -> list[list[Judged]]:
    """Good parts and those of a logical fault alone."""
    return [[j for j in one if j.truth.kind in ("good", "logical")] for one in runs]


def _seconds(folder: Path) -> float:
    """What a run took, 0 where nothing was trained."""
    lines = runs.read_lines(folder / "metrics.jsonl")
    return float(lines[-1]["seconds"]) if lines else 0.0


def _steps(folder: Path) -> int:
    lines = runs.read_lines(folder / "metrics.jsonl")
    return int(lines[-1]["step"]) if lines else 0


def _cell(arm: Mapping[str, Any], name: str) -> str:
    value, ends = arm[name], arm["intervals"][name]
    if value is None:
        return "-"
    return f"{value:.3f}" + (f" ({ends[0]:.3f}-{ends[1]:.3f})" if ends else "")


def _claim(claim: Mapping[str, Any]) -> str:
    words = {arm.name: arm.words for arm in ARMS}
    pair = f"- {words[claim['better']]}, against {words[claim['than']]}"
    if claim["interval"] is None:
        return f"{pair}: no figure, a class is missing"
    ended = f", {len(claim['stood_in'])} of them ended" if claim["stood_in"] else ""
    over = f" balanced accuracy over {len(claim['seeds'])} seeds{ended}"
    apart = claim["logical"]
    logical = f"; of logical faults alone {_moved(apart)}" if apart["interval"] else ""
    return f"{pair}: {_moved(claim, over)}{logical}"


def _moved(found: Mapping[str, Any], over: str = "") -> str:
    low, high = found["interval"]
    verdict = "better" if low > 0 else "worse" if high < 0 else "no more than chance"
    return f"{found['difference']:+.3f} ({low:+.3f} to {high:+.3f}){over}: {verdict}"
