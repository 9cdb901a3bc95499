"""Model folders: what is loaded, what is refused and how, and what the fingerprint covers."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from lad_agent.errors import LadAgentError, ModelError, PrerequisiteError
from lad_agent.reasoners.checkpoint import load_checkpoint, pick_device
from lad_agent.reasoners.fingerprints import fingerprint
from lad_agent.reasoners.local import TransformersReasoner
from tests.reasoners import toy


@pytest.fixture
def folder(toy_folder, tmp_path):
    """A copy of the toy's folder, to be changed."""
    return shutil.copytree(toy_folder, tmp_path / "model")


def refused(folder, **options):
    with pytest.raises(ModelError) as error:
        load_checkpoint(folder, device="cpu", **options)
    message = str(error.value)
    assert str(folder.parent) in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    assert f"{name} missing" in refused(folder)


def test_a_missing_processor_is_named(folder):
    (folder / "processor_config.json").unlink()
    assert "preprocessor_config.json missing" in refused(folder)


def test_a_missing_chat_template_is_named(folder):
    (folder / "chat_template.jinja").unlink()
    assert "chat_template.jinja is missing" in refused(folder)


def test_all_missing_files_are_named_at_once(folder):
    for name in ("model.safetensors", "tokenizer.json"):
        (folder / name).unlink()
    assert "model.safetensors, tokenizer.json missing" in refused(folder)


def test_no_folder(tmp_path):
    assert "no such model folder" in refused(tmp_path / "nothing")


def test_pickled_weights_are_not_taken(folder):
    torch.save({}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert "model.safetensors missing" in refused(folder)


@pytest.mark.parametrize("kind", ["llama", "qwen2_vl", None])
def test_another_architecture_is_named(folder, kind):
    _edit(folder / "config.json", model_type=kind)
    assert f"holds a {kind!r} model; a Qwen2.5-VL (qwen2_5_vl) is needed" in refused(folder)


@pytest.mark.parametrize("name", ["config.json", "model_card.json"])
def test_broken_json_is_named(folder, name):
    (folder / name).write_text("{")
    assert name in refused(folder)


@pytest.mark.parametrize("size", [0, 7, 1000])
def test_damaged_weights_are_named(folder, size):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:size])
    assert "cannot be loaded" in refused(folder)


def test_weights_that_lack_some_are_refused_and_not_made_up(folder):
    weights = load_file(folder / "model.safetensors")
    lost = next(name for name in weights if "layers.0.mlp" in name)
    del weights[lost]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert "1 weights are missing" in refused(folder)


def test_weights_of_another_size_are_refused(folder):
    _edit(folder / "config.json", deep=("text_config", "intermediate_size", 96))
    assert "cannot be loaded" in refused(folder)


def test_a_missing_shard_is_named(folder):
    _shard(folder)
    (folder / "model-2.safetensors").unlink()
    assert "model-2.safetensors missing" in refused(folder)


def test_a_missing_adapter_file_is_named(folder):
    empty = folder.parent / "adapter"
    empty.mkdir()
    assert "adapter_config.json, adapter_model.safetensors missing" in refused(
        folder, adapter=empty
    )


def test_an_adapter_that_does_not_fit_is_named(folder):
    adapter = folder.parent / "adapter"
    adapter.mkdir()
    settings = {"peft_type": "LORA", "r": 2, "target_modules": ["no_such_module"]}
    (adapter / "adapter_config.json").write_text(json.dumps(settings))
    save_file({"a": torch.zeros(1)}, adapter / "adapter_model.safetensors")
    assert "does not fit the model" in refused(folder, adapter=adapter)


def test_no_such_device(toy_folder):
    for name in ("cuda:77", "nonsense"):
        with pytest.raises(PrerequisiteError, match="use --device auto or cpu"):
            load_checkpoint(toy_folder, device=name)
    assert pick_device("cpu").type == "cpu"


def test_half_precision_on_disk_is_float32_at_work(folder, toy_model, tmp_path):
    weights = load_file(folder / "model.safetensors")
    save_file(
        {k: v.half() for k, v in weights.items()}, folder / "model.safetensors", {"format": "pt"}
    )
    half = TransformersReasoner(folder, device="cpu")
    assert {p.dtype for p in half._checkpoint.model.parameters()} == {torch.float32}
    assert _answer(half, tmp_path) == pytest.approx(_answer(toy_model, tmp_path), abs=0.02)


def test_shards_are_joined(folder, toy_model, tmp_path):
    _shard(folder)
    joined = TransformersReasoner(folder, device="cpu")
    assert _answer(joined, tmp_path) == pytest.approx(_answer(toy_model, tmp_path), abs=1e-5)


def test_qwens_own_layout_is_read(folder, toy_model, tmp_path):
    """As Qwen publishes it: preprocessor_config.json, slow tokenizer class, no processor file."""
    processor = json.loads((folder / "processor_config.json").read_text())["image_processor"]
    (folder / "processor_config.json").unlink()
    (folder / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "min_pixels": 3136,
                "max_pixels": 12845056,
                "image_processor_type": "Qwen2VLImageProcessor",
                "processor_class": "Qwen2_5_VLProcessor",
                **{k: processor[k] for k in ("patch_size", "merge_size", "temporal_patch_size")},
                "image_mean": processor["image_mean"],
                "image_std": processor["image_std"],
            }
        )
    )
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").unlink()
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    read = TransformersReasoner(folder, device="cpu")
    assert _answer(read, tmp_path) == pytest.approx(_answer(toy_model, tmp_path), abs=1e-5)


def test_products_come_from_the_card(folder):
    assert load_checkpoint(folder, device="cpu").products is None
    (folder / "model_card.json").write_text('{"products": ["toy", "screw_bag"]}')
    assert load_checkpoint(folder, device="cpu").products == {"toy", "screw_bag"}


@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja",
             "processor_config.json", "generation_config.json", "witness.json"]
)  # fmt: skip
def test_the_fingerprint_covers_every_byte_that_shapes_an_answer(folder, name):
    before = fingerprint(folder)
    path = folder / name
    content = bytearray(path.read_bytes() if path.exists() else b"") + b"\n"
    content[-2:-1] = bytes([content[-1] ^ 1])
    path.write_bytes(content)
    assert fingerprint(folder) != before


def test_the_fingerprint_is_that_of_the_content(toy_folder, folder):
    assert fingerprint(toy_folder) == fingerprint(folder)
    assert len(fingerprint(folder)) == 16
    (folder / "model_card.json").write_text("{}")
    (folder / "README.md").write_text("words")
    assert fingerprint(toy_folder) == fingerprint(folder)
    assert fingerprint(folder, toy_folder) != fingerprint(folder)
    with pytest.raises(LadAgentError):
        fingerprint(folder / "nowhere")


def _edit(path, deep=None, **changes):
    content = json.loads(path.read_text()) | changes
    if deep:
        part, name, value = deep
        content[part][name] = value
    path.write_text(json.dumps(content))


def _shard(folder):
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    halves = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, part in halves.items():
        save_file({n: weights[n] for n in part}, folder / file, {"format": "pt"})
    index = {"metadata": {}, "weight_map": {n: f for f, part in halves.items() for n in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _answer(reasoner, tmp_path):
    question = toy.question(toy.write_recipe(tmp_path / "like", samples=0), toy.DARK)
    [said] = reasoner.judge_batch([question])
    return said.raw_text, said.weakest_token, said.anomaly_score
