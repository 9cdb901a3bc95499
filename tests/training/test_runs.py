"""Run folders, without a model: bound to one run, gone on with, compared, drawn."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.multiprocessing.spawn import spawn
from typer.testing import CliRunner

from lad_agent.cli.train import app
from lad_agent.errors import NotFound, PrerequisiteError, UsageError
from lad_agent.training import callbacks, curves, runs
from lad_agent.training.config import RunConfig, changed
from lad_agent.training.runs import Run
from tests import small_disk

CONFIG = RunConfig(base="pocket")


def _open(folder: Path, config: RunConfig = CONFIG, *, resume: bool = False) -> Run:
    return runs.open_run(folder, "sft", config, base="b1", data={"toy": "d1"}, resume=resume)


def _checkpoint(run: Run, step: int, *, whole: bool = True) -> Path:
    path = run.checkpoints / f"checkpoint-{step}"
    path.mkdir()
    if whole:
        (path / runs.WHOLE).touch()
    return path


def test_a_new_folder_says_what_it_is(tmp_path: Path) -> None:
    run = _open(tmp_path / "a")
    record = json.loads((run.folder / "run.json").read_text())
    assert (record["stage"], record["seed"], record["data"]) == ("sft", 0, {"toy": "d1"})
    assert record["base"] == {"name": "pocket", "fingerprint": "b1", "made_by": None}
    assert record["versions"]["torch"]
    commit = record["git"]
    assert commit is None or len(commit.rstrip("+")) == 40
    assert runs.find_run(run.folder) == run


def test_refusals(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    with pytest.raises(UsageError, match="no run to resume"):
        _open(folder, resume=True)
    _open(folder)
    with pytest.raises(UsageError, match="--resume goes on"):
        _open(folder)
    other = changed(CONFIG, seed=1, sft={"steps": 3})
    with pytest.raises(UsageError, match=r"another seed, sft\.steps; name a new folder"):
        _open(folder, other, resume=True)
    with pytest.raises(UsageError, match="another stage"):
        runs.open_run(folder, "grpo", CONFIG, base="b1", data={"toy": "d1"}, resume=True)
    with pytest.raises(UsageError, match="another the base's weights, the data's content"):
        runs.open_run(folder, "sft", CONFIG, base="b2", data={"toy": "d2"}, resume=True)
    asked = tmp_path / "asked"
    for resume, tasks in ((False, {"toy": "t1"}), (True, {"toy": "t1"})):
        runs.open_run(asked, "sft", CONFIG, base="b1", data={}, tasks=tasks, resume=resume)
    with pytest.raises(UsageError, match="another recipe or truth; name a new folder"):
        runs.open_run(asked, "sft", CONFIG, base="b1", data={}, tasks={"toy": "t2"}, resume=True)
    full = tmp_path / "full"
    full.mkdir()
    (full / "letter.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds other things"):
        _open(full)
    with pytest.raises(NotFound, match="holds no run"):
        runs.find_run(full)


def test_resume_forgets_what_came_after_the_last_whole_checkpoint(tmp_path: Path) -> None:
    run = _open(tmp_path / "a")
    for step in (9, 20, 100):
        _checkpoint(run, step)
    torn = _checkpoint(run, 110, whole=False)
    for step in (90, 100, 105):
        runs.add_line(run.metrics, {"step": step, "loss": 1.0})
        runs.add_line(run.samples, {"step": step, "said": "é"})
    with run.metrics.open("a") as file:
        file.write('{"step": 11')
    _open(tmp_path / "a", resume=True)
    last = runs.last_checkpoint(run.checkpoints)
    assert last is not None
    assert last.name == "checkpoint-100"
    assert not torn.exists()
    for path in (run.metrics, run.samples):
        assert [entry["step"] for entry in runs.read_lines(path)] == [90, 100]


def test_lines_end_where_json_lines_do(tmp_path: Path) -> None:
    """A rationale may hold U+2028; of a torn line no other suffers, whatever came after it."""
    path = tmp_path / "samples.jsonl"
    assert runs.read_lines(path) == []
    entries = [{"said": "a\u2028b"}, {"said": "c\u0085d\x1ce"}, {"said": "é"}]
    for entry in entries:
        runs.add_line(path, entry)
    assert runs.read_lines(path) == entries
    path.write_bytes(path.read_bytes()[: -len(b'\xa9"}\n')])
    assert runs.read_lines(path) == entries[:2]
    runs.add_line(path, {"said": "f"})
    assert runs.read_lines(path) == [*entries[:2], {"said": "f"}]


def test_resume_without_a_checkpoint_starts_anew(tmp_path: Path) -> None:
    run = _open(tmp_path / "a")
    runs.add_line(run.metrics, {"step": 5, "loss": 1.0})
    _open(tmp_path / "a", resume=True)
    assert runs.last_checkpoint(run.checkpoints) is None
    assert runs.read_lines(run.metrics) == []


def test_only_the_first_process_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    _open(tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_digest_knows_no_order() -> None:
    assert runs.digest(["a", "b"]) == runs.digest(["b", "a"]) != runs.digest(["a", "c"])


def test_compare(tmp_path: Path) -> None:
    first = _open(tmp_path / "first")
    second = _open(tmp_path / "second", changed(CONFIG, sft={"learning_rate": 0.01}))
    runs.add_line(first.metrics, {"step": 10, "loss": 2.0, "entropy": 0.5})
    runs.add_line(first.metrics, {"step": 20, "loss": 1.23456})
    found = runs.compare([first, second])
    assert [run["step"] for run in found["runs"]] == [20, 0]
    assert found["runs"][0]["metrics"] == {"loss": 1.23456, "entropy": 0.5}
    assert found["runs"][1]["config"] == {"sft.learning_rate": 0.01}
    lines = runs.table(found).splitlines()
    assert lines[0] == "| | first | second |"
    assert "| sft.learning_rate | 0.0001 | 0.01 |" in lines
    assert "| loss | 1.235 | - |" in lines
    assert len({line.count("|") for line in lines}) == 1


def test_compare_on_the_command_line(tmp_path: Path) -> None:
    run = _open(tmp_path / "first")
    runs.add_line(run.metrics, {"step": 10, "loss": 2.0})
    ran = CliRunner().invoke(app, ["compare", str(run.folder), "--json"])
    assert json.loads(ran.stdout)["runs"][0]["metrics"] == {"loss": 2.0}
    assert "| loss | 2 |" in CliRunner().invoke(app, ["compare", str(run.folder)]).stdout


def _staged(folder: Path, steps: int) -> Path:
    """What `train pocket` leaves, so far as it matters here."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"seed": 20, "dense": {"steps": steps}}))
    metrics = folder / "metrics.jsonl"
    metrics.touch()
    runs.add_line(metrics, {"stage": "dense", "steps": steps})
    for step in (0, steps - 1):
        runs.add_line(metrics, {"stage": "dense", "step": step, "cells": 2.0, "seconds": 1.0})
    runs.add_line(metrics, {"name": "dense", "spent": 2.0})
    runs.add_line(metrics, {"stage": "rules", "step": 20, "loss": 0.5, "seconds": 3.0})
    runs.add_line(metrics, {"head_reads": {"pushpins": 0.75}})
    return folder


def test_runs_in_stages_are_compared_too(tmp_path: Path) -> None:
    """Those of before there was a run.json as well."""
    folders = [str(_staged(tmp_path / name, steps)) for name, steps in (("a", 10), ("b", 30))]
    one = _open(tmp_path / "sft")
    ran = CliRunner().invoke(app, ["compare", *folders, "--json"])
    first, second = json.loads(ran.stdout)["runs"]
    assert (first["stage"], first["step"], second["step"]) == ("pocket", 29, 49)
    assert second["config"] == {"dense.steps": 30}
    assert second["metrics"] == {
        "dense/steps": 30, "dense/step": 29, "dense/cells": 2.0, "rules/step": 20,
        "rules/loss": 0.5, "head_reads/pushpins": 0.75,
    }  # fmt: skip
    mixed = CliRunner().invoke(app, ["compare", folders[0], str(one.folder)])
    assert "| stage | pocket | sft |" in mixed.stdout
    assert "| rules/loss | 0.5 | - |" in mixed.stdout


def test_a_run_in_stages_is_said_to_be_one(tmp_path: Path) -> None:
    folder = _staged(tmp_path / "a", 10)
    with pytest.raises(UsageError, match="a run of train pocket, not of train sft or train grpo"):
        runs.find_run(folder)
    runs.begin_staged(folder, "pocket", 20, base=None, data={})
    assert not (folder / "run.json").exists()
    (folder / "metrics.jsonl").unlink()
    runs.begin_staged(folder, "pocket", 20, base=None, data={"pictures": 1000})
    runs.begin_staged(folder, "pocket", 21, base=None, data={})
    assert json.loads((folder / "run.json").read_text())["data"] == {"pictures": 1000}


def test_curves(tmp_path: Path) -> None:
    run = _open(tmp_path / "a")
    assert curves.write(run) is None
    for step in range(5):
        runs.add_line(run.metrics, {"step": step, "loss": 1 / (step + 1), "reward": step})
    drawn = curves.write(run)
    assert drawn is not None
    with Image.open(drawn) as image:
        assert image.width > 500
    anew = CliRunner().invoke(app, ["curves", str(run.folder), "--out", str(tmp_path / "a.png")])
    assert anew.exit_code == 0, anew.exception
    assert (tmp_path / "a.png").read_bytes() == drawn.read_bytes()
    run.metrics.unlink()
    nothing = CliRunner().invoke(app, ["curves", str(run.folder)])
    assert isinstance(nothing.exception, NotFound)


def test_curves_of_several_stages(tmp_path: Path) -> None:
    """Of a step that was taken twice the later one counts; a torn last line is left out."""
    folder = tmp_path / "pocket"
    folder.mkdir()
    nothing = CliRunner().invoke(app, ["curves", str(folder)])
    assert isinstance(nothing.exception, NotFound)
    metrics = folder / "metrics.jsonl"
    (folder / "config.json").write_text("{}")
    for step in (1, 2, 3, 2, 3):
        runs.add_line(metrics, {"stage": "dense", "step": step, "cells": 2.0 / step})
    runs.add_line(metrics, {"name": "dense", "spent": 90.0})
    runs.add_line(metrics, {"stage": "rules", "step": 1, "loss": 1.0, "mean_token_accuracy": 0.5})
    with metrics.open("a", encoding="utf-8") as file:
        file.write('{"stage": "ru')
    drawn = CliRunner().invoke(app, ["curves", str(folder), "--out", str(tmp_path / "all.png")])
    assert drawn.exit_code == 0, drawn.exception
    with Image.open(tmp_path / "all.png") as image:
        assert image.width > 2 * image.height
    nowhere = CliRunner().invoke(app, ["curves", str(folder), "--out", str(tmp_path / "no" / "x")])
    assert isinstance(nowhere.exception, UsageError)


def test_curves_of_rounds_name_the_folder_that_has_them(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "round-1", tmp_path / "round-2"):
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text("{}")
        (folder / "metrics.jsonl").touch()
    found = CliRunner().invoke(app, ["curves", str(tmp_path)])
    assert isinstance(found.exception, NotFound)
    assert f"each round has its own: {tmp_path / 'round-1'}" in str(found.exception)


def _by_hand(path: Path) -> None:
    path.write_bytes(bytes(2**21))


def _by_torch(path: Path) -> None:
    torch.save(torch.zeros(2**19), path)


def _by_safetensors(path: Path) -> None:
    save_file({"a": torch.zeros(2**19)}, path)


def _by_a_process(path: Path) -> None:
    spawn(_member, (path,), nprocs=1)  # type: ignore[no-untyped-call]


def _member(rank: int, path: Path) -> None:
    _by_torch(path)


@pytest.mark.parametrize("write", [_by_hand, _by_torch, _by_safetensors, _by_a_process])
def test_a_full_disk_is_one_line_whoever_writes(
    tmp_path: Path, write: Callable[[Path], None]
) -> None:
    with small_disk.mounted(tmp_path / "disk", 1):
        out = tmp_path / "disk"
        with pytest.raises(PrerequisiteError) as told, runs.with_room(out):
            write(out / "weights")
    assert str(told.value) == (
        f"{out}: no room left on its disk; free some, then the same command goes on"
    )


def test_a_full_disk_between_checkpoints_is_one_line_too(tmp_path: Path) -> None:
    with small_disk.mounted(tmp_path / "disk", 1):
        run = _open(tmp_path / "disk" / "run")
        with pytest.raises(PrerequisiteError) as told, callbacks.guarded(run):
            _by_hand(run.folder / "metrics")
    assert str(told.value) == (f"{run.folder}: no room left on its disk; free some, then --resume")


def test_other_failures_stay_what_they_are(tmp_path: Path) -> None:
    for error in (PermissionError(13, "Permission denied"), RuntimeError("mat1 and mat2")):
        with pytest.raises(type(error)) as told, runs.with_room(tmp_path):
            raise error
        assert told.value is error
