"""A run's folder: what it is bound to, what it has measured, and how two runs differ.

    config.yaml       the whole configuration; a folder belongs to one
    run.json          stage, seed, base and its fingerprint, git commit, versions, hashes of the
                      data and of the tasks
    metrics.jsonl     one line a log entry; `tensorboard/` holds the same
    samples.jsonl     rationales of the same few pictures over time
    reviews.jsonl     the findings among its lessons: review, picture, label, who and when
    learned.txt       the content hashes of all its lessons, one a line
    held_out.json     figures on the held-out pictures, before and after
    curves.png        the metrics drawn
    checkpoints/      checkpoint-STEP; one with the file `whole` is complete
    model/, adapter/  the result: a model folder, or a LoRA adapter of the base

The runs in stages, `train pocket` and `train product`, have `config.json` in place of
`config.yaml`, and for checkpoints what each stage has left.

This module loads no torch. In a run of several processes the first one writes.
"""

import errno
import hashlib
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from lad_agent import atomic
from lad_agent.errors import ModelError, NotFound, PrerequisiteError, UsageError
from lad_agent.training import config as configs
from lad_agent.training.config import RunConfig, Stage
from lad_agent.training.sources import Example

WHOLE = "whole"
"""The file that marks a checkpoint as completely written."""

_VERSIONS = ("torch", "transformers", "trl", "peft")


Staged = Literal["pocket", "product"]


@dataclass(frozen=True)
class Run:
    """A folder bound to a configuration and a stage."""

    folder: Path
    stage: Stage
    config: RunConfig

    @property
    def settings(self) -> dict[str, Any]:
        return configs.flat(self.config)

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics.jsonl"

    @property
    def samples(self) -> Path:
        return self.folder / "samples.jsonl"

    @property
    def reviews(self) -> Path:
        return self.folder / "reviews.jsonl"

    @property
    def learned(self) -> Path:
        return self.folder / "learned.txt"


@dataclass(frozen=True)
class StagedRun:
    """A folder of `train pocket` or `train product`, and what its `config.json` says."""

    folder: Path
    stage: Staged
    config: Mapping[str, Any]

    @property
    def settings(self) -> dict[str, Any]:
        return configs.flatten(self.config)

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics.jsonl"


AnyRun = Run | StagedRun


def open_run(
    folder: Path,
    stage: Stage,
    config: RunConfig,
    *,
    base: str,
    made_by: Path | None = None,
    data: Mapping[str, str],
    tasks: Mapping[str, str] | None = None,
    resume: bool = False,
) -> Run:
    """Bind `folder` to a run, or find it bound to the same one.

    `base` is the fingerprint of the starting model, `made_by` the run that made it, `data` a hash
    of every product's pictures and labels, `tasks` one of what is asked of them and known to be in
    them. On resume what was measured after the last whole checkpoint is forgotten, half-written
    checkpoints go.

    Raises:
        UsageError: the folder holds another run, or one to be resumed, or cannot be written; or
            there is nothing to resume.
    """
    run = Run(folder, stage, config)
    if not first_process():
        return run
    told = _base(config.base, base, made_by)
    record = _record(stage, config.seed, told, data)
    record["tasks"] = dict(tasks or {})
    try:
        if (folder / "run.json").exists():
            _refuse_other(run, record)
            if not resume:
                raise UsageError(f"{folder} holds this run already; --resume goes on with it")
            _step_back(run)
        elif resume:
            raise UsageError(f"{folder}: no run to resume; leave --resume out to start one")
        elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UsageError(f"{folder} holds other things; name a new folder")
        else:
            run.checkpoints.mkdir(parents=True)
            atomic.write(folder / "config.yaml", configs.dump(config))
            _write_record(folder, record)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written ({error.strerror})") from error
    return run


def begin_staged(
    folder: Path,
    stage: Staged,
    seed: int,
    *,
    base: Path | None = None,
    fingerprint: str = "",
    data: Mapping[str, str | int],
) -> None:
    """Write `run.json` where a run in stages begins, from a model of that fingerprint or anew.

    One that is gone on with keeps what it has; of an older one without, nobody knows what it began
    with.
    """
    if not (folder / "run.json").exists() and not (folder / "metrics.jsonl").exists():
        told = _base(str(base), fingerprint, made_by(base)) if base is not None else None
        _write_record(folder, _record(stage, seed, told, data))


@contextmanager
def with_room(folder: Path, then: str = "the same command goes on") -> Iterator[None]:
    """A run writes into `folder` in here; `then` is what to do once there is room.

    Raises:
        PrerequisiteError: its disk is full.
    """
    try:
        yield
    except Exception as error:
        if not _full(error):
            raise
        raise PrerequisiteError(
            f"{folder}: no room left on its disk; free some, then {then}"
        ) from error


def find_run(folder: Path) -> Run:
    """The run of `train sft` or `train grpo` that `folder` holds.

    Raises:
        NotFound: it holds none.
        UsageError: it holds one of several stages.
    """
    found = find(folder)
    if isinstance(found, StagedRun):
        raise UsageError(
            f"{folder}: holds a run of train {found.stage}, not of train sft or train grpo"
        )
    return found


def find(folder: Path) -> AnyRun:
    """The run that `folder` holds, of whatever kind.

    Raises:
        NotFound: it holds none.
    """
    if (held := _staged_config(folder)) is not None:
        return StagedRun(folder, "product" if "kit" in held else "pocket", held)
    try:
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        text = (folder / "config.yaml").read_text(encoding="utf-8")
        stage: Stage = record["stage"]
    except (OSError, ValueError, KeyError) as error:
        raise NotFound(f"{folder}: holds no run of lad-agent train") from error
    return Run(folder, stage, configs.parse(text, str(folder / "config.yaml")))


def made_by(result: Path) -> Path | None:
    """The folder of the run that made a model or an adapter, or a copy of one; None if no run's.

    It is `result` itself, what that lies in, or what its card names, which may be gone.

    Raises:
        ModelError: the card cannot be read.
    """
    for at in (result, result.resolve().parent):
        if (at / "run.json").is_file():
            return at
    told = card(result).get("run")
    return Path(told) if told else None


def card(folder: Path) -> dict[str, Any]:
    """What `model_card.json` in a model's folder says; nothing where there is none.

    Raises:
        ModelError: it cannot be read.
    """
    path = folder / "model_card.json"
    try:
        told = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read ({error})") from error
    if not isinstance(told, dict):
        raise ModelError(f"{path}: a JSON object is wanted")
    return told


def last_checkpoint(checkpoints: Path) -> Path | None:
    """Of those in a folder the checkpoint of the highest step that was completely written."""
    whole = [path for path in _checkpoints(checkpoints) if (path / WHOLE).exists()]
    return max(whole, key=_step_of, default=None)


def last_step(run: Run) -> int:
    """The step of the last whole checkpoint, 0 where there is none."""
    last = last_checkpoint(run.checkpoints)
    return _step_of(last) if last else 0


def half_written(checkpoints: Path) -> list[Path]:
    """Checkpoints in a folder that were being written when the run ended."""
    return [path for path in _checkpoints(checkpoints) if not (path / WHOLE).exists()]


def drop_half_written(checkpoints: Path) -> None:
    """Remove the checkpoints in a folder that were being written when the run ended."""
    for path in half_written(checkpoints):
        shutil.rmtree(path)


def add_line(path: Path, entry: Mapping[str, Any]) -> None:
    """Append one JSON line; a torn one before it stays alone."""
    line = json.dumps(entry, ensure_ascii=False) + "\n"
    with path.open("a+b") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            line = line if file.read() == b"\n" else f"\n{line}"
        file.write(line.encode())


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a JSONL file; none where there is no file. Torn ones are left out."""
    out = []
    # By "\n" alone: texts may hold other ends of lines, such as U+2028, and be torn in a character.
    for line in path.read_bytes().split(b"\n") if path.exists() else ():
        with suppress(ValueError):
            out.append(json.loads(line))
    return out


def recorded_data(run: Run) -> dict[str, str]:
    """The hash of every product's pictures and labels, as the run began with them."""
    record = json.loads((run.folder / "run.json").read_text(encoding="utf-8"))
    return dict(record["data"])


@dataclass(frozen=True)
class RecordedBase:
    """The model that a run began with, and the folder of the run that had made it, if one had."""

    fingerprint: str
    made_by: Path | None


def recorded_base(run: AnyRun) -> RecordedBase | None:
    """What `run.json` says of a run's base, None if it began with none or an old one does not say;
    where it does not say which run had made the base, that is looked up where the base lies."""
    path = run.folder / "run.json"
    base = json.loads(path.read_text(encoding="utf-8"))["base"] if path.exists() else None
    if base is None:
        return None
    if "made_by" in base:
        made = Path(base["made_by"]) if base["made_by"] else None
    else:
        name = run.config.base if isinstance(run, Run) else base["name"]
        made = None if name == "pocket" else made_by(Path(name))
    return RecordedBase(base["fingerprint"], made)


def data_hashes(examples: Iterable[Example]) -> dict[str, str]:
    """A hash of every product's pictures and labels."""
    lines: dict[str, list[str]] = {}
    for e in examples:
        lines.setdefault(e.product, []).append(f"{e.sha256} {e.split} {e.kind} {e.rule} {e.cause}")
    return {product: digest(group) for product, group in sorted(lines.items())}


def digest(parts: Iterable[str]) -> str:
    """16 hex digits of SHA-256 over texts in any order, e.g. one for every example."""
    joined = "\n".join(sorted(parts))
    return hashlib.sha256(joined.encode()).hexdigest()[:16]


def git_commit() -> str | None:
    """The commit that the package's source lies in, with `+` where it was changed since."""

    def ask(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return ask("rev-parse", "HEAD") + ("+" if ask("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def first_process() -> bool:
    """Whether this is the process that writes, of those that a launcher has started."""
    return int(os.environ.get("RANK", "0")) == 0


def processes() -> int:
    """How many processes share the run."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def compare(found: Sequence[AnyRun]) -> dict[str, Any]:
    """What runs differ in and where they ended: `runs`, each with `folder`, `stage`, `step` (of all
    its stages), `metrics` (the last value of each) and `config` (the keys in which any two
    differ)."""
    values = [run.settings for run in found]
    names = dict.fromkeys(name for flat in values for name in flat)
    differ = [n for n in names if len({json.dumps(flat.get(n)) for flat in values}) > 1]
    out = []
    for run, flat in zip(found, values, strict=True):
        last = last_metrics(run)
        steps = [value for name, value in last.items() if name.rpartition("/")[2] == "step"]
        last.pop("step", None)
        out.append(
            {
                "folder": str(run.folder),
                "stage": run.stage,
                "step": sum(steps),
                "metrics": last,
                "config": {name: flat.get(name) for name in differ},
            }
        )
    return {"runs": out}


def last_metrics(run: AnyRun) -> dict[str, Any]:
    """The last value of every metric, and the last `step`; of several stages as STAGE/NAME."""
    out: dict[str, Any] = {}
    for entry in read_lines(run.metrics):
        if "spent" not in entry:
            out |= named(entry)
    return out


def named(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a line of `metrics.jsonl` by their whole names.

    >>> named({"stage": "rules", "step": 20, "loss": 0.5, "seconds": 9.1})
    {'rules/step': 20, 'rules/loss': 0.5}
    >>> named({"head_reads": {"pushpins": 0.75}})
    {'head_reads/pushpins': 0.75}
    """
    if "stage" not in entry:
        return configs.flatten(entry, "/")
    left_out = ("stage", "seconds")
    return {f"{entry['stage']}/{k}": v for k, v in entry.items() if k not in left_out}


def table(compared: Mapping[str, Any]) -> str:
    """What `compare` found, as a Markdown table with one column a run."""
    found = compared["runs"]
    names = [Path(run["folder"]).name for run in found]
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(found) + 1) + "|"]

    def row(name: str, cells: Iterable[Any]) -> None:
        lines.append(f"| {name} | " + " | ".join(map(_cell, cells)) + " |")

    row("stage", [run["stage"] for run in found])
    row("step", [run["step"] for run in found])
    for section in ("config", "metrics"):
        for name in dict.fromkeys(n for run in found for n in run[section]):
            row(name, [run[section].get(name) for run in found])
    return "\n".join(lines)


def _record(
    stage: str, seed: int, base: Mapping[str, Any] | None, data: Mapping[str, str | int]
) -> dict[str, Any]:
    return {
        "stage": stage,
        "seed": seed,
        "base": dict(base) if base else None,
        "data": dict(data),
        "git": git_commit(),
        "versions": {
            "lad-agent": metadata.version("lad-agent"),
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in _VERSIONS},
        },
    }


def _base(name: str, fingerprint: str, made_by: Path | None) -> dict[str, str | None]:
    made = str(made_by.resolve()) if made_by else None
    return {"name": name, "fingerprint": fingerprint, "made_by": made}


def _write_record(folder: Path, record: Mapping[str, Any]) -> None:
    atomic.write(folder / "run.json", json.dumps(record, indent=1) + "\n")


def _full(error: Exception) -> bool:
    """Whether the disk is full: an OSError, or what safetensors, torch or a process says of one."""
    told = (os.strerror(errno.ENOSPC), "iostream error", "inline_container.cc")
    return getattr(error, "errno", None) == errno.ENOSPC or any(t in str(error) for t in told)


def _staged_config(folder: Path) -> dict[str, Any] | None:
    """The configuration of a run in stages; None where `folder` holds none."""
    if not (folder / "metrics.jsonl").is_file():
        return None
    try:
        held = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return held if isinstance(held, dict) else None


def _refuse_other(run: Run, record: Mapping[str, Any]) -> None:
    held = find_run(run.folder)
    written = json.loads((run.folder / "run.json").read_text(encoding="utf-8"))
    old, new = configs.flat(held.config), configs.flat(run.config)
    differ = [name for name in new if new[name] != old.get(name)]
    if held.stage != run.stage:
        differ.insert(0, "stage")
    differ += [
        what
        for what, same in (
            (
                "the base's weights",
                written["base"]["fingerprint"] == record["base"]["fingerprint"],
            ),
            ("the data's content", written["data"] == record["data"]),
            # A folder from before they were written down has none.
            ("recipe or truth", written.get("tasks", record["tasks"]) == record["tasks"]),
        )
        if not same
    ]
    if differ:
        raise UsageError(
            f"{run.folder} holds a run with another {', '.join(differ[:4])}; name a new folder"
        )


def _step_back(run: Run) -> None:
    """Leave the folder as the last whole checkpoint found it."""
    drop_half_written(run.checkpoints)
    step = last_step(run)
    for path in (run.metrics, run.samples):
        kept = [entry for entry in read_lines(path) if entry.get("step", 0) <= step]
        atomic.write(path, "".join(json.dumps(e, ensure_ascii=False) + "\n" for e in kept))


def _checkpoints(folder: Path) -> list[Path]:
    return list(folder.glob("checkpoint-*"))


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
