"""Results as files: whole, or not there."""

import csv
import json
from pathlib import Path

import pytest

from lad_agent import results
from lad_agent.errors import UsageError
from lad_agent.inspection import Outcome
from lad_agent.judgement import Result

OUTCOME = Outcome(
    id="1", part_id='a,"b"', station="s", lot=None, image="/a.png", image_sha256="0", product="p",
    task_version="t", recipe_version="r", result=Result.NOT_OK, anomalous=True, anomaly_score=0.9,
    confidence=0.8, decision_score=0.82, weakest_token=0.8, samples=0, agreement=None,
    rationale="R1 nuts: 0 of 2 bad\nmore", rule="R1", places=("A1", "B2"), well_formed=True,
    reason=None, model="m", elapsed_s=0.1, evidence="consistent", final=Result.NOT_OK, attempt=1,
)  # fmt: skip


def test_jsonl_is_one_line_an_outcome(tmp_path: Path) -> None:
    results.write(tmp_path / "r.jsonl", [OUTCOME, OUTCOME])
    lines = (tmp_path / "r.jsonl").read_text().splitlines()
    assert [Outcome.model_validate_json(line) for line in lines] == [OUTCOME, OUTCOME]
    assert list(json.loads(lines[0])) == list(Outcome.model_fields)


def test_csv_keeps_commas_quotes_and_line_ends(tmp_path: Path) -> None:
    results.write(tmp_path / "r.csv", [OUTCOME])
    with (tmp_path / "r.csv").open(newline="", encoding="utf-8") as file:
        [row] = csv.DictReader(file)
    assert (row["part_id"], row["rationale"]) == (OUTCOME.part_id, OUTCOME.rationale)
    assert (row["places"], row["lot"], row["result"]) == ("A1 B2", "", "NotOK")


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text("old\n")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(UsageError, match="No space left on device"):
        results.write(path, [OUTCOME])
    assert path.read_text() == "old\n"
    assert list(tmp_path.iterdir()) == [path]
