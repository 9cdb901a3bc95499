"""`lad-agent train product`: from a kit to a model folder that `inspect` uses, in a given time.

Starts from the embedded pocket: its tower goes on learning with a new object head, its language
model with the kit's words added. Each stage leaves its result in the run folder and is skipped when
it is there: stopped at any moment, the same command goes on.
"""

import copy
import hashlib
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, distributed
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, TrainerCallback
from transformers.utils import logging

from lad_agent import atomic, images, rationale
from lad_agent.errors import UsageError
from lad_agent.rationale import NOTHING, Count
from lad_agent.reasoners import EMBEDDED
from lad_agent.reasoners.base import Question
from lad_agent.reasoners.checkpoint import load_checkpoint
from lad_agent.reasoners.fingerprints import fingerprint
from lad_agent.reasoners.local import TransformersReasoner
from lad_agent.reasoners.witness import ObjectHead, Vocabulary, load_witness
from lad_agent.training import bases, runs
from lad_agent.training.bases import Base
from lad_agent.training.following import Say
from lad_agent.training.pocket import data, dense, samples, sft
from lad_agent.training.pocket.architecture import IMAGE_SIZE
from lad_agent.training.pocket.dense import DenseConfig
from lad_agent.training.pocket.run import (
    Clock,
    Lines,
    bind,
    dense_path,
    language_path,
    share,
    shares_read,
    whole_share,
    write_model,
    write_tensors,
)
from lad_agent.training.pocket.sft import SftConfig
from lad_agent.training.product import kit as kits
from lad_agent.training.product import scenes, texts
from lad_agent.training.product.kit import Kit
from lad_agent.training.product.words import widened
from lad_agent.training.sources import Example, check, open_source
from lad_agent.training.sources import folder as own_pictures

DENSE_PICTURES, SFT_PICTURES = 160, 80
"""Pictures a minute of the budget: they are made at some hundred a second."""
SHARES = {"dense": 0.42, "captions": 0.2, "rules": 0.9}
"""Of the time that is left when a stage begins, its share."""
PROBE = 20
"""Steps that are timed before a stage is planned; they are not kept."""
REFERENCES = 32
"""Normal pictures that serve as references, beside the recipe's own."""
TRIED = 100
"""Composed pictures of each verdict that the model is tried on at the end."""


@dataclass(frozen=True)
class ProductConfig:
    """The whole recipe of a run. `steps` of each stage, or as many as `minutes` allow."""

    minutes: float = 60.0
    steps: int | None = None
    seed: int = 20
    dense: DenseConfig = field(
        default_factory=lambda: DenseConfig(steps=0, learning_rate=2e-3, warmup=100, save_every=200)
    )
    captions: SftConfig = field(default_factory=lambda: SftConfig("captions", 0, save_every=200))
    rules: SftConfig = field(default_factory=lambda: SftConfig("rules", 0, save_every=200))

    @property
    def dense_pictures(self) -> int:
        """In whole shards, one at least."""
        return max(1, round(self.minutes * DENSE_PICTURES / data.SHARD)) * data.SHARD

    @property
    def pictures(self) -> int:
        """Those for fine-tuning included: the tower must not know them."""
        sft_shards = max(1, round(self.minutes * SFT_PICTURES / data.SHARD))
        return self.dense_pictures + sft_shards * data.SHARD


@dataclass(frozen=True)
class Score:
    """How many verdicts were right on pictures whose truth is known."""

    pictures: int
    balanced_accuracy: float | None
    escape_rate: float | None
    overkill_rate: float | None

    @classmethod
    def of(cls, said: Sequence[bool | None], anomalous: Sequence[bool]) -> "Score":
        """Of verdicts (None: malformed) and the truth; None where a class is not there."""
        bad = [verdict for verdict, truth in zip(said, anomalous, strict=True) if truth]
        good = [verdict for verdict, truth in zip(said, anomalous, strict=True) if not truth]
        caught, passed = _share(bad, True), _share(good, False)
        return cls(
            pictures=len(said),
            balanced_accuracy=None if caught is None or passed is None else (caught + passed) / 2,
            escape_rate=_share(bad, False),
            overkill_rate=_share(good, True),
        )

    def __str__(self) -> str:
        figures = {
            "balanced accuracy": self.balanced_accuracy,
            "escapes": self.escape_rate,
            "overkill": self.overkill_rate,
        }
        told = (f"{n} {'unknown' if v is None else f'{v:.3f}'}" for n, v in figures.items())
        return f"{self.pictures} pictures: {', '.join(told)}"


def train_product(
    directory: Path,
    out: Path,
    config: ProductConfig | None = None,
    *,
    base: Path = EMBEDDED,
    threads: int = 1,
    say: Say = print,
) -> Path:
    """Train a model for the product in `directory` into `out`; returns the model folder.

    `out` may be gone on with by the same call. `threads` processes share the work.

    Raises:
        RecipeError, UsageError: the kit cannot be used (see `kit.read` and `scenes.refuse_unfit`),
            or `out` holds a run of another kit or configuration, or cannot be written.
        ModelError: `base` is no pocket model.
        PrerequisiteError: the disk is full; what is whole stays, and is gone on from.
    """
    config = config or ProductConfig()
    base = bases.find_pocket(str(base))
    kit = kits.read(directory)
    scenes.refuse_unfit(kit)
    examples = _examples(directory)
    logging.disable_progress_bar()
    torch.set_flush_denormal(True)
    torch.set_num_threads(threads)
    bound = _Bound(config, kit.product, kit.digest, fingerprint(base))
    bind(out, bound)
    runs.begin_staged(
        out,
        "product",
        config.seed,
        base=base,
        fingerprint=bound.base,
        data={kit.product: kit.digest},
    )
    say(f"{kit.product}: {_told(kit)}")
    clock = Clock(out, say)
    started = _Started(directory, base)
    processes = whole_share(threads)
    with clock.stage("pictures") as shown:
        draw = partial(scenes.picture, kit)
        told = shown.shards("pictures", data.SHARD)
        data.make(out / "pictures", config.pictures, config.seed, threads, told, draw)
        told = shown.shards("validation pictures", data.SHARD)
        data.make(out / "validation", data.SHARD, config.seed + 1, threads, told, draw)
    with clock.stage("dense"):
        if not (out / "dense.whole").exists():
            share(processes, _dense_process, out, config, started)
    net, processor, _ = open_base(base, kit)
    head = dense.load(net, dense_path(out), vocabulary(kit))
    with clock.stage("features"):
        read = _head_reads(net, head, kit, out)
        say(f"dense: pictures read wholly right by the head: {shares_read(read)}")
        clock.result("head_reads", read)
        if not (out / "features.safetensors").exists():
            share(processes, _features_process, out, config, started)
    for stage in (config.captions, config.rules):
        with clock.stage(stage.stage):
            if not language_path(out, stage).exists():
                share(processes, _sft_process, out, config, started, stage)
            net.model.language_model.load_state_dict(load_file(language_path(out, stage)))
            ask = partial(_answers, out, kit, stage.stage, processor, net)
            samples.keep(out, stage.stage, ask)
    with runs.with_room(out):
        model = export(out, net, processor, head, kit, config, base, clock.seconds())
    with clock.stage("trial"):
        scores = trial(model, kit, examples, config.seed + 4)
    for name, score in scores.items():
        clock.result(name, asdict(score))
        say(f"{name}: {score}")
    return model


def open_base(base: Path, kit: Kit) -> tuple[Qwen2_5_VLForConditionalGeneration, Any, ObjectHead]:
    """The base with the kit's words added, its processor, and a new object head for the kit.

    What the base's own head knows of places, and of nouns that both have, the new one starts from.
    """
    witness = load_witness(base)
    assert witness is not None  # every pocket model keeps one
    known = load_checkpoint(base, device="cpu")
    processor = widened(base, texts.words(kit))
    shape = known.model.config.to_dict()
    shape["text_config"]["vocab_size"] = len(processor.tokenizer)
    torch.manual_seed(0)
    # Built anew: transformers resumes from its own checkpoints under its own names alone.
    net = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(**shape)).to(torch.float32)
    net.generation_config = known.model.generation_config
    net.model.visual.load_state_dict(known.model.model.visual.state_dict())
    language = dict(known.model.model.language_model.state_dict())
    table = net.model.language_model.embed_tokens.weight.detach().clone()
    old = language["embed_tokens.weight"]
    table[: len(old)] = old
    net.model.language_model.load_state_dict(language | {"embed_tokens.weight": table})
    head = ObjectHead(shape["text_config"]["hidden_size"], vocabulary(kit))
    with torch.no_grad():
        head.position.load_state_dict(witness.head.position.state_dict())
        for row, noun in enumerate(head.words.nouns):
            if noun in witness.head.words.nouns:
                at = witness.head.words.nouns.index(noun)
                head.cells.weight[2 * row : 2 * row + 2] = witness.head.cells.weight[
                    2 * at : 2 * at + 2
                ]
    return net, processor, head


def vocabulary(kit: Kit) -> Vocabulary:
    """What the kit's object head can name."""
    return Vocabulary((kit.product, NOTHING), kit.nouns, kit.values)


@torch.no_grad()
def ground(
    net: Qwen2_5_VLForConditionalGeneration, head: ObjectHead, processor: Any, first: int
) -> None:
    """Start the embeddings of new words (ids from `first` on) from the head's weights for them.

    As `pocket.sft.ground`, but what the base has learned is left as it is.
    """
    table = net.model.language_model.embed_tokens.weight
    length = table[:first].norm(dim=1).median()
    rows: dict[str, list[Tensor]] = {}
    for noun, row in zip(head.words.nouns, head.cells.weight[0::2], strict=True):
        one = rationale.write_rule(Count(noun, 1)).removeprefix("exactly 1 ")
        for word in {*noun.split(), *one.split()}:
            rows.setdefault(word, []).append(row)
    values = [value for named in head.words.attributes.values() for value in named]
    for value, row in zip(values, head.attributes.weight, strict=True):
        rows.setdefault(value, []).append(row)
    for word in head.words.products[0].split("_"):
        rows.setdefault(word, []).append(head.product.weight[0])
    for word, found in rows.items():
        ids = processor.tokenizer(f" {word}", add_special_tokens=False)["input_ids"]
        if len(ids) == 1 and ids[0] >= first:
            mean = torch.stack(found).mean(0)
            table[ids[0]] = mean / mean.norm() * length


def export(
    out: Path,
    net: Qwen2_5_VLForConditionalGeneration,
    processor: Any,
    head: ObjectHead,
    kit: Kit,
    config: ProductConfig,
    base: Path,
    seconds: Mapping[str, float],
) -> Path:
    """Write the model folder: weights, processor, witness and `model_card.json`."""
    card = {
        "name": kit.product,
        "architecture": "Qwen2_5_VLForConditionalGeneration",
        "parameters": sum(p.numel() for p in net.parameters()),
        "products": [kit.product],
        "image_size": IMAGE_SIZE,
        "rules": [rule.text for rule in kit.recipe.rules],
        "base": fingerprint(base),
        "licence": bases.licence(Base(base, None)),
        "made_by": f"lad-agent train product DIR --seed {config.seed}",
        "data": f"scenes composed of {_told(kit)}",
        "configuration": asdict(config),
        "seconds": dict(seconds),
    }
    return write_model(out / "model", net, processor, head, {kit.product: kit.nouns}, card)


def trial(model: Path, kit: Kit, examples: Iterable[Example], seed: int) -> dict[str, Score]:
    """Verdicts on composed pictures that no training used, and on the user's own if there are any.

    Raises:
        UnreadableInput: one of the user's pictures cannot be read.
    """
    reasoner = TransformersReasoner(model, device="cpu")
    composed = []
    for index in range(2 * TRIED):
        rng = np.random.default_rng([seed, index, 0x0B0E])
        photo = scenes.shoot(rng, kit, "normal" if index % 2 else "logical", IMAGE_SIZE)
        facts = scenes.facts_of(kit, photo)
        statements = rationale.clauses(kit.product, kit.recipe.rules, facts)
        composed.append((Image.fromarray(photo.image), any(not s.ok for s in statements)))
    own = []
    for example in examples:
        picture = images.read(example.image).image
        own.append((images.prepare(picture, kit.recipe.region, IMAGE_SIZE), example.anomalous))
    named = {"composed": composed, "own pictures": own}
    return {name: _score(reasoner, kit, found) for name, found in named.items() if found}


@dataclass(frozen=True)
class _Bound:
    """What a run folder belongs to."""

    config: ProductConfig
    product: str
    kit: str
    base: str


@dataclass(frozen=True)
class _Started:
    """What every process opens for itself."""

    directory: Path
    base: Path

    def open(self) -> tuple[Kit, Qwen2_5_VLForConditionalGeneration, Any, ObjectHead]:
        kit = kits.read(self.directory)
        return kit, *open_base(self.base, kit)


def _dense_process(out: Path, config: ProductConfig, started: _Started) -> None:
    """One of the processes that train the tower together."""
    _, net, _, head = started.open()
    pictures = data.load(out / "pictures", config.dense_pictures)

    def probe(folder: Path) -> float:
        times: list[float] = []
        tried, own = copy.deepcopy(net), copy.deepcopy(head)
        short = replace(config.dense, steps=PROBE + 1)
        log = partial(_note_time, times)
        begin = time.monotonic()
        dense.train(tried, pictures, short, dense_path(folder), log, own)
        # The first step waits for memory; only the first process hears of it.
        spent = times[-1] - times[0] if len(times) > 1 else time.monotonic() - begin
        return spent / PROBE

    steps = planned(out, config, "dense", probe)
    log = Clock(out).log("dense", steps)
    long = replace(config.dense, steps=steps, warmup=_warmup(config.dense.warmup, steps))
    dense.train(net, pictures, long, dense_path(out), log, head)
    if dense.place()[0] == 0:
        (out / "dense.whole").touch()


def _features_process(out: Path, config: ProductConfig, started: _Started) -> None:
    """One of the processes that make the tower's tokens of the pictures for fine-tuning, and of
    references."""
    kit, net, _, _ = started.open()
    dense.load(net, dense_path(out), vocabulary(kit))
    pictures = data.load(out / "pictures", config.pictures)
    queries = sft.shared_tokens(net, pictures, np.arange(config.dense_pictures, len(pictures)))
    if not runs.first_process():
        return
    shown = [*kit.references, *(_normal(kit, config.seed + 2, n) for n in range(REFERENCES))]
    normal = data.Pictures((np.stack(shown),), (), ())
    references = sft.tokens(net, normal, np.arange(len(shown)))
    tokens = {"queries": queries, kit.product: references}
    write_tensors(out / "features.safetensors", tokens)


def _sft_process(out: Path, config: ProductConfig, started: _Started, stage: SftConfig) -> None:
    """One of the processes that train the language model together."""
    kit, net, processor, _ = started.open()
    head = dense.load(net, dense_path(out), vocabulary(kit))
    if stage.stage == "captions":
        first = len(load_checkpoint(started.base, device="cpu").processor.tokenizer)
        ground(net, head, processor, first)
    else:
        net.model.language_model.load_state_dict(load_file(language_path(out, config.captions)))
    facts = data.load(out / "pictures", config.pictures).facts
    tokens = load_file(out / "features.safetensors")
    queries = sft.Features(tokens.pop("queries"), facts[config.dense_pictures :])
    draw = partial(texts.draw, kit)

    def probe(folder: Path) -> float:
        timer, short = _Timer(), replace(stage, steps=PROBE)
        tried = copy.deepcopy(net)
        sft.train(tried, processor, queries, tokens, short, folder, [timer], draw)
        return float(np.mean(np.diff(timer.times)))

    steps = planned(out, config, stage.stage, probe)
    log = Clock(out).log(stage.stage, steps)
    long = replace(stage, steps=steps, warmup=_warmup(stage.warmup, steps))
    sft.train(net, processor, queries, tokens, long, out / stage.stage, [Lines(log)], draw)
    if dense.place()[0] == 0:
        state = net.model.language_model.state_dict()
        write_tensors(language_path(out, stage), {n: v.contiguous() for n, v in state.items()})


def _answers(
    out: Path,
    kit: Kit,
    stage: sft.Stage,
    processor: Any,
    net: Qwen2_5_VLForConditionalGeneration,
) -> list[dict[str, Any]]:
    """What the model says of the first validation pictures, in texts of a stage."""
    pictures = data.load(out / "validation", data.SHARD)
    references = {kit.product: np.stack(kit.references)}
    draw = partial(texts.sample, kit)
    return samples.answers(net, processor, pictures, references, stage, draw)


def planned(out: Path, config: ProductConfig, stage: str, probe: Callable[[Path], float]) -> int:
    """Steps of a stage: as many as its share of the time left allows, by timing a few.

    Kept in the run folder, so that a resumed run has the same schedule. Within a torch.distributed
    group all processes time together and take the first one's plan.
    """
    path = out / f"{stage}.steps"
    if config.steps is None and not path.exists():
        with tempfile.TemporaryDirectory() as tried:
            seconds = probe(Path(tried))
        left = 60 * config.minutes - sum(Clock(out).seconds().values())
        steps = max(PROBE, int(SHARES[stage] * left / seconds))
        if dense.place()[0] == 0:
            atomic.write(path, f"{steps}\n")
            Clock(out).write({"stage": stage, "seconds_a_step": seconds})
        if distributed.is_initialized():
            distributed.barrier()
    return config.steps or int(path.read_text(encoding="utf-8"))


def _warmup(wanted: int, steps: int) -> int:
    return max(1, min(wanted, steps // 10))


class _Timer(TrainerCallback):  # type: ignore[misc]
    """When each step ended."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.times.append(time.monotonic())


def _head_reads(
    net: Qwen2_5_VLForConditionalGeneration, head: ObjectHead, kit: Kit, out: Path
) -> dict[str, float]:
    pictures = data.load(out / "validation", data.SHARD)
    return dense.measure(net, head, pictures, len(pictures), {kit.product: kit.nouns})


def _normal(kit: Kit, seed: int, number: int) -> data.Pixels:
    """A composed picture in which every rule holds."""
    rng = np.random.default_rng([seed, number, 0x0B0E])
    return scenes.shoot(rng, kit, "normal", IMAGE_SIZE).image


def _examples(directory: Path) -> tuple[Example, ...]:
    """The user's own pictures with their verdicts, if there are any: examined as lessons are."""
    if not own_pictures.recognises(directory):
        return ()
    found = check.examine([open_source(directory)])
    if found.faults:
        raise UsageError(" | ".join(found.faults))
    return found.examples


def _score(
    reasoner: TransformersReasoner, kit: Kit, pictures: list[tuple[Image.Image, bool]]
) -> Score:
    # More rationales change the score and the confidence, not the verdict.
    recipe = replace(kit.recipe, policy=kit.recipe.policy.model_copy(update={"samples": 0}))
    asked = [
        Question(recipe, image, hashlib.sha256(image.tobytes()).hexdigest())
        for image, _ in pictures
    ]
    said = [judged.anomalous for judged in reasoner.judge_batch(asked)]
    return Score.of(said, [anomalous for _, anomalous in pictures])


def _share(said: Sequence[bool | None], verdict: bool) -> float | None:
    return float(np.mean([v is verdict for v in said])) if said else None


def _note_time(times: list[float], values: Mapping[str, float]) -> None:
    times.append(time.monotonic())


def _told(kit: Kit) -> str:
    cuts = {noun: len(found) for noun, found in kit.parts.items()}
    for subject, values in kit.things.items():
        cuts |= {f"{subject} {value}": len(found) for value, found in values.items()}
    told = ", ".join(f"{number} {name}" for name, number in cuts.items())
    return f"cut-outs of {told}; {len(kit.fixtures)} fixtures"


def shortened(steps: int) -> ProductConfig:
    """A run of a few steps that goes through every stage: for tests and dry runs."""
    config = ProductConfig(minutes=1, steps=steps)
    return replace(
        config,
        dense=replace(config.dense, batch=8),
        captions=replace(config.captions, batch=8),
        rules=replace(config.rules, batch=8),
    )
