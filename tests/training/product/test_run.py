"""A run of a few steps through every stage, and what it leaves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers.utils import logging as transformers_logging

from lad_agent import images, recipe
from lad_agent.errors import ModelError, UsageError
from lad_agent.rationale import NOTHING, Facts
from lad_agent.reasoners import EMBEDDED
from lad_agent.reasoners.base import Question
from lad_agent.reasoners.checkpoint import load_checkpoint
from lad_agent.reasoners.fingerprints import fingerprint
from lad_agent.reasoners.local import TransformersReasoner
from lad_agent.reasoners.witness import load_witness
from lad_agent.training import bases, runs
from lad_agent.training import sft as fine_tuning
from lad_agent.training.pocket import data, dense, samples, sft
from lad_agent.training.product import kit as kits
from lad_agent.training.product import run, texts
from lad_agent.training.synloco.scene import DAMAGE
from tests.training.product.drawn import RECIPE, plate, save, write_kit, write_labelled

SHARD = 16


@pytest.fixture(scope="module", autouse=True)
def _quiet() -> Iterator[None]:
    """One thread, so that sums are summed in one order; no progress bars; denormals as before."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    transformers_logging.disable_progress_bar()
    yield
    transformers_logging.enable_progress_bar()
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)


@pytest.fixture(scope="module", autouse=True)
def _small() -> Iterator[None]:
    """Few pictures, made in this process: another would not hear of their number."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(data, "SHARD", SHARD)
        patched.setattr(data, "pool", ThreadPoolExecutor)
        for name, value in (("PROBE", 2), ("REFERENCES", 2), ("TRIED", 2)):
            patched.setattr(run, name, value)
        patched.setattr(samples, "SAMPLES", 1)
        patched.setattr(fine_tuning, "SAMPLE_TOKENS", 8)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = write_kit(tmp_path_factory.mktemp("product") / "kit")
    write_labelled(made, 1)
    return made


@pytest.fixture(scope="module")
def said() -> list[str]:
    return []


@pytest.fixture(scope="module")
def finished(folder: Path, said: list[str]) -> Path:
    """A run whose time is up before it begins: it times two steps of a stage, and takes two."""
    out = folder.parent / "run"
    run.train_product(folder, out, _config(), threads=1, say=said.append)
    return out


def _config() -> run.ProductConfig:
    config = replace(run.shortened(1), minutes=0.001, steps=None)
    return replace(
        config,
        dense=replace(config.dense, batch=4),
        captions=replace(config.captions, batch=2),
        rules=replace(config.rules, batch=2),
    )


def test_the_model_judges_the_product(finished: Path, folder: Path) -> None:
    reasoner = TransformersReasoner(finished / "model", device="cpu", max_new_tokens=8)
    assert reasoner.products == {"spare_kit"}
    loaded = recipe.load(folder / "recipe.yaml")
    image = images.prepare(Image.open(folder / "reference.png"), loaded.region, 196)
    (judged,) = reasoner.judge_batch([Question(loaded, image, "0" * 64)])
    assert judged.raw_text
    witness = load_witness(finished / "model")
    assert witness is not None
    assert witness.nouns == {"spare_kit": ("plates", "rings", DAMAGE)}
    assert witness.head.words.products == ("spare_kit", NOTHING)
    assert witness.head.words.attributes == {"lid": ("blue", "red", "none")}


def test_every_word_of_the_kit_is_one_token(finished: Path, folder: Path) -> None:
    tokens = load_checkpoint(finished / "model", device="cpu").processor.tokenizer
    for word in ("spare", "kit", "rings", "ring", "plates", "plate", "lid", "blue"):
        assert len(tokens(f" {word}", add_special_tokens=False)["input_ids"]) == 1, word


def test_the_run_tells_how_it_went(finished: Path, said: list[str]) -> None:
    told = "\n".join(said)
    assert "5 rings, 5 lid blue, 5 lid red; 3 fixtures" in told
    assert "composed: 4 pictures: balanced accuracy" in told
    assert "own pictures: 2 pictures: balanced accuracy" in told
    card = json.loads((finished / "model" / "model_card.json").read_text())
    assert card["products"] == ["spare_kit"]
    assert set(card["seconds"]) == {"pictures", "dense", "features", "captions", "rules"}
    assert bases.licence(bases.find(str(finished))) == bases.licence(bases.find("pocket"))
    for stage in ("dense", "captions", "rules"):
        assert (finished / f"{stage}.steps").read_text() == "2\n"


def test_the_folder_tells_how_the_run_went(finished: Path, folder: Path, said: list[str]) -> None:
    record = json.loads((finished / "run.json").read_text(encoding="utf-8"))
    assert (record["stage"], record["data"]) == ("product", {"spare_kit": kits.read(folder).digest})
    known = {"name": str(EMBEDDED), "fingerprint": fingerprint(EMBEDDED), "made_by": None}
    assert record["base"] == known
    kept = runs.read_lines(finished / "samples.jsonl")
    assert [line["stage"] for line in kept] == ["captions", "rules"]
    assert all(line["said"] for line in kept)
    assert kept[1]["wanted"].endswith("</answer>")
    assert {"tensorboard", "curves.png"} <= {path.name for path in finished.iterdir()}
    assert {"dense: steps 2", "captions: steps 2", "rules: steps 2"} <= set(said)
    last = runs.last_metrics(runs.find(finished))
    assert last["dense/seconds_a_step"] > 0
    assert last["composed/pictures"] == 4


def test_a_finished_run_is_not_done_again(
    finished: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = (finished / "model" / "model.safetensors").read_bytes()
    steps: list[str] = []

    def train(*arguments: Any) -> None:
        steps.append("training")

    monkeypatch.setattr(sft, "train", train)
    monkeypatch.setattr(dense, "train", train)
    monkeypatch.setattr(data, "_write_shard", train)
    (finished / "model" / "model.safetensors").unlink()
    model = run.train_product(folder, finished, _config(), threads=1, say=lambda text: None)
    assert steps == []
    assert (model / "model.safetensors").read_bytes() == weights


def test_a_run_of_another_kit_is_refused(finished: Path, tmp_path: Path) -> None:
    other = write_kit(tmp_path / "kit", RECIPE.replace("2 rings", "3 rings"))
    with pytest.raises(UsageError, match="another configuration"):
        run.train_product(other, finished, _config(), threads=1)


def test_a_base_without_object_head_is_refused(folder: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(EMBEDDED, base, ignore=shutil.ignore_patterns("witness*"))
    with pytest.raises(ModelError, match="give a pocket model") as caught:
        run.train_product(folder, tmp_path / "run", _config(), base=base, threads=2)
    assert str(base) in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_stage_takes_its_share_of_the_time_left_and_keeps_it(tmp_path: Path) -> None:
    config = run.ProductConfig(minutes=10)
    (tmp_path / "metrics.jsonl").write_text('{"name": "pictures", "spent": 100.0}\n')
    wanted = int(run.SHARES["dense"] * 500 / 0.5)
    assert run.planned(tmp_path, config, "dense", lambda folder: 0.5) == wanted
    assert run.planned(tmp_path, config, "dense", lambda folder: 9.9) == wanted
    assert run.planned(tmp_path, replace(config, steps=7), "rules", lambda folder: 0.5) == 7


def test_the_base_is_carried_over(folder: Path) -> None:
    kit = kits.read(folder)
    net, processor, head = run.open_base(EMBEDDED, kit)
    known, witness = load_checkpoint(EMBEDDED, device="cpu"), load_witness(EMBEDDED)
    assert witness is not None
    old = known.model.state_dict()
    first = len(known.processor.tokenizer)
    for name, value in net.state_dict().items():
        same = value[:first] if "embed_tokens" in name or "lm_head" in name else value
        assert torch.equal(same, old[name]), name
    at = witness.head.words.nouns.index(DAMAGE)
    assert torch.equal(head.cells.weight[4:6], witness.head.cells.weight[2 * at : 2 * at + 2])
    run.ground(net, head, processor, first)
    table = net.model.language_model.embed_tokens.weight
    assert torch.equal(table[:first], old["model.language_model.embed_tokens.weight"])
    (ring,) = processor.tokenizer(" rings", add_special_tokens=False)["input_ids"]
    cosine = torch.cosine_similarity(table[ring], head.cells.weight[2], dim=0)
    assert cosine.item() == pytest.approx(1.0, abs=1e-5)


def test_texts_are_true(finished: Path, folder: Path) -> None:
    kit = kits.read(folder)
    processor = load_checkpoint(finished / "model", device="cpu").processor
    tokens = load_file(finished / "features.safetensors")
    facts = data.load(finished / "pictures", 2 * SHARD).facts[SHARD:]
    queries = sft.Features(tokens.pop("queries"), facts)
    assert len(tokens["spare_kit"]) == 3
    seen = set()
    for row, fact in enumerate(facts):
        for seed in range(4):
            rng = np.random.default_rng([row, seed])
            told = texts.draw(kit, rng, row, "rules", queries, tokens, processor)
            assert len(told.images) == 2
            assert torch.equal(told.images[1], queries.tokens[row])
            bad = " bad" in told.completion
            assert told.completion.endswith(f"<answer>{'yes' if bad else 'no'}</answer>")
            assert ("product: none of" in told.completion) == (fact.product == NOTHING)
            seen.add(bad)
            listed = texts.draw(kit, rng, row, "captions", queries, tokens, processor)
            assert "Rules:" not in listed.prompt
            if fact.product != NOTHING and "rings" in listed.prompt:
                cells = fact.places["rings"]
                assert all(cell in listed.completion for cell in cells)
                assert f": {len(cells)}" in listed.completion.split("rings", 1)[1]
    assert seen == {False, True}


@pytest.mark.parametrize("shown", [1, 2])
def test_a_prompt_shows_as_many_references_as_an_inspection(shown: int, tmp_path: Path) -> None:
    listed = f"[reference.png, fixture/0.png, fixture/1.png]\nreferences_shown: {shown}"
    kit = kits.read(write_kit(tmp_path, RECIPE.replace("[reference.png]", listed)))
    processor = run.widened(EMBEDDED, texts.words(kit))
    queries = sft.Features(torch.zeros(1, 49, 192), (Facts("spare_kit", {}, {"lid": "red"}),))
    references = {"spare_kit": torch.zeros(9, 49, 192)}
    for n in range(20):
        draw = np.random.default_rng(n)
        text = texts.sample(kit, draw, 0, "rules", queries, references, processor)
        assert len(text.images) == shown + 1


def test_a_kit_with_pairings_is_taught_to_look_them_up(tmp_path: Path) -> None:
    rule = "'cap fits lid: green for red, black for blue'"
    folder = write_kit(tmp_path, RECIPE.replace("lid is red", rule))
    for number in range(5):
        for value, colour in (("green", (40, 160, 60)), ("black", (20, 20, 20))):
            save(plate(number, colour), folder / f"parts/cap/{value}/{number}.png")
    kit = kits.read(folder)
    processor = run.widened(EMBEDDED, texts.words(kit))
    facts = Facts("spare_kit", {}, {"lid": "red", "cap": "black"})
    queries = sft.Features(torch.zeros(1, 49, 192), (facts,))
    references = {"spare_kit": torch.zeros(1, 49, 192)}
    drawn = [
        texts.draw(kit, np.random.default_rng(n), 0, "rules", queries, references, processor)
        for n in range(300)
    ]
    alone = [text for text in drawn if not text.images]
    assert 0.08 < len(alone) / len(drawn) < 0.25
    assert all(" fits" in text.completion for text in alone)
    looked_up = {piece for text in alone for piece, taught in text.pieces if taught}
    assert {" green", " black"} <= looked_up


def test_a_kit_without_good_scenes_is_refused_before_anything_starts(tmp_path: Path) -> None:
    kit = write_kit(tmp_path / "kit", RECIPE.replace("exactly 1 plate", "lid is blue"))
    with pytest.raises(UsageError, match="the rules contradict each other"):
        run.train_product(kit, tmp_path / "run", _config(), threads=1)
    assert not (tmp_path / "run").exists()


def test_a_score_tells_nothing_of_a_class_that_is_not_there() -> None:
    both = run.Score.of([True, None, False, True], [True, True, False, False])
    assert both == run.Score(4, balanced_accuracy=0.5, escape_rate=0.0, overkill_rate=0.5)
    bad = run.Score.of([True, False], [True, True])
    assert bad == run.Score(2, balanced_accuracy=None, escape_rate=0.5, overkill_rate=None)
    assert str(bad) == "2 pictures: balanced accuracy unknown, escapes 0.500, overkill unknown"
    good = run.Score.of([False], [False])
    assert good == run.Score(1, balanced_accuracy=None, escape_rate=None, overkill_rate=0.0)


def test_own_pictures_are_examined_before_anything_starts(tmp_path: Path) -> None:
    kit = write_kit(tmp_path / "kit")
    write_labelled(kit, 2)
    first, second = sorted((kit / "good").iterdir())[:2]
    for path in (first, second):
        path.write_text("<html>")
    with pytest.raises(UsageError) as caught:
        run.train_product(kit, tmp_path / "run", _config(), threads=1)
    assert all(str(path) in str(caught.value) for path in (first, second))
    shutil.rmtree(kit / "good")
    with pytest.raises(UsageError, match="pictures are anomalous; add good ones"):
        run.train_product(kit, tmp_path / "run", _config(), threads=1)
    assert not (tmp_path / "run").exists()
