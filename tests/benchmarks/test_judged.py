"""What the benchmarks of confidence share: judgements that are kept, and figures made of them."""

import json
import re
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import confidence, degradations, effort, judged, people, promise
from benchmarks.judged import Key, Way
from lad_agent import recipe
from lad_agent.reasoners import EMBEDDED
from lad_agent.reasoners.fingerprints import fingerprint
from lad_agent.training import synloco
from lad_agent.training.calibration import Asked, Part
from lad_agent.training.calibration.trials import THE_OTHERS, run
from lad_agent.training.degradations import DEGRADATIONS
from tests.training.calibration.synthetic import part, parts

LINE = parts(300, 300, wrong=0.15)


def test_more_parts_begin_with_the_same_ones() -> None:
    few, many = judged.mixed("train", 7, 11), judged.mixed("train", 70, 110)
    assert len(set(many)) == 180
    assert set(few) <= set(many)
    products = [key.product for key in many]
    assert {products.count(product) for product in synloco.PRODUCTS} == {36}
    kinds = [key.kind for key in many]
    assert (kinds.count("good"), kinds.count("logical")) == (70, 55)
    only = judged.mixed("train", 0, 110, faults=("logical",))
    assert {key for key in many if key.kind == "logical"} < set(only)
    assert {key.kind for key in only} == {"logical"}


def test_a_part_follows_from_its_key_alone() -> None:
    key = Key("pushpins", "train", "logical", 3)
    picture = judged.drawn(key)
    assert picture.tobytes() == judged.drawn(key).tobytes()
    others = (replace(key, index=4), replace(key, kind="good"), replace(key, split="held-out"))
    assert len({judged.sha256(judged.drawn(other)) for other in (key, *others)}) == 4
    asked = judged.question(picture, recipe.load(recipe.shipped("pushpins")))
    assert asked is not None
    assert asked.image.size == (196, 196)


def _kept(keys: Sequence[Key], keep: Path) -> tuple[Path, list[Part]]:
    """Judgements as another run has left them."""
    task = judged.asked(keys[0].product, judged.SHIPPED, keep)
    file = keep / judged._file(fingerprint(EMBEDDED), judged.SHIPPED, task)
    said = part("any", False, False, 0.8).judgement
    found = [Part(judged._example(key, f"{n:064x}"), said) for n, key in enumerate(keys)]
    judged._append(file, keys, found)
    return file, found


def test_what_was_judged_is_read_and_not_judged_again(tmp_path: Path) -> None:
    keys = judged.mixed("train", 3, 3, ("pushpins",))
    file, found = _kept(keys, tmp_path)
    before = file.read_bytes()
    assert judged.parts(keys[::-1], EMBEDDED, tmp_path) == found[::-1]
    assert file.read_bytes() == before


def test_a_line_that_a_killed_run_left_torn_is_cut_off(tmp_path: Path) -> None:
    keys = judged.mixed("train", 2, 2, ("pushpins",))
    file, found = _kept(keys, tmp_path)
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:-1]) + lines[-1][:40])
    assert [key for key, _ in judged._read(file)] == keys[:3]
    judged._append(file, keys[3:], found[3:])
    assert [key for key, _ in judged._read(file)] == keys
    assert [json.loads(line)["key"]["index"] for line in file.read_text().splitlines()]


def test_another_way_of_asking_has_another_file(tmp_path: Path) -> None:
    ways = [*effort.WAYS.values(), Way("shipped", {"sample_below": 0.5})]
    names = {judged._file("m", way, judged.asked("pushpins", way, tmp_path)) for way in ways}
    assert len(names) == len(ways)
    for way, references in zip(list(effort.WAYS.values())[-2:], (4, 8), strict=True):
        several = judged.asked("pushpins", way, tmp_path)
        assert len(several.references) == len(set(several.reference_sha256)) == references
        assert several.policy.more_answers == references - 1


def test_a_threshold_by_hand() -> None:
    sure = np.array([0.9, 0.8, 0.7, 0.7, 0.6, 0.5])
    right = np.array([True, True, True, False, True, False])
    assert confidence.threshold(sure, right, 0.0) == 0.8
    assert confidence.threshold(sure, right, 0.2) == 0.6
    assert confidence.threshold(sure, right, 0.5) == 0.5
    assert confidence.threshold(sure, ~right, 0.0) == np.inf


def test_every_part_is_scored_once_by_what_others_have_taught() -> None:
    scored = confidence.in_turns(LINE, confidence.learned, 0.05)
    assert len(scored.parts) == len({p.example.sha256 for p in scored.parts}) == len(LINE)
    assert 0.2 < scored.coverage < 0.99
    assert scored.wrong / scored.accepted.sum() < 0.12
    area, ends = scored.knows()
    assert ends is not None
    assert 0.5 < ends[0] < area < ends[1]


def test_a_part_that_contradicts_itself_is_never_accepted() -> None:
    said = {"evidence": "contradicted"}
    found = [
        replace(one, judgement=one.judgement.model_copy(update=said)) if one.bad else one
        for one in LINE
    ]
    scored = confidence.in_turns(found, confidence.learned)
    accepted = [p.bad for p, taken in zip(scored.parts, scored.accepted, strict=True) if taken]
    assert accepted
    assert not any(accepted)


def test_every_source_has_a_row() -> None:
    head, *rows = confidence.rows(LINE, parts(60, 60, seed=1, wrong=0.3))
    assert [row[0] for row in rows] == list(confidence.SOURCES)
    assert {len(row) for row in rows} == {len(head)} == {7}
    plain, at_once = rows[0], next(row for row in rows if row[0] == "decided at once")
    assert float(plain[1].split()[0]) > 0.8
    assert at_once[1].startswith("0.500")


def test_the_cost_of_a_way_is_the_mean_of_its_parts() -> None:
    told = {"elapsed_s": 0.25, "tokens": 40}
    found = [replace(p, judgement=p.judgement.model_copy(update=told)) for p in LINE]
    scored = confidence.in_turns(found, confidence.learned)
    doubt, seconds, tokens, _, _, gained, _ = effort.row(scored, scored)
    assert (doubt, seconds, tokens, gained) == ("0.0%", "0.2500", "40", "-")


def test_what_a_way_gains_is_told_of_the_same_parts() -> None:
    first = confidence.in_turns(LINE, confidence.learned, 0.05)
    same = replace(first, accepted=first.accepted.copy())
    assert effort.row(same, first)[5] == "+0.0 (+0.0 to +0.0)"
    # 60 of 600 more: 10 points, and 2.4 to either side where each part is drawn by itself.
    more = first.accepted.copy()
    more[np.flatnonzero(~more)[:60]] = True
    told = effort.row(replace(first, accepted=more), first)[5]
    ends = [float(number) for number in re.findall(r"[+-][\d.]+", told)]
    assert ends[0] == 10.0
    assert 7.0 < ends[1] < 9.0
    assert 11.0 < ends[2] < 13.0


def test_a_promise_has_a_row_for_each_group_and_way() -> None:
    loaded = recipe.load(recipe.shipped("pushpins"))
    beyond = {"beyond the ranges": parts(50, 300, seed=2)}
    found = run(parts(120, 320), beyond, loaded, Asked(0.1), sets=4, good=30, bad=80)
    head, *rows = promise.rows({0.1: found})
    assert [row[1:3] for row in rows] == [
        [group, way] for group in (THE_OTHERS, *beyond) for way in ("promised", "naive")
    ]
    assert {len(row) for row in rows} == {len(head)}


def test_every_way_sends_parts_to_people() -> None:
    head, *rows = people.rows(parts(1200, 1200, wrong=0.15), 0.05)
    assert {len(row) for row in rows} == {len(head)}
    assert [row[0][:6] for row in rows] == ["the sh", "before", "after:", "after:"]
    passed = [float(row[4].split("%")[0]) for row in rows]
    assert passed[3] < passed[2] < 6.5
    assert all("refused" not in row[1] for row in rows)
    assert people.rows(parts(120, 120, wrong=0.15), 0.01)[-1][1].startswith(
        "refused: too few parts"
    )


def test_curves_are_told_and_drawn(tmp_path: Path) -> None:
    def counts(strength: float) -> degradations.Counts:
        people = round(20 * strength)
        left = 10 - people // 2
        return degradations.Counts(10, 10, people, left, 0, left, left)

    found = {
        (batch.what, batch.strength): counts(batch.strength) for batch in degradations.batches(2)
    }
    told = degradations.markdown(found)
    assert "| blur | 0.0% | 10.0% | 20.0% | 35.0% | 50.0% | 75.0% | 100.0% |" in told
    assert told.count("| no reference | 20 | 100.0% | 0 (0.0%) | 0 (0.0%) |") == 1
    for name in ("a.svg", "b.svg"):
        degradations.draw(found, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert (tmp_path / "a.svg").read_text().count("<svg") == 1


def test_counts_that_are_kept_are_not_made_again(tmp_path: Path) -> None:
    todo = list(degradations.batches(2))
    file = tmp_path / degradations._file(EMBEDDED, 2)
    none = dict.fromkeys((field.name for field in fields(degradations.Counts)), 0)
    one = none | {"good": 1, "bad": 1}
    judged.append_lines(file, [batch.told | {"counts": one} for batch in todo])
    found = degradations.measure(EMBEDDED, 2, tmp_path, 1)
    assert len(found) == 1 + len(DEGRADATIONS) * 6 + 3
    assert {counts.good for counts in found.values()} == {len(synloco.PRODUCTS)}
    assert len(judged.read_lines(file)) == len(todo)


def test_every_degradation_is_judged_at_every_strength_and_none_twice() -> None:
    todo = degradations.batches(4)
    seen = [(batch.keys[0].product, batch.what, batch.strength) for batch in todo]
    assert len(seen) == len(set(seen))
    assert len(seen) == len(synloco.PRODUCTS) * (1 + len(DEGRADATIONS) * 6 + 3)


@pytest.mark.parametrize(
    ("what", "number"), [("another product's reference", 1), ("no reference", 0)]
)
def test_a_wrong_reference_is_another_task(what: str, number: int) -> None:
    task = recipe.load(recipe.shipped("pushpins"))
    changed = degradations._task(task, what)
    assert len(changed.references) == number
    assert changed.references != task.references
    assert changed.task_version != task.task_version
