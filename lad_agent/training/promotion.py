"""A run's result takes the place of the model in use, unless it got worse."""

import json
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lad_agent import atomic
from lad_agent.errors import CheckFailed, UsageError
from lad_agent.training import bases, held_out, runs
from lad_agent.training.bases import Base
from lad_agent.training.calibration import learned, taught
from lad_agent.training.runs import Run

RECORD = "promoted.json"
"""In the run's folder: where its result was promoted to, when, and on what figures."""


def compare(folder: Path, to: Path, pictures: Path | None = None) -> dict[str, Any]:
    """The run in `folder` beside what lies in `to`, or beside the run's base if nothing does.

    `pictures` is the held-out set, by default the one that the run's configuration names. A run of
    `train pocket` or `train product` names none, and no base that judges the same products. The
    figures are those of `held_out.compare`.

    Raises:
        NotFound, UsageError: no finished run, no held-out set, or `to` holds something else.
        CheckFailed: the run, or one that it went on from, has learned from held-out pictures, or
            is gone, or its pictures have changed and it has kept no list of them, so that nobody
            can tell; or the set that it was judged by is another now.
    """
    run, after = runs.find(folder), bases.find(str(folder))
    config = run.config if isinstance(run, Run) else None
    held = pictures or (config.data.held_out if config else None)
    if held is None:
        raise UsageError(f"{folder}: names no held-out pictures to judge it by; --held-out PATH")
    examples = held_out.pictures(held)
    if pictures is None:
        _refuse_changed(folder, held_out.digest(examples), held)
    held_out.refuse_taught(examples, _learned(folder))
    before = _in_use(to, after) or (bases.find(config.base) if config else None)
    if before is None:
        raise UsageError(
            f"{to}: holds no model to judge {folder} beside; copy {after.folder} there as the first"
        )
    return held_out.compare(before, after, held)


def promote(
    folder: Path,
    to: Path,
    compared: Mapping[str, Any],
    tolerance: float = held_out.TOLERANCE,
) -> None:
    """Copy the result of the run in `folder` to `to`; what was there moves to `to`.previous.

    Raises:
        CheckFailed: by what was `compared` it got worse (`held_out.worse`); `to` stays as it is.
        UsageError: `to` cannot be written.
    """
    if (why := held_out.worse(compared, tolerance)) is not None:
        raise CheckFailed(f"{folder}: not promoted: {why}")
    found = bases.find(str(folder))
    before = _previous(to)
    try:
        with atomic.new_folder(to) as part:
            shutil.copytree(found.adapter or found.folder, part)
            if to.exists():
                shutil.rmtree(before, ignore_errors=True)
                to.rename(before)
        record = {"to": str(to), "at": datetime.now(UTC).isoformat(), **compared}
        atomic.write(folder / RECORD, json.dumps(record, indent=1) + "\n")
    except OSError as error:
        raise UsageError(f"{to}: cannot be written ({error.strerror})") from error


def _refuse_changed(folder: Path, digest: str, held: Path) -> None:
    """The set that shows a step back stays as it is."""
    path = folder / "held_out.json"
    told = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if told.get("digest", digest) != digest:
        raise CheckFailed(
            f"{held}: not the pictures and labels that {folder} was judged by; put them back, or "
            "name the set to judge by: --held-out PATH"
        )


def _learned(folder: Path) -> frozenset[str]:
    """Hashes of the pictures that a run and those it went on from have learned from."""
    known = taught(folder)
    for one in known:
        if one.gone is not None:
            raise CheckFailed(
                f"{one.of}: the run that made its base, {one.gone}, is gone, and with it what it "
                "has learned from; put it back"
            )
        if one.changed:
            raise CheckFailed(
                f"{one.of}: its pictures have changed since it learned from them, and it lists "
                "none, so that nobody can tell whether held-out ones were among them; put them back"
            )
    return learned(known)


def _previous(to: Path) -> Path:
    return to.with_name(f"{to.name}.previous")


def _in_use(to: Path, after: Base) -> Base | None:
    """What lies in `to`, of the same kind as the run's result; None where nothing does."""
    if not to.exists():
        if (before := _previous(to)).exists():
            raise UsageError(
                f"{to}: gone, its place was being taken; move {before} back there, or away"
            )
        return None
    adapter = (to / "adapter_config.json").is_file()
    if not adapter and not (to / "config.json").is_file():
        raise UsageError(f"{to}: holds neither model nor adapter; name another folder")
    if adapter is not (after.adapter is not None):
        kinds = ("an adapter", "a model") if adapter else ("a model", "an adapter")
        raise UsageError(f"{to}: holds {kinds[0]}, the run made {kinds[1]}; name another folder")
    if not adapter:
        return Base(to, None)
    base = bases.card(Base(to, None)).get("base")
    if base != Base(after.folder, None).fingerprint:
        other = "another base" if base else "a base that it does not name"
        raise UsageError(
            f"{to}: holds an adapter of {other}, the run's is of {after.folder}; "
            "name another folder"
        )
    return Base(after.folder, to)
