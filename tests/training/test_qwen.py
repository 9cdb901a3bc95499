"""Qwen2.5-VL-3B's own configuration and vocabulary, random and of fewer layers, all the way."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from lad_agent.reasoners.processing import new_processor
from lad_agent.training import bases, grpo, runs, sft
from lad_agent.training.config import RunConfig, changed, load
from lad_agent.training.pocket.architecture import CHAT_TEMPLATE
from tests.reasoners import qwen, toy
from tests.training.conftest import own_pictures
from tests.training.test_bases import QWEN_3B

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

SIZE = 84
LAYERS = {"num_hidden_layers": 1}
DEPTH = {"depth": 2, "fullatt_block_indexes": [1]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The 3B with one layer of language and two of sight, in full width, in bfloat16."""
    folder = tmp_path_factory.mktemp("Qwen2.5-VL-3B-Instruct")
    shape = copy.deepcopy(QWEN_3B) | LAYERS
    shape["vision_config"] |= DEPTH
    tokens = qwen.tokenizer()
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(**shape)).to(torch.bfloat16)
    model.generation_config.eos_token_id = tokens.eos_token_id
    model.generation_config.pad_token_id = tokens.pad_token_id
    model.generation_config.max_new_tokens = 8
    model.save_pretrained(folder)
    new_processor(tokens, CHAT_TEMPLATE, SIZE).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return own_pictures(tmp_path_factory.mktemp("data") / "toy", 6, toy.DARK, striped=True)


def _config(adapter: str, folder: Path, data: Path) -> RunConfig:
    return changed(
        load(f"qwen2.5-vl-3b-{adapter}"),
        base=str(folder),
        precision="float32",
        image_size=SIZE,
        workers=0,
        samples=1,
        data={"paths": [data]},
        sft={"steps": 2, "batch": 2, "micro": 1},
        grpo={
            "steps": 2, "prompts": 2, "num_generations": 2, "micro": 2, "max_completion": 16,
            "beta": 0.02 if adapter == "lora" else 0.0,
        },
    )  # fmt: skip


@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_check_sft_grpo_save_load_inspect(
    adapter: str, folder: Path, data: Path, tmp_path: Path
) -> None:
    checked = _lad_agent("train", "data", "check", data)
    assert "toy" in checked.stdout
    config, said = _config(adapter, folder, data), list[str]()
    assert sft.train(config, tmp_path / "sft", say=said.append)
    assert "non-commercial use only" in said[0]
    after = changed(config, base=str(tmp_path / "sft"))
    made = grpo.train(after, tmp_path / "grpo", say=said.append)
    assert made is not None
    assert "rewards/accuracy/mean" in runs.last_metrics(runs.find_run(tmp_path / "grpo"))
    found = bases.find(str(tmp_path / "grpo"))
    results = tmp_path / "results.jsonl"
    reasoner = ["--reasoner", found.folder, *(["--adapter", made] if adapter == "lora" else [])]
    _lad_agent(
        "inspect", data / "good", *reasoner, "--out", results, "--store", tmp_path / "audit.db"
    )
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    assert len(lines) == 6
    assert {line["model"] for line in lines} == {found.fingerprint}
    assert {line["reason"] for line in lines} == {"malformed-answer"}


def _lad_agent(*arguments: object) -> subprocess.CompletedProcess[str]:
    ran = subprocess.run(
        [sys.executable, "-m", "lad_agent", *map(str, arguments)], capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    return ran
