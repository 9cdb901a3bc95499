"""What the benchmarks of confidence share: judgements that are kept, and figures made of them."""

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import confidence, degradations, effort, judged, people, promise
from benchmarks.judged import Key, Way
from lad_agent import recipe
from lad_agent.judgement import Result
from lad_agent.policy import decide_by_recipe
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


@pytest.mark.parametrize("samples", [0, 8])
def test_a_way_says_for_itself_what_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, samples: int
) -> None:
    shipped = recipe.shipped("pushpins")
    copy = shutil.copytree(shipped.parent, tmp_path / "pushpins") / shipped.name
    text = re.sub(r"samples: \d+", f"samples: {samples}", copy.read_text())
    copy.write_text(re.sub(r"sample_below: [\d.]+", "sample_below: 0.3", text))
    monkeypatch.setattr(recipe, "shipped", lambda product: copy)
    policies = [judged.asked("pushpins", way, tmp_path).policy for way in effort.WAYS.values()]
    assert [policy.samples for policy in policies] == [0, 4, 4, 0, 0]
    assert [policy.other_references for policy in policies] == [None, None, None, 3, 7]
    assert [policy.sample_below for policy in policies[1:]] == [0.9, 1.0, 0.9, 0.9]


def test_what_another_way_has_asked_is_not_judged_again(tmp_path: Path) -> None:
    keys = judged.mixed("train", 3, 3, ("pushpins",))
    file, found = _kept(keys, tmp_path)
    policy = judged.asked("pushpins", judged.SHIPPED, tmp_path).policy
    same = Way("as shipped", {"samples": policy.samples, "sample_below": policy.sample_below})
    assert judged.parts(keys, EMBEDDED, tmp_path, way=same) == found
    assert [path.name for path in tmp_path.glob("*.jsonl")] == [file.name]


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
    head, row = effort.costs({"one": found})
    assert head[1:4] == ["asked more", "seconds a part", "tokens a part"]
    assert row[:4] == ["one", "0.0%", "0.2500", "40"]


def test_coverage_is_told_at_the_same_realised_error_for_every_way() -> None:
    """By hand: the threshold is chosen on the very parts that each draw holds."""
    right = np.array([True, True, True, False, True, False, True, True])
    sure = np.array([[0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.99, 0.3]] * 2)
    decidable = np.array([True] * 6 + [False, True])
    bad = np.array([False, True, True, True, False, False, True, True])
    known = effort.Known(right, bad, right != bad, decidable, sure[:1], sure, learned=6)
    once = np.ones((2, 8))
    assert known.coverage(0.0, once) == pytest.approx([3 / 8, 3 / 8])
    assert known.coverage(0.2, once) == pytest.approx([5 / 8, 5 / 8])
    # Without the first wrong one the threshold goes down to the second.
    without = once - (np.arange(8) == 3)
    assert known.coverage(0.0, without) == pytest.approx([4 / 7, 4 / 7])
    # Each draw is told by one of the splits, in turn.
    turned = replace(known, sure=np.array([sure[0], sure[0][::-1]]))
    assert turned.coverage(0.0, np.ones((3, 8))) == pytest.approx([3 / 8, 2 / 8, 3 / 8])
    # One of the five bad ones is said to be good, and is the fifth of all to be asked about.
    assert known.passed(0.5, sure, once) == pytest.approx([1 / 5, 1 / 5])
    assert known.passed(5 / 8, known.raw, once) == pytest.approx([0, 0])
    assert known.passed(0.5, sure, once + 2 * (np.arange(8) == 3)) == pytest.approx([3 / 7] * 2)


def test_a_part_is_told_by_what_other_parts_have_taught() -> None:
    known = effort.Known.of(LINE, 2)
    assert known.sure.shape == (2, len(LINE))
    assert known.learned == 6
    few = effort.Known.of(parts(40, 40, wrong=0.05), 1)
    assert few.learned == 0
    raw = [one.judgement.confidence for one in parts(40, 40, wrong=0.05)]
    assert few.sure[0] == pytest.approx(np.array(raw))


def test_what_a_way_gains_is_told_of_the_same_parts() -> None:
    few = parts(150, 150, wrong=0.15)
    ways = {"plain": few, "same": few, "better": parts(150, 150, wrong=0.15, skill=6.0)}
    known = {name: effort.Known.of(found, 1) for name, found in ways.items()}
    strata = [(one.example.product, one.example.kind) for one in few]
    head, plain, same, better = effort.coverages(known, strata)
    assert {len(row) for row in (plain, same, better)} == {len(head)}
    at = head.index("gained at 1.0% errors")
    assert plain[at] == "-"
    assert same[at] == "+0.0 (+0.0 to +0.0)"
    gained, low, high = _numbers(better[at])
    assert 0.0 < low < gained < high


def test_what_passes_of_the_bad_is_told_of_the_same_parts() -> None:
    few = parts(150, 150, wrong=0.15)
    plain = effort.Known.of(few, 1)
    known = {"plain": plain, "same": plain, "blind": replace(plain, raw=1 - plain.raw)}
    strata = [(one.example.product, one.example.kind) for one in few]
    head, *rows = effort.escapes(known, strata)
    assert [row[:2] for row in rows] == [
        [confidence, way] for confidence in ("raw", "learned") for way in known
    ]
    at = head.index("bad passed, 10% to people") + 1
    assert [row[at] for row in rows[:2]] == ["-", "-"]
    more, low, high = _numbers(rows[2][at])
    assert 0.0 < low < more < high
    assert rows[5][at] == "+0.0 (+0.0 to +0.0)"


def test_two_ways_that_know_as_much_gain_nothing_beyond_chance() -> None:
    """The interval holds all that chance moves: parts, fit and threshold."""
    held = []
    for seed in range(3):
        ways = {str(n): parts(75, 75, seed=seed + n, wrong=0.25) for n in (0, 100)}
        known = {name: effort.Known.of(found, 1) for name, found in ways.items()}
        strata = [(one.example.product, one.example.kind) for one in ways["0"]]
        head, _, row = effort.coverages(known, strata)
        _, low, high = _numbers(row[head.index("gained at 1.0% errors")])
        held.append(low <= 0.0 <= high)
    assert held == [True] * 3


def _numbers(cell: str) -> list[float]:
    return [float(number) for number in re.findall(r"[+-][\d.]+", cell)]


def test_a_promise_has_a_row_for_each_group_and_way() -> None:
    loaded = recipe.load(recipe.shipped("pushpins"))
    beyond = {"beyond the ranges": parts(50, 300, seed=2)}
    pool = parts(400, 320)
    found = {
        words: run(pool, beyond, loaded, asked, sets=4, good=100, bad=80)
        for words, asked in promise.asked((0.1,), (0.1,)).items()
    }
    head, *rows = promise.rows(found)
    assert [row[:3] for row in rows] == [
        [f"10% {what}", group, way]
        for what in ("escapes", "overkill")
        for group in (THE_OTHERS, *beyond)
        for way in ("promised", "naive")
    ]
    assert {len(row) for row in rows} == {len(head)}
    assert head[3:5] == ["kept or refused", "kept, of those given"]


def test_a_promise_that_was_always_refused_was_never_broken() -> None:
    loaded = recipe.load(recipe.shipped("pushpins"))
    found = run(parts(60, 120, wrong=1.0), {}, loaded, Asked(0.05), sets=2, good=30, bad=60)
    _, promised, _ = promise.rows({"5% escapes": found})
    assert promised[3:5] == ["2 of 2: 100.0% (15.8%-100.0%)", "-"]
    assert promised[-2:] == ["2", "0"]


def test_every_way_sends_parts_to_people() -> None:
    head, *rows = people.rows(parts(1200, 1200, wrong=0.15), 0.05)
    assert {len(row) for row in rows} == {len(head)}
    assert [row[0] for row in rows] == [name.format(escape="5%") for name in people.WAYS]
    passed, rejected = ([float(row[n].split("%")[0]) for row in rows] for n in (4, 5))
    assert passed[4] < passed[3] < 6.5
    # One threshold on the same confidence: what it is held against differs, and that alone.
    assert rows[1][0].partition(",")[0] == rows[2][0].partition(",")[0]
    assert passed[1] == passed[2]
    assert rejected[2] == rejected[0] != rejected[1]
    assert all("refused" not in row[1] for row in rows)
    assert people.rows(parts(120, 120, wrong=0.15), 0.01)[-1][1].startswith(
        "refused: too few parts"
    )


def test_curves_are_told_and_drawn(tmp_path: Path) -> None:
    def counts(strength: float) -> degradations.Counts:
        people = round(20 * strength)
        left = 10 - people // 2
        return degradations.Counts(
            10, 10, people, passed_good=left, rejected_good=people // 4, right_bad=left
        )

    curves = {
        (batch.what, batch.strength): counts(batch.strength) for batch in degradations.batches(2)
    }
    found = {"as shipped": curves, "calibrated": curves}
    told = degradations.markdown(found)
    for way in found:
        (row,) = (
            table.split("| blur | ")[1].splitlines()[0]
            for table in told.split("\n\n")
            if table.startswith(f"| sent to people of 20 parts, {way} |")
        )
        assert row.startswith("0.0% (0.0%-16.8%) | 10.0% (1.2%-31.7%) | 20.0% (5.7%-43.7%) | ")
        passes = "0.0% (0.0%-30.8%) | 0.0% (0.0%-30.8%) | 50.0% (18.7%-81.3%)"
        assert told.count(f"| no reference | {way} | 20 | 100.0% (83.2%-100.0%) | {passes} |") == 1
    for name in ("a.svg", "b.svg"):
        degradations.draw(found, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    drawn = (tmp_path / "a.svg").read_text()
    assert drawn.count("<svg") == 1
    assert "20 parts a point, 10 of them bad" in drawn
    assert "bad parts passed, calibrated" in drawn


def test_spoiled_parts_are_decided_by_a_calibration_on_plain_ones() -> None:
    plain, spoiled = (parts(n, n, seed=n, wrong=0.3, skill=1.0) for n in (300, 200))
    recipes, refused = degradations.calibrated(plain, 0.05)
    assert (list(recipes), refused) == (["screw_bag"], [])
    keys = tuple(judged.mixed("train", 200, 200, ("screw_bag",)))
    batch = degradations.Spoiled(keys, "blur", 0.5)
    said = [one.judgement for one in spoiled]
    shipped = recipe.load(recipe.shipped("screw_bag"))
    before = degradations.counts(batch, said, shipped)
    after = degradations.counts(batch, said, recipes["screw_bag"])
    assert before.bad == after.bad == 200
    assert before.passed_bad > after.passed_bad
    results = [decide_by_recipe(one, shipped)[1].result for one in said]
    good = [result for key, result in zip(keys, results, strict=True) if key.kind == "good"]
    assert before.rejected_good == good.count(Result.NOT_OK) > 0
    assert before.passed_good + before.rejected_good <= 200
    assert after.passed_bad <= 0.05 * 200
    assert after.passed_good > 0
    # Without its reference it is another task, and on the line the calibration is void.
    other = replace(batch, what="no reference")
    assert degradations.counts(other, said, recipes["screw_bag"]).escalated == 400
    assert degradations.counts(other, said, shipped) == before


def test_a_product_whose_calibration_is_refused_is_named() -> None:
    recipes, refused = degradations.calibrated(parts(30, 30), 0.05)
    assert recipes == {}
    assert refused == [
        "screw_bag: too few parts: label 29 more bad parts (there are 30, 59 are needed for at "
        "most 5.0% escapes, 95% sure)"
    ]


def test_what_calibrates_is_not_spoiled() -> None:
    spoiled = {key for batch in degradations.batches(40) for key in batch.keys}
    plain = degradations.plain(40)
    assert len(set(plain)) == degradations.PLAIN * len(synloco.PRODUCTS)
    assert not spoiled & set(plain)


def test_judgements_that_are_kept_are_not_made_again(tmp_path: Path) -> None:
    todo = list(degradations.batches(2))
    file = tmp_path / degradations._file(EMBEDDED, 2)
    said = [one.judgement.model_dump(mode="json") for one in LINE[:2]]
    judged.append_lines(file, [batch.told | {"judgements": said} for batch in todo])
    found = degradations.measure(EMBEDDED, 2, tmp_path, 1)
    assert [batch for batch, _ in found] == todo
    assert {tuple(told) for _, told in found} == {tuple(one.judgement for one in LINE[:2])}
    assert len(judged.read_lines(file)) == len(todo)
    shipped = {name: recipe.load(recipe.shipped(name)) for name in synloco.PRODUCTS}
    curves = degradations.curves(found, shipped)
    assert len(curves) == 1 + len(DEGRADATIONS) * 6 + 3
    assert {counts.good + counts.bad for counts in curves.values()} == {2 * len(shipped)}


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
