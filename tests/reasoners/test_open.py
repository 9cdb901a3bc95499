"""`open_reasoner`: which reasoner a word, a folder or an address opens."""

import shutil
import subprocess
import sys

import pytest

from lad_agent import reasoners
from lad_agent.errors import ModelError, UsageError
from lad_agent.reasoners import open_reasoner
from lad_agent.reasoners.batching import MicroBatched
from lad_agent.reasoners.fingerprints import fingerprint
from lad_agent.reasoners.served import ServedReasoner
from tests.reasoners import toy


async def test_a_folder(toy_folder, tmp_path):
    reasoner = open_reasoner(str(toy_folder), device="cpu")
    assert isinstance(reasoner, MicroBatched)
    found = await reasoner.judge(toy.question(toy.write_recipe(tmp_path), toy.BRIGHT))
    assert found.anomalous is True
    await reasoner.aclose()


async def test_a_run_is_its_model(toy_folder, tmp_path):
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(ModelError, match="model: no such model folder"):
        open_reasoner(str(tmp_path))
    shutil.copytree(toy_folder, tmp_path / "model")
    reasoner = open_reasoner(str(tmp_path), device="cpu")
    assert reasoner.fingerprint == fingerprint(toy_folder)
    await reasoner.aclose()


def test_a_run_that_made_an_adapter(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "adapter").mkdir()
    with pytest.raises(UsageError, match=r"give --reasoner BASE --adapter .*/adapter"):
        open_reasoner(str(tmp_path))


@pytest.mark.parametrize("spec", [None, "pocket"])
async def test_the_embedded_model(toy_folder, monkeypatch, spec):
    monkeypatch.setattr(reasoners, "EMBEDDED", toy_folder)
    reasoner = open_reasoner(spec, device="cpu")
    assert len(reasoner.fingerprint) == 16
    await reasoner.aclose()


def test_the_embedded_model_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr(reasoners, "EMBEDDED", tmp_path / "pocket")
    with pytest.raises(ModelError, match="lad-agent train pocket"):
        open_reasoner()


async def test_a_server():
    reasoner = open_reasoner("https://line7:8000/v1#Qwen/Qwen2.5-VL-3B-Instruct")
    assert isinstance(reasoner, ServedReasoner)
    assert reasoner.fingerprint == "Qwen/Qwen2.5-VL-3B-Instruct@line7:8000/v1"
    await reasoner.aclose()


@pytest.mark.parametrize("spec", ["http://line7:8000/v1", "http://#model"])
def test_a_server_without_a_model(spec):
    with pytest.raises(UsageError, match="name the model after a #"):
        open_reasoner(spec)


def test_a_server_with_an_adapter(tmp_path):
    with pytest.raises(UsageError, match="lora-modules"):
        open_reasoner("http://line7:8000/v1#toy", adapter=tmp_path)


def test_no_such_folder(tmp_path):
    with pytest.raises(ModelError, match="no such model folder"):
        open_reasoner(str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("lad_agent.reasoners", ["torch", "transformers", "openai"]),
        ("lad_agent.reasoners.served", ["torch", "transformers"]),
    ],
)
def test_nothing_heavy_is_imported_before_it_is_needed(module, absent):
    code = f"import sys, {module}; print([m for m in {absent} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
