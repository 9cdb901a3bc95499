"""`lad-agent calibrate`: from labelled pictures to a recipe that keeps a promise."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from lad_agent import recipe
from lad_agent.errors import ReasonerTimeout
from lad_agent.images import file_sha256
from lad_agent.inspection import ReviewDecision
from lad_agent.judgement import Disposition, Finding, Judgement
from lad_agent.reasoners import Question
from lad_agent.reasoners.fingerprints import fingerprint
from lad_agent.store import open_store
from lad_agent.training import config, runs
from lad_agent.training.sources import open_source
from lad_agent.training.synloco import dataset
from tests.cli.conftest import Cli
from tests.scripted import Scripted, bad, good, write_parts, write_recipe


@pytest.fixture
def line(tmp_path: Path, reasoner: Scripted) -> Path:
    """Thirty good and thirty bad pictures, each judged rightly; only the truth tells which."""
    folder = tmp_path / "line"
    write_recipe(folder, "line")
    write_parts(folder / "good", 30)
    names = write_parts(folder / "bad" / "no nut", 30, "fault")
    faulty = {file_sha256(name) for name in names}

    def judged(question: Question) -> Judgement:
        return (bad if question.image_sha256 in faulty else good)(question)

    reasoner.script = judged
    return folder


def test_labelled_pictures_are_judged_and_the_recipe_rewritten(cli: Cli, line: Path) -> None:
    before = recipe.load(line / "recipe.yaml")
    ran = cli("calibrate", line, "--recipe", line / "recipe.yaml", "--escape", 0.1,
              "--html", "r.html", "--png", "charts", "--by", "ana")  # fmt: skip
    assert (ran.code, ran.err) == (0, "")
    assert "of 30 good parts 0 rejected, 0 to people, 30 passed" in ran.out
    assert "of 30 bad parts 0 passed, 0 to people, 30 rejected" in ran.out
    assert "promise: at most 10.0% escapes, 95% sure" in ran.out
    after = recipe.load(line / "recipe.yaml")
    assert f"now recipe version {after.recipe_version}" in ran.out
    assert after.recipe_version != before.recipe_version
    assert after.calibration is not None
    other = (line / "recipe.yaml").read_text().replace("exactly 2 washers", "exactly 3 washers")
    (line / "other.yaml").write_text(other)
    told = cli("recipe", "check", line / "other.yaml").out
    assert f"{line}/other.yaml: void, every part goes to people: calibrated for task " in told
    assert "(had promised: at most 10.0% escapes, 95% sure)\n" in told
    assert ": promised: " not in told
    (line / "other.yaml").unlink()
    assert (
        f"promised: at most 10.0% escapes, 95% sure (by ana, {after.calibration.made_at[:10]})\n"
        in cli("recipe", "check", line / "recipe.yaml").out
    )
    assert "valid for: line of task " in cli("recipe", "check", line / "recipe.yaml").out
    assert Path("r.html").read_text().startswith("<!doctype html>")
    assert Path("charts/confidence-by-truth-of-verdicts-of-good.png").is_file()
    inspected = cli("inspect", line / "good", "--json")
    assert {json.loads(one)["result"] for one in inspected.out.splitlines()} == {"OK"}


@pytest.mark.parametrize("broken", ["edited", "gone"])
def test_a_broken_calibration_is_made_again_as_its_error_says(
    cli: Cli, line: Path, broken: str
) -> None:
    recipe_file = line / "recipe.yaml"
    calibrate = ("calibrate", line, "--recipe", recipe_file, "--escape", 0.1)
    assert cli(*calibrate).code == 0
    [file] = line.glob("recipe.calibration-*.json")
    text = file.read_text()
    file.write_text(text.replace('"at_most": 0.1', '"at_most": 0.2'))
    if broken == "gone":
        file.unlink()
    ran = cli("inspect", line)
    assert (ran.code, "run lad-agent calibrate again" in ran.error) == (2, True)
    assert recipe.load(recipe_file, anew=True).damaged
    assert cli(*calibrate).code == 0
    assert cli("inspect", line).code == 0


@pytest.mark.parametrize("lost", [10, 30])
def test_what_is_not_judged_in_time_is_left_out(
    cli: Cli, line: Path, reasoner: Scripted, lost: int
) -> None:
    """Bad parts that an outage keeps from passing would promise what the model never showed."""
    judged, late = reasoner.script, set[str]()

    def slow(question: Question) -> Judgement:
        found = judged(question)
        if found.anomalous and (len(late) < lost or question.image_sha256 in late):
            late.add(question.image_sha256)
            raise ReasonerTimeout("too slow")
        return found

    reasoner.script = slow
    ran = cli("calibrate", line, "--recipe", line / "recipe.yaml", "--escape", 0.15)
    if lost == 10:
        assert "left out 10 parts that were not judged, because of a time-out or a fail" in ran.out
        assert "of 20 bad parts 0 passed" in ran.out
    else:
        assert "none of the 30 bad parts was judged: time-outs or failures" in ran.error
        assert "calibration" not in yaml.safe_load((line / "recipe.yaml").read_text())
    assert (ran.code, len(late)) == (0 if lost == 10 else 5, lost)


def test_results_and_their_truth_do_the_same(cli: Cli, line: Path, reasoner: Scripted) -> None:
    cli("inspect", line, "--out", "results.jsonl")
    asked = len(reasoner.asked)
    ran = cli("calibrate", "results.jsonl", "--truth", line, "--recipe", line / "recipe.yaml",
              "--escape", 0.1, "--overkill", 0.1, "--json", "--dry-run")  # fmt: skip
    assert (ran.code, len(reasoner.asked)) == (0, asked)
    assert ran.json["good"] == {"OK": 30, "NotOK": 0, "NotDecidable": 0}
    assert [p["of"] for p in ran.json["calibration"]["promises"]] == [30, 30]
    assert ran.json["recipe_version"] is None
    assert "calibration" not in yaml.safe_load((line / "recipe.yaml").read_text())


def test_findings_of_reviews_calibrate(cli: Cli, line: Path) -> None:
    """At an audit rate of 1 a person sees every part, so the findings are those of whole lots."""
    recipe_file = line / "recipe.yaml"
    recipe_file.write_text(recipe_file.read_text().replace("audit_rate: 0.0", "audit_rate: 1.0"))
    assert cli("inspect", line).code == 0
    with open_store("lad-agent.db", create=False) as audit:
        last = max(audit.reviews(), key=lambda review: review.inspected.id)
        for review in [one for one in audit.reviews() if one.id != last.id]:
            faulty = "bad" in Path(review.inspected.intake.image).parts
            audit.decide_review(
                review.id,
                ReviewDecision(
                    finding=Finding.NONCONFORMING if faulty else Finding.CONFORMING,
                    disposition=Disposition.SCRAP if faulty else None,
                    by="ana",
                ),
            )
    ran = cli("calibrate", "--from-reviews", "--recipe", recipe_file, "--escape", 0.1)
    assert (ran.code, ran.err) == (0, "")
    assert "note: left out 1 reviewed parts that came after one that waits" in ran.out
    assert "promise: at most 10.0% escapes, 95% sure" in ran.out
    assert recipe.load(recipe_file).calibration is not None


def test_reviews_that_doubt_alone_has_picked_are_refused(cli: Cli, line: Path) -> None:
    assert cli("inspect", line).code == 0
    ran = cli("calibrate", "--from-reviews", "--recipe", line / "recipe.yaml")
    assert ran.code == 5
    assert "raise audit_rate in the recipe" in ran.error


def test_overkill_is_promised_beside_escapes(cli: Cli, line: Path) -> None:
    asked = ("calibrate", line, "--recipe", line / "recipe.yaml", "--overkill", 0.1, "--dry-run")
    ran = cli(*asked)
    assert (ran.code, "299 are needed for at most 1.0% escapes" in ran.error) == (5, True)
    told = cli(*asked, "--escape", 0.1).out
    assert "at most 10.0% escapes, 95% sure; at most 10.0% overkill, 95% sure" in told


def test_too_few_parts_leave_the_recipe_alone(cli: Cli, line: Path) -> None:
    text = (line / "recipe.yaml").read_text()
    ran = cli("calibrate", line, "--recipe", line / "recipe.yaml")
    assert ran.code == 5
    assert "label 269 more bad parts (there are 30, 299 are needed" in ran.error
    assert (line / "recipe.yaml").read_text() == text
    assert not list(line.glob("*.json"))


def test_good_parts_only_print_escape_unknown(cli: Cli, line: Path) -> None:
    shutil.rmtree(line / "bad")
    ran = cli("calibrate", line, "--recipe", line / "recipe.yaml", "--overkill", 0.1)
    assert ran.code == 0
    assert "escape: unknown" in ran.out
    assert "at most 10.0% overkill, 95% sure" in ran.out


def test_pictures_of_the_training_are_refused(cli: Cli, line: Path) -> None:
    ran = cli("calibrate", line, "--recipe", line / "recipe.yaml", "--escape", 0.1, "--trained-on", line)  # fmt: skip  # noqa: E501
    assert ran.code == 5
    assert "were used in training" in ran.error


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (("--escape", 0), 2, "a promise of 0 escape cannot be kept"),
        (("--truth", "."), 2, "--truth DIR says what the pictures of a results.jsonl"),
        (("--from-reviews",), 2, "give DATA, labelled pictures or results, or --from-reviews"),
        (("--costs", "1,2"), 2, "--costs needs --bad-share"),
        (("--costs", "1,2", "--bad-share", 0.1), 2, "--costs 1,2: give three numbers"),
        (("--since", "8h"), 2, "--since belongs to --from-reviews"),
        (("--bad-share", 0.1), 2, "--bad-share belongs to --costs"),
        (("--costs", "1,1,1", "--bad-share", 2), 2, "share of bad parts is 2"),
        (("--recipe", recipe.shipped("pushpins")), 2, "comes with the package"),
        (("--recipe", "gone.yaml"), 2, "no such recipe file"),
    ],
)
def test_wrong_use_is_one_line(
    cli: Cli, line: Path, flags: tuple[object, ...], code: int, words: str
) -> None:
    own = () if "--recipe" in flags else ("--recipe", line / "recipe.yaml")
    ran = cli("calibrate", line, *own, *flags)
    assert ran.code == code
    assert words in ran.error


def test_costs_choose_without_a_promise(cli: Cli, line: Path) -> None:
    ran = cli("calibrate", line, "--recipe", line / "recipe.yaml", "--costs", "500,20,5",
              "--bad-share", 0.02, "--dry-run")  # fmt: skip
    assert ran.code == 0
    assert "promise: none: chosen by costs" in ran.out
    assert "no escape rate is promised" in ran.out


def test_costs_are_in_sample_beside_a_promise_too(cli: Cli, line: Path) -> None:
    ran = cli("calibrate", line, "--recipe", line / "recipe.yaml", "--costs", "500,20,5",
              "--bad-share", 0.02, "--escape", 0.1)  # fmt: skip
    assert "in-sample: the costs are those of the parts" in ran.out
    assert "no escape rate" not in ran.out
    made = recipe.load(line / "recipe.yaml").calibration
    assert made is not None
    assert made.costs == {"miss": 500, "overkill": 20, "review": 5, "bad_share": 0.02}
    assert (made.source, made.fit_share) == (str(line), 0.3)
    assert any("in-sample: the costs" in note for note in made.notes)
    assert made.mix == "30 good, 30 no nut"


def test_a_truth_file_stands_for_its_folder(cli: Cli, tmp_path: Path, reasoner: Scripted) -> None:
    dataset.write(tmp_path, "screw_bag", count=120, seed=5, size=196, train=0, validation=0)
    folder = tmp_path / "screw_bag"
    lines = map(json.loads, (folder / "truth.jsonl").read_text().splitlines())
    faulty = {file_sha256(folder / line["image"]) for line in lines if line["kind"] != "good"}
    reasoner.script = lambda asked: (bad if asked.image_sha256 in faulty else good)(asked)
    ran = cli("calibrate", folder / "truth.jsonl", "--recipe", folder / "recipe.yaml",
              "--escape", 0.1, "--dry-run", "--json")  # fmt: skip
    assert ran.code == 0
    assert ran.json["calibration"]["kinds"]["logical"] > 0
    assert "and this mix: " in ran.json["valid_for"]


def test_the_run_of_the_reasoner_is_looked_up(
    cli: Cli, line: Path, tmp_path: Path, reasoner: Scripted
) -> None:
    asked = ("calibrate", line, "--recipe", line / "recipe.yaml", "--escape", 0.1, "--dry-run")
    assert "was not looked at; --trained-on RUN does" in cli(*asked).out
    told = config.RunConfig.model_validate({"base": "pocket", "data": {"paths": [str(line)]}})
    runs.open_run(tmp_path / "run", "sft", told, base="f", data={})
    (tmp_path / "run" / "model").mkdir()
    ran = cli(*asked, "--reasoner", tmp_path / "run" / "model")
    assert (ran.code, "were used in training" in ran.error) == (5, True)
    other = write_parts(tmp_path / "others" / "good", 3, "other")
    elsewhere = ("--trained-on", tmp_path / "others", "--trained-on", tmp_path / "run")
    for named in (elsewhere[:2], elsewhere):  # the run is looked up beside what is named
        ran = cli(*asked, "--reasoner", tmp_path / "run" / "model", *named)
        assert (ran.code, "were used in training" in ran.error) == (5, True)
    told = config.RunConfig.model_validate(
        {"base": "pocket", "data": {"paths": [str(tmp_path / "others")], "held_out": str(line)}}
    )
    hashes = runs.data_hashes(open_source(tmp_path / "others"))
    runs.open_run(tmp_path / "judged", "sft", told, base="f", data=hashes)
    again = (*asked, "--reasoner", tmp_path / "judged")
    ran = cli(*again)
    assert ran.code == 0
    assert f"in-sample: 60 pictures are those that {tmp_path / 'judged'} was judged by" in ran.out
    assert "have changed since" not in ran.out
    other[0].unlink()
    assert "have changed since it learned from them" in cli(*again).out


def test_results_of_a_run_know_what_it_has_learned(
    cli: Cli, line: Path, tmp_path: Path, reasoner: Scripted
) -> None:
    told = config.RunConfig.model_validate({"base": "pocket", "data": {"paths": [str(line)]}})
    run = runs.open_run(tmp_path / "run", "sft", told, base="f", data={}).folder
    (run / "model").mkdir()
    (run / "model" / "model.safetensors").write_bytes(b"weights")
    asked = ("calibrate", "results.jsonl", "--truth", line, "--recipe", line / "recipe.yaml",
             "--escape", 0.1, "--dry-run", "--reasoner", run)  # fmt: skip
    assert cli("inspect", line, "--out", "results.jsonl").code == 0
    ran = cli(*asked)
    assert (ran.code, "was not looked at; --trained-on RUN does" in ran.out) == (0, True), ran
    reasoner.fingerprint, script = fingerprint(run / "model"), reasoner.script
    reasoner.script = lambda asked: script(asked).model_copy(update={"model": reasoner.fingerprint})
    assert cli("inspect", line, "--out", "results.jsonl").code == 0
    ran = cli(*asked)
    assert (ran.code, "were used in training" in ran.error) == (5, True), ran


def test_a_served_model_is_known_by_its_name_alone(
    cli: Cli, line: Path, reasoner: Scripted
) -> None:
    script = reasoner.script
    served = {"model": "inspector@localhost:8000/v1"}
    reasoner.script = lambda asked: script(asked).model_copy(update=served)
    ran = cli("calibrate", line, "--recipe", line / "recipe.yaml", "--escape", 0.1, "--dry-run")
    assert "note: inspector@localhost:8000/v1 is known by name and address alone" in ran.out


def test_certainty_share_and_seed_are_those_asked_for(cli: Cli, line: Path) -> None:
    asked = ("calibrate", line, "--recipe", line / "recipe.yaml", "--escape", 0.2, "--dry-run",
             "--json")  # fmt: skip
    plain = cli(*asked, "--confidence", 0.9, "--fit-share", 0.0, "--seed", 7).json["calibration"]
    assert [p["sure"] for p in plain["promises"]] == [0.9]
    assert (plain["fit_share"], plain["seed"]) == (0.0, 7)
    assert plain["fitted_on"] == {"good": 0, "bad": 0}
    assert plain["chosen_on"] == {"good": 30, "bad": 30}
    shares = [cli(*asked, "--fit-share", 0.3, "--seed", n).json["calibration"] for n in range(3)]
    assert len({json.dumps(one["chosen_on"]) for one in shares}) > 1
    wrong = cli(*asked, "--confidence", 1.0)
    assert (wrong.code, "a certainty of 1; give 0.5 or more" in wrong.error) == (2, True)


def test_a_void_calibration_is_told_with_what_to_do(
    cli: Cli, line: Path, tmp_path: Path, reasoner: Scripted
) -> None:
    """By the batch that it sends to people, by `doctor`, and beside the promise."""
    mine = line / "recipe.yaml"
    assert cli("calibrate", line, "--recipe", mine, "--escape", 0.1).code == 0
    asked = mine.read_text()
    mine.write_text(asked.replace("samples: 0", "samples: 2"))
    assert mine.read_text() != asked
    reasoner.script = good
    write_parts(tmp_path / "shift", 3, "shift")
    ran = cli("inspect", "shift", "--recipe", mine)
    why = "line: calibrated for samples 0, this is 2; run lad-agent calibrate again"
    assert f"3 calibration-void\n  lad-agent review list\n  {why}\n" in ran.out
    [told] = [one for one in cli("doctor", "--json").json if one["name"] == "calibration"]
    assert (told["state"], told["detail"].startswith(why)) == ("note", True)
    [watched] = cli("audit", "stats", "--by", "promise", "--json").json
    assert watched["state"] == "void"
    assert cli("audit", "stats", "--by", "drift", "--json").json == []


def test_a_promise_that_is_broken_on_the_line_stops_it(
    cli: Cli, line: Path, tmp_path: Path, reasoner: Scripted
) -> None:
    """From the calibration to the alarm, the hold by policy and the release, by commands alone."""
    mine = line / "recipe.yaml"
    text = mine.read_text().replace("audit_rate: 0.0", "audit_rate: 0.5\n  on_alarm: hold")
    mine.write_text(text)
    assert cli("calibrate", line, "--recipe", mine, "--escape", 0.1).code == 0
    reasoner.script = good
    write_parts(tmp_path / "shift", 40, "shift")
    assert cli("inspect", "shift", "--recipe", mine).code == 0
    assert cli("doctor").code == 0
    audits = [one["id"] for one in cli("review", "list", "--json").json]
    assert 10 < len(audits) < 30
    bad_found = ("--finding", "nonconforming", "--disposition", "scrap", "--comment", "seen")
    scrap = ReviewDecision(
        finding=Finding.NONCONFORMING, disposition=Disposition.SCRAP, comment="seen", by="mes"
    )
    with open_store("lad-agent.db") as audit:  # a workflow of one's own, which watches nothing
        for review in audits[:9]:
            audit.decide_review(review, scrap)
    ran = cli("doctor")
    assert (ran.code, "nobody has raised that alarm yet" in ran.error) == (5, True), ran
    assert cli("review", "decide", audits[9], *bad_found).code == 0
    ran = cli("doctor")
    assert "nobody has raised" not in ran.out
    assert (ran.code, "alarm: line: escape_rate: " in ran.error) == (5, True), ran
    [watched] = cli("audit", "stats", "--by", "promise", "--json").json
    assert (watched["what"], watched["state"]) == ("escape_rate", "broken")
    assert "escape_rate" in cli("hold", "list").out
    write_parts(tmp_path / "next", 3, "next")
    assert "3 on-hold" in cli("inspect", "next", "--recipe", mine).out
    assert cli("hold", "release", "line", "--by", "bert").code == 0
    assert cli("doctor").code == 0
    write_parts(tmp_path / "last", 3, "last")
    assert "on-hold" not in cli("inspect", "last", "--recipe", mine).out


def test_neither_data_nor_reviews_is_one_line(cli: Cli, line: Path) -> None:
    ran = cli("calibrate", "--recipe", line / "recipe.yaml")
    assert (ran.code, "give DATA" in ran.error) == (2, True)


def test_a_model_made_for_other_products_is_refused(cli: Cli, line: Path, reasoner: Scripted) -> None:  # fmt: skip  # noqa: E501
    reasoner.products = frozenset({"pushpins"})
    ran = cli("calibrate", line, "--recipe", line / "recipe.yaml")
    assert (ran.code, "made for line; it knows pushpins" in ran.error) == (2, True)
    assert reasoner.closed
