"""`lad-agent inspect`, from files to exit code."""

import csv
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lad_agent.errors import ReasonerUnavailable
from lad_agent.inspection import Outcome
from lad_agent.judgement import Judgement
from lad_agent.reasoners.base import Question
from lad_agent.store import open_store
from tests.cli.conftest import Cli
from tests.scripted import Scripted, bad, good, malformed, part, write_parts, write_recipe

ROOT = Path(__file__).parents[2]


def _lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_folder_becomes_recorded_results(cli: Cli, tray: Path, reasoner: Scripted) -> None:
    ran = cli("inspect", "tray", "--out", "results.jsonl", "--station", "s1", "--lot", "L7",
              "--by", "ann")  # fmt: skip
    assert ran.code == 0, ran.err
    lines = _lines(tray.parent / "results.jsonl")
    assert [line["part_id"] for line in lines] == [f"tray/part-{n:03d}.png" for n in range(12)]
    assert {tuple(line) for line in lines} == {tuple(Outcome.model_fields)}
    assert {(line["station"], line["lot"]) for line in lines} == {("s1", "L7")}
    assert reasoner.closed
    with open_store(tray.parent / "lad-agent.db", create=False) as store:
        assert {one.intake.actor for one in store.inspections()} == {"ann"}


def test_the_table_counts_and_explains(cli: Cli, tray: Path, reasoner: Scripted) -> None:
    scripts = iter([good] * 6 + [bad] * 4 + [malformed] * 2)
    reasoner.script = lambda question: next(scripts)(question)
    ran = cli("inspect", "tray", "--out", "r.csv")
    first, row = (line.split() for line in ran.out.splitlines()[:2])
    assert first == ["product", "parts", "OK", "NotOK", "escalated", "done", "earlier"]
    assert row == ["screw_bag", "12", "6", "4", "2", "0"]
    assert "R1 washers at A1: 1 of 2 bad" in ran.out
    assert "waiting for a person: 2 malformed-answer" in ran.out
    assert "lad-agent review list" in ran.out
    assert "results: r.csv" in ran.out


def test_a_second_run_judges_nothing_and_writes_all_lines(
    cli: Cli, tray: Path, reasoner: Scripted
) -> None:
    cli("inspect", "tray", "--out", "a.jsonl")
    write_parts(tray, 14)
    ran = cli("inspect", "tray", "--out", "b.jsonl")
    assert len(reasoner.asked) == 14
    assert ran.out.splitlines()[1].split()[-1] == "12"
    first, second = _lines(tray.parent / "a.jsonl"), _lines(tray.parent / "b.jsonl")
    assert second[:12] == first
    assert len(second) == 14


def test_again_inspects_all_once_more(cli: Cli, tray: Path, reasoner: Scripted) -> None:
    cli("inspect", "tray")
    ran = cli("inspect", "tray", "--again", "--json")
    assert len(reasoner.asked) == 24
    assert {json.loads(line)["attempt"] for line in ran.out.splitlines()} == {2}


def test_json_lines_and_csv_say_the_same(cli: Cli, tray: Path, reasoner: Scripted) -> None:
    ran = cli("inspect", "tray", "--json", "--out", "r.csv")
    printed = [json.loads(line) for line in ran.out.splitlines()]
    with (tray.parent / "r.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [line["id"] for line in printed]
    assert list(rows[0]) == list(printed[0])


def test_limit(cli: Cli, tray: Path, reasoner: Scripted) -> None:
    cli("inspect", "tray", "--limit", 3)
    assert len(reasoner.asked) == 3


@pytest.mark.parametrize(
    ("fail_on", "script", "code"),
    [
        ("NotOK", bad, 1),
        ("notok,NotDecidable", malformed, 1),
        ("NotOK", malformed, 0),
        ("NotOK", good, 0),
    ],
)
def test_fail_on(
    cli: Cli, tray: Path, reasoner: Scripted, fail_on: str, script: object, code: int
) -> None:
    reasoner.script = script  # type: ignore[assignment]
    assert cli("inspect", "tray", "--fail-on", fail_on).code == code


def test_an_unknown_word_of_fail_on(cli: Cli, tray: Path, reasoner: Scripted) -> None:
    ran = cli("inspect", "tray", "--fail-on", "Bad")
    assert (ran.code, ran.error) == (2, "lad-agent: --fail-on Bad: known: NotOK, NotDecidable")
    assert not (tray.parent / "lad-agent.db").exists()


def test_max_failures(cli: Cli, tray: Path, reasoner: Scripted) -> None:
    def broken(question: Question) -> Judgement:
        raise ReasonerUnavailable("http://x: no server")

    reasoner.script = broken
    ran = cli("inspect", "tray", "--max-failures", 2)
    assert ran.code == 6
    assert "stopped by --max-failures" in ran.error
    assert "reasoner-failed: http://x: no server" in ran.err


# --- bad input ------------------------------------------------------------------------------------


def _bad_files(folder: Path) -> dict[str, str]:
    """Files that cannot be read, by what is said of them."""
    whole = (folder / "part-000.png").read_bytes()
    (folder / "zero.png").write_bytes(b"")
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "text.png").write_text("just words")
    frames = [part("frame", number) for number in range(2)]
    frames[0].save(folder / "moves.gif", save_all=True, append_images=frames[1:])
    Image.new("1", (9_000, 9_000)).save(folder / "bomb.png")
    Image.fromarray(np.ones((50, 50), np.float32)).save(folder / "floats.tif")
    return {
        "zero.png": "the file is empty",
        "cut.png": "damaged",
        "text.png": "not an image",
        "moves.gif": "2 pictures in one file",
        "bomb.png": "81 million pixels",
        "floats.tif": "floating-point",
    }


def test_unreadable_images_are_recorded_and_named_and_the_rest_is_judged(
    cli: Cli, tray: Path, reasoner: Scripted
) -> None:
    reasoner.script = good
    said = _bad_files(tray)
    ran = cli("inspect", "tray", "--out", "r.jsonl")
    assert ran.code == 3
    lines = {str(line["part_id"]): line for line in _lines(tray.parent / "r.jsonl")}
    assert len(lines) == 12 + len(said)
    for name, words in said.items():
        line = lines[f"tray/{name}"]
        assert (line["result"], line["reason"]) == ("NotDecidable", "unreadable")
        [told] = [row for row in ran.err.splitlines() if name in row]
        assert words in told
        assert told.startswith("unreadable: ")
    assert sum(line["result"] == "OK" for line in lines.values()) == 12
    assert cli("inspect", "tray").code == 3, "it stays so on the next run"


def test_unusual_but_readable_images_are_judged(
    cli: Cli, tmp_path: Path, reasoner: Scripted
) -> None:
    reasoner.script = good
    write_recipe(tmp_path / "odd")
    picture = part("odd", 1)
    deep = np.asarray(picture.convert("L"), np.uint16) * 257
    Image.fromarray(deep).save(tmp_path / "odd" / "deep.png")
    picture.convert("CMYK").save(tmp_path / "odd" / "cmyk.jpg")
    picture.convert("P").save(tmp_path / "odd" / "palette.png")
    picture.convert("RGBA").save(tmp_path / "odd" / "alpha.png")
    exif = Image.Exif()
    exif[0x0112] = 3
    picture.save(tmp_path / "odd" / "turned.jpg", exif=exif)
    ran = cli("inspect", "odd", "--json")
    assert ran.code == 0, ran.err
    assert [json.loads(line)["result"] for line in ran.out.splitlines()] == ["OK"] * 5


def test_walls_noise_and_lens_caps_are_never_ok(
    cli: Cli, tmp_path: Path, reasoner: Scripted
) -> None:
    reasoner.script = good
    write_recipe(tmp_path / "odd")
    rng = np.random.default_rng(3)
    slope = np.linspace(-20, 20, 300)[None, :, None]
    pictures = {
        "wall": 160 + slope + rng.normal(0, 8, (300, 300, 3)),
        "noise": rng.uniform(0, 255, (300, 300, 3)),
        "cap": rng.normal(6, 3, (300, 300, 3)),
        "lamp": np.full((300, 300, 3), 254.0),
        "tiny": np.asarray(part("a", 1, size=60)),
    }
    for name, pixels in pictures.items():
        array = np.clip(pixels, 0, 255).astype(np.uint8)
        Image.fromarray(array).save(tmp_path / "odd" / f"{name}.png")
    ran = cli("inspect", "odd", "--json")
    assert ran.code == 0, "a gated part is no error"
    reasons = {Path(line["image"]).stem: line["reason"] for line in map(json.loads, ran.out.splitlines())}  # fmt: skip  # noqa: E501
    assert reasons == {
        "wall": "blurred",
        "noise": "noise",
        "cap": "too-dark",
        "lamp": "too-bright",
        "tiny": "too-small",
    }
    assert reasoner.asked == []


def test_another_product_is_never_ok(cli: Cli, tray: Path, reasoner: Scripted) -> None:
    def other(question: Question) -> Judgement:
        return good(question).model_copy(update={"seen_product": "pushpins"})

    reasoner.script = other
    ran = cli("inspect", "tray", "--limit", 1, "--json")
    assert json.loads(ran.out)["reason"] == "other-product"


def test_a_missing_image_of_a_manifest_is_recorded(
    cli: Cli, tray: Path, reasoner: Scripted
) -> None:
    (tray / "m.csv").write_text("part_id,image\nA,part-000.png\nB,gone.png\n")
    ran = cli("inspect", "tray/m.csv", "--json")
    assert ran.code == 3
    lines = [json.loads(line) for line in ran.out.splitlines()]
    assert [line["part_id"] for line in lines] == ["A", "B"]
    assert (lines[1]["reason"], lines[1]["image_sha256"]) == ("unreadable", None)
    assert "gone.png: no such file" in ran.err


def test_an_empty_folder_a_wrong_path_and_no_recipe(
    cli: Cli, tmp_path: Path, reasoner: Scripted
) -> None:
    (tmp_path / "empty").mkdir()
    write_parts(tmp_path / "parts", 1)
    for path, words in (("empty", "no images"), ("gone", "no such"), ("parts", "give --recipe")):
        ran = cli("inspect", path)
        assert ran.code == 2
        assert words in ran.error
    assert not (tmp_path / "lad-agent.db").exists()


def test_an_unknown_recipe_and_a_missing_reference(
    cli: Cli, tray: Path, reasoner: Scripted
) -> None:
    ran = cli("inspect", "tray", "--recipe", "screwbag")
    assert (ran.code, "did you mean 'screw_bag'" in ran.error) == (2, True)
    (tray / "reference.png").unlink()
    ran = cli("inspect", "tray")
    assert ran.code == 2
    assert "line 5: reference image 'reference.png' is not there" in ran.error


def test_one_unusable_recipe_leaves_the_other_parts_judged(
    cli: Cli, tray: Path, reasoner: Scripted
) -> None:
    write_recipe(tray.parent / "other").write_text("product: other\n")
    write_parts(tray.parent / "other", 2)
    ran = cli("inspect", "tray", "other", "--out", "r.jsonl")
    assert ran.code == 2
    assert len(_lines(tray.parent / "r.jsonl")) == 12
    assert "other/recipe.yaml: line 1: rules is missing" in ran.err


@pytest.mark.parametrize("out", ["r.txt", "gone/r.jsonl", "tray.csv"])
def test_a_place_for_results_that_cannot_be(
    cli: Cli, tray: Path, reasoner: Scripted, out: str
) -> None:
    (tray.parent / "tray.csv").mkdir()
    ran = cli("inspect", "tray", "--out", out)
    assert (ran.code, ran.error.startswith(f"lad-agent: --out {out}")) == (2, True)
    assert reasoner.asked == []


def test_a_store_that_cannot_be_used(cli: Cli, tray: Path, reasoner: Scripted) -> None:
    (tray.parent / "corrupt.db").write_bytes(b"no database, but long enough to look like one" * 99)
    for store, words in (
        ("corrupt.db", "corrupt.db"),
        ("tray", "is a folder"),
        ("gone/a.db", "no such folder"),
        ("mysql://x/y", "only SQLite and PostgreSQL"),
    ):
        ran = cli("inspect", "tray", "--store", store)
        assert ran.code in (2, 4)
        assert words in ran.error
    assert reasoner.asked == []


def test_a_store_of_a_newer_schema(cli: Cli, tray: Path, reasoner: Scripted) -> None:
    cli("inspect", "tray", "--limit", 1)
    with sqlite3.connect(tray.parent / "lad-agent.db") as connection:
        connection.execute("update alembic_version set version_num = '9999'")
    connection.close()
    ran = cli("inspect", "tray")
    assert ran.code == 4
    assert "newer" in ran.error


def test_a_locked_store(
    cli: Cli, tray: Path, reasoner: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lad_agent.store import audit_store

    defaults = audit_store.open_store.__kwdefaults__ | {"busy_timeout_s": 0.2}
    monkeypatch.setattr(audit_store.open_store, "__kwdefaults__", defaults)
    cli("inspect", "tray", "--limit", 1)
    other = sqlite3.connect(tray.parent / "lad-agent.db", isolation_level=None)
    other.execute("begin immediate")
    try:
        ran = cli("inspect", "tray")
    finally:
        other.close()
    assert ran.code == 4
    assert "lock" in ran.error
    assert cli("inspect", "tray").code == 0


def test_model_folders_that_cannot_be_used(cli: Cli, tray: Path) -> None:
    empty = tray.parent / "model"
    empty.mkdir()
    ran = cli("inspect", "tray", "--reasoner", "model")
    assert ran.code == 4
    assert "model" in ran.error
    (empty / "config.json").write_text(json.dumps({"model_type": "bert"}))
    ran = cli("inspect", "tray", "--reasoner", "model")
    assert ran.code == 4


def test_a_wrong_flag_or_setting(cli: Cli, tray: Path, reasoner: Scripted) -> None:
    assert cli("inspect", "tray", "--nothing").code == 2
    assert cli("inspect").code == 2
    (tray.parent / "lad-agent.toml").write_text('stor = "a.db"\n')
    ran = cli("inspect", "tray")
    assert (ran.code, "did you mean 'store'" in ran.error) == (2, True)


# --- real processes -------------------------------------------------------------------------------


def _child(folder: Path, *args: str, delay_s: float = 0.1, **env: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "tests.scripted_cli", str(delay_s), "inspect", *args],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "LAD_AGENT_IN_FLIGHT": "4"} | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_finishes_what_is_in_flight_and_says_how_to_go_on(tmp_path: Path) -> None:
    write_recipe(tmp_path / "tray")
    write_parts(tmp_path / "tray", 40)
    child = _child(tmp_path, "tray", "--out", "r.jsonl", delay_s=0.3)
    _until_begun(tmp_path / "lad-agent.db")
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 130, err
    assert "finishing what is in flight" in err
    assert "the same command goes on with the rest" in err
    done = len(_lines(tmp_path / "r.jsonl"))
    assert 0 < done < 40
    with open_store(tmp_path / "lad-agent.db", create=False) as store:
        assert store.count() == done, "nothing is left open"
    rest = _child(tmp_path, "tray", "--out", "r.jsonl", delay_s=0.0)
    assert rest.communicate(timeout=60)[1] is not None
    assert rest.returncode == 0
    assert len(_lines(tmp_path / "r.jsonl")) == 40


def _until_begun(store: Path) -> None:
    for _ in range(600):
        if store.exists():
            with sqlite3.connect(store) as connection:
                try:
                    count = connection.execute("select count(*) from inspections").fetchone()[0]
                except sqlite3.OperationalError:
                    count = 0
            connection.close()
            if count:
                return
        time.sleep(0.05)
    raise AssertionError("nothing was taken in")


@pytest.mark.skipif(sys.platform == "win32", reason="limits")
def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path: Path) -> None:
    """No file may grow beyond a bound: the system refuses the write, as on a full disk."""
    write_recipe(tmp_path / "tray")
    write_parts(tmp_path / "tray", 120)
    command = f"ulimit -f 400; exec {sys.executable} -m tests.scripted_cli 0 inspect tray"
    bounded = subprocess.run(
        ["bash", "-c", f"trap '' XFSZ; {command}"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert bounded.returncode == 4, bounded.stderr
    assert "Traceback" not in bounded.stderr
    assert bounded.stderr.splitlines()[-1].startswith("lad-agent: ")
    rest = _child(tmp_path, "tray", "--out", "r.jsonl", delay_s=0.0)
    rest.communicate(timeout=60)
    assert rest.returncode == 0
    assert len({line["id"] for line in _lines(tmp_path / "r.jsonl")}) == 120


def test_a_log_has_clean_lines(tmp_path: Path) -> None:
    write_recipe(tmp_path / "tray")
    write_parts(tmp_path / "tray", 4)
    child = _child(tmp_path, "tray", delay_s=0.0)
    out, err = child.communicate(timeout=60)
    assert "\x1b" not in out + err
    assert err.splitlines() == ["loading the reasoner (pocket)"]


@pytest.mark.skipif(shutil.which("script") is None, reason="needs script(1) for a terminal")
def test_a_terminal_shows_progress(tmp_path: Path) -> None:
    write_recipe(tmp_path / "tray")
    write_parts(tmp_path / "tray", 8)
    command = f"{sys.executable} -m tests.scripted_cli 0.3 inspect tray"
    ran = subprocess.run(
        ["script", "-qec", command, "/dev/null"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "120"},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout
    assert "escalated" in ran.stdout
    assert "/s" in ran.stdout
