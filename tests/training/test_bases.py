"""Bases: found, named, weighed, opened; the toy for real, the 3B by its configuration alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from lad_agent.errors import ModelError, NotFound, PrerequisiteError, UsageError
from lad_agent.reasoners.processing import new_processor
from lad_agent.training import bases, runs
from lad_agent.training.bases import Base
from lad_agent.training.config import RunConfig, changed, load
from tests.reasoners import toy

QWEN_3B: dict[str, Any] = {
    "architectures": ["Qwen2_5_VLForConditionalGeneration"],
    "bos_token_id": 151643, "eos_token_id": 151645, "vision_start_token_id": 151652,
    "vision_end_token_id": 151653, "vision_token_id": 151654, "image_token_id": 151655,
    "video_token_id": 151656, "hidden_act": "silu", "hidden_size": 2048,
    "intermediate_size": 11008, "max_position_embeddings": 128000, "max_window_layers": 70,
    "model_type": "qwen2_5_vl", "num_attention_heads": 16, "num_hidden_layers": 36,
    "num_key_value_heads": 2, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0,
    "sliding_window": 32768, "tie_word_embeddings": True, "use_sliding_window": False,
    "vision_config": {
        "depth": 32, "hidden_act": "silu", "hidden_size": 1280, "intermediate_size": 3420,
        "num_heads": 16, "in_chans": 3, "out_hidden_size": 2048, "patch_size": 14,
        "spatial_merge_size": 2, "spatial_patch_size": 14, "window_size": 112,
        "fullatt_block_indexes": [7, 15, 23, 31], "tokens_per_second": 2,
        "temporal_patch_size": 2,
    },
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    "vocab_size": 151936,
}  # fmt: skip


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """The 3B's configuration, without weights, with the toy's tokenizer."""
    folder = tmp_path_factory.mktemp("Qwen2.5-VL-3B")
    new_processor(toy.tokenizer(), toy.CHAT_TEMPLATE, toy.SIZE).save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(QWEN_3B))
    return bases.find(str(folder))


def _config(folder: Path, **keys: Any) -> RunConfig:
    return RunConfig.model_validate({"base": str(folder), **keys})


def _learning(model: Any) -> set[str]:
    return {name for name, p in model.named_parameters() if p.requires_grad}


def test_the_pocket_is_found_by_its_name() -> None:
    base = bases.find("pocket")
    assert (base.folder / "config.json").exists()
    assert "Apache-2.0" in bases.licence(base)


def test_a_pocket_model_has_an_object_head(small: Path) -> None:
    assert bases.find_pocket("pocket") == bases.find("pocket").folder
    with pytest.raises(ModelError, match=r"no witness\.json; give a pocket model"):
        bases.find_pocket(str(small))


def test_unknown_base() -> None:
    with pytest.raises(NotFound, match=r"no base 'qwen9': give pocket, the folder of a Qwen2.5-VL"):
        bases.find("qwen9")


def test_runs_of_the_pocket_and_of_products_are_bases(small: Path, tmp_path: Path) -> None:
    """Such a run binds its folder by a config.json of its own."""
    (tmp_path / "config.json").write_text('{"seed": 20}')
    shutil.copytree(small, tmp_path / "model")
    base = bases.find(str(tmp_path))
    assert base.folder == tmp_path / "model"
    assert "licence unknown" in bases.licence(base)
    (base.folder / "model_card.json").write_text("[]")
    with pytest.raises(ModelError, match="a JSON object is wanted"):
        bases.licence(base)


def test_another_family_is_named_with_what_it_would_need(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llava"}')
    with pytest.raises(ModelError, match=r"holds a 'llava' model.*another family would need"):
        bases.find(str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"no readable config\.json"):
        bases.find(str(tmp_path))


def test_licence_of_the_3b_is_non_commercial(big: Base) -> None:
    assert "non-commercial use only" in bases.licence(big)


def test_lora_learns_in_the_language_model_alone(small: Path) -> None:
    model, _ = bases.open_base(bases.find(str(small)), _config(small, precision="bfloat16"))
    learning = _learning(model)
    assert len(learning) == 2 * 7 * 2
    assert all("language_model" in name and "lora" in name for name in learning)
    types = {name: p.dtype for name, p in model.named_parameters()}
    assert {types[name] for name in learning} == {torch.float32}
    assert {types[name] for name in types.keys() - learning} == {torch.bfloat16}


@pytest.mark.parametrize("tower", ["frozen", "trained"])
def test_full_training_spares_the_tower_unless_told(small: Path, tower: str) -> None:
    config = _config(small, adapter="full", tower=tower)
    model, _ = bases.open_base(bases.find(str(small)), config)
    learning = _learning(model)
    assert any("visual" in name for name in learning) is (tower == "trained")
    assert any("embed_tokens" in name for name in learning)


def test_an_earlier_run_is_gone_on_from(small: Path, tmp_path: Path) -> None:
    config = _config(small)
    base = bases.find(str(small))
    run = runs.open_run(tmp_path / "run", "sft", config, base="b", data={})
    with pytest.raises(UsageError, match="has not finished"):
        bases.find(str(run.folder))
    model, _ = bases.open_base(base, config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.constant_(parameter, 0.25)
    model.save_pretrained(run.folder / "adapter")
    after = bases.find(str(run.folder))
    assert (after.folder, after.adapter) == (small, run.folder / "adapter")
    with pytest.raises(ModelError, match="a LoRA adapter; give a pocket model"):
        bases.find_pocket(str(run.folder))
    assert after.fingerprint != base.fingerprint
    again, _ = bases.open_base(after, config)
    values = [p for name, p in again.named_parameters() if "lora_B" in name]
    assert all(bool((p == 0.25).all()) for p in values)
    assert all(p.requires_grad for p in values)
    merged, _ = bases.open_base(after, changed(config, adapter="full"))
    assert not any("lora" in name for name, _ in merged.named_parameters())
    with pytest.raises(ModelError, match=r"of rank 16; set lora: \{rank: 16\}"):
        bases.open_base(after, changed(config, lora={"rank": 4}))


def test_shrunken_3b_keeps_class_vocabulary_and_patches(big: Base, tmp_path: Path) -> None:
    config = _config(big.folder, adapter="full")
    model, _ = bases.open_base(bases.shrunken(big, config, tmp_path), config)
    assert type(model).__name__ == "Qwen2_5_VLForConditionalGeneration"
    assert model.config.text_config.vocab_size == 151936
    assert model.config.vision_config.patch_size == 14
    assert sum(p.numel() for p in model.parameters()) < 60e6
    ids = torch.tensor([[1, 2, 3]])
    assert model(input_ids=ids).logits.shape == (1, 3, 151936)


def test_3b_counted_from_its_configuration(big: Base) -> None:
    config = load("qwen2.5-vl-3b-full")
    memory = bases.estimate(big, config, "sft")
    # Qwen2.5-VL-3B has 3.755e9 parameters, 0.669e9 of them in the tower.
    assert memory.gradients == pytest.approx(4 * 3.086e9, rel=0.001)
    assert memory.optimizer == 2 * memory.gradients
    assert memory.weights == pytest.approx(4 * 3.755e9 + 2 * 3.086e9, rel=0.001)
    lora = bases.estimate(big, load("qwen2.5-vl-3b-lora"), "sft")
    assert lora.total < 24e9 < memory.total < 80e9


def test_memory_of_more_is_more(big: Base) -> None:
    config = load("qwen2.5-vl-3b-lora")
    total = bases.estimate(big, config, "sft").total
    for flags in ({"image_size": 896}, {"sft": {"micro": 8}}, {"gradient_checkpointing": False}):
        assert bases.estimate(big, changed(config, **flags), "sft").total > total


def test_every_reference_of_a_prompt_takes_memory_and_time(big: Base) -> None:
    config = load("qwen2.5-vl-3b-lora")
    for stage in ("sft", "grpo"):
        two, five = (bases.estimate(big, config, stage, n) for n in (2, 5))
        assert two == bases.estimate(big, config, stage)
        # 256 tokens a picture of 448 x 448, beside 400 of text.
        assert five.activations > (5 * 256 + 400) / (2 * 256 + 400) * 0.95 * two.activations
        assert bases.seconds_a_step(big, config, stage, 5) > bases.seconds_a_step(
            big, config, stage, 2
        )
    with pytest.raises(PrerequisiteError, match="would fit"):
        bases.refuse_too_big(big, config, "grpo", 5, free=20_000_000_000)
    bases.refuse_too_big(big, config, "grpo", free=20_000_000_000)


def test_memory_of_answers_grows_with_all_that_are_drawn_at_once(
    big: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load("qwen2.5-vl-3b-lora")
    told = bases.estimate(big, config, "grpo").activations
    # 64 answers of 912 + 256 tokens: keys and values of 36 layers, 2 heads of 128, in 2 bytes.
    kept = 64 * (912 + 256) * 36 * 2 * 2 * 128 * 2
    made = 64 * 912 * (3 * 11008 + 2 * 2048) * 2
    assert told == kept + made
    fewer = changed(config, grpo={"num_generations": 4, "micro": 4})
    assert bases.estimate(big, fewer, "grpo").activations == told // 2
    monkeypatch.setenv("WORLD_SIZE", "4")
    small = changed(config, grpo={"micro": 4})
    assert bases.estimate(big, small, "grpo").activations == told // 4
    pooled = changed(config, grpo={"pool": 64})
    assert bases.estimate(big, pooled, "grpo").activations == told
    many = changed(config, grpo={"micro": 16}, gradient_checkpointing=False)
    assert bases.estimate(big, many, "grpo").activations > told


def test_too_little_memory_is_said_with_what_would_fit(big: Base) -> None:
    config = load("qwen2.5-vl-3b-full")
    with pytest.raises(PrerequisiteError, match=r"24\.0 GB are free; adapter: lora in bfloat16"):
        bases.refuse_too_big(big, config, "sft", free=24_000_000_000)
    lora = load("qwen2.5-vl-3b-lora")
    with pytest.raises(PrerequisiteError, match="micro: 1, prompts: 1, num_generations: 4 would"):
        bases.refuse_too_big(big, lora, "grpo", free=12_000_000_000)
    with pytest.raises(PrerequisiteError, match="nothing would fit"):
        bases.refuse_too_big(big, config, "sft", free=1_000_000_000)
    assert bases.refuse_too_big(big, config, "sft", free=80_000_000_000).total < 80e9


@pytest.mark.parametrize("keys", [{"adapter": "full"}, {"adapter": "lora"}])
def test_estimate_is_what_the_tensors_take(small: Path, keys: dict[str, Any]) -> None:
    config, base = _config(small, **keys), bases.find(str(small))
    model, _ = bases.open_base(base, config)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    model(input_ids=torch.tensor([[1, 2, 3]])).logits.sum().backward()
    optimizer.step()

    def size(tensors: Any) -> int:
        return sum(t.numel() * t.element_size() for t in tensors)

    told = bases.estimate(base, config, "sft")
    parameters = list(model.parameters())
    assert told.weights == size(parameters)
    assert told.gradients == size(p.grad for p in parameters if p.grad is not None)
    moments = [s[n] for s in optimizer.state.values() for n in ("exp_avg", "exp_avg_sq")]
    assert told.optimizer == size(moments)


def test_time_of_a_step_grows_with_its_work(big: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a device of 100 TFLOP/s and 1 TB/s, whatever this one is."""
    monkeypatch.setattr(bases, "_speed", lambda dtype: (1e14, 1e12))
    config = load("qwen2.5-vl-3b-full")
    sft = bases.seconds_a_step(big, config, "sft")
    # 16 texts of 912 tokens through 3.1e9 parameters, 8 operations each; the tower once.
    assert sft == pytest.approx(16 * 912 * 8 * 3.1e9 / 4e13, rel=0.15)
    assert bases.seconds_a_step(big, changed(config, sft={"batch": 32}), "sft") == 2 * sft
    assert bases.seconds_a_step(big, load("qwen2.5-vl-3b-lora"), "sft") < sft
    grpo = bases.seconds_a_step(big, config, "grpo")
    assert grpo > 4 * sft
    assert bases.seconds_a_step(big, changed(config, grpo={"beta": 0.0}), "grpo") < grpo
