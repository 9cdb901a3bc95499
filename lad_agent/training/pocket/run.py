"""`lad-agent train pocket`: from nothing but SynLOCO to a model folder that `inspect` uses.

Each stage leaves its result in the run folder and is skipped when it is there: stopped at any
moment, the same command goes on. The folder `model` inside is the model: copy it, or name it with
`inspect --reasoner`. Of several rounds, `round-1`, `round-2`, ... inside are the run folders.
"""

import json
import os
import platform
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, distributed
from torch.multiprocessing.spawn import spawn
from transformers import Qwen2_5_VLForConditionalGeneration, TrainerCallback
from transformers.utils import logging

from lad_agent import atomic
from lad_agent.errors import UsageError
from lad_agent.reasoners.fingerprints import fingerprint
from lad_agent.reasoners.witness import ObjectHead, load_witness
from lad_agent.training import bases, curves, runs, synloco
from lad_agent.training.bases import Base
from lad_agent.training.following import Following, Say
from lad_agent.training.pocket import architecture, averaging, data, dense, joint, samples, sft
from lad_agent.training.pocket.dense import DenseConfig
from lad_agent.training.pocket.sft import SftConfig

APART = 10
"""Seeds from a round to the next: its own and the two after it are those of a round's pictures."""
LATER_STEPS = 5000
"""Of the last stage in every round after the first."""


@dataclass(frozen=True)
class PocketConfig:
    """The whole recipe of the pocket model."""

    width: int = 192
    layers: int = 4
    seed: int = 20
    dense_pictures: int = 50_000
    sft_pictures: int = 24_000
    validation_pictures: int = 1_000
    dense: DenseConfig = field(default_factory=lambda: DenseConfig(steps=10_000))
    lookups: SftConfig = field(
        default_factory=lambda: SftConfig("lookups", steps=1100, batch=32, decay_share=0.25)
    )
    captions: SftConfig = field(default_factory=lambda: SftConfig("captions", steps=800))
    rules: SftConfig = field(default_factory=lambda: SftConfig("rules", steps=2000))
    joint: DenseConfig = field(
        default_factory=lambda: DenseConfig(
            steps=3000, learning_rate=1e-3, warmup=100, save_every=200
        )
    )
    base: str = ""
    """Fingerprint of the model that the joint stage goes on from, "" after the stages before it."""


def train_pocket(
    out: Path,
    config: PocketConfig | None = None,
    *,
    base: Path | None = None,
    threads: int | None = None,
    say: Say = print,
) -> Path:
    """Train the pocket model into `out`; returns the model folder.

    With `base`, the folder of a pocket model, only the joint stage is run, on new pictures: choose
    another seed than that model's.

    Raises:
        UsageError: `out` holds a run of another configuration, or cannot be written; `base` is of
            another size or for other products, or was made with the same seed.
        ModelError: `base` is no pocket model.
        PrerequisiteError: the disk is full; what is whole stays, and is gone on from.
    """
    config = config or PocketConfig()
    if base is not None:
        base = bases.find_pocket(str(base))
        config = replace(config, base=_checked(base, config))
    logging.disable_progress_bar()
    torch.set_flush_denormal(True)
    workers = threads or os.cpu_count() or 1
    torch.set_num_threads(workers)
    bind(out, config)
    runs.begin_staged(
        out,
        "pocket",
        config.seed,
        base=base,
        fingerprint=config.base,
        data={"pictures": _pictures(config), "validation": config.validation_pictures},
    )
    clock = Clock(out, say)
    make_pictures(out, config, clock, workers)
    processes = whole_share(workers)
    if base is None:
        _stages(out, config, clock, processes)
    with clock.stage("joint"):
        if not dense.finished(_joint_path(out), config.joint):
            share(processes, _joint_process, out, config, base)
        processor, net = _network(config)
        head = ObjectHead(config.width, dense.WORDS)
        joint.load(net, head, _joint_path(out))
        samples.keep(out, "joint", partial(_answers, out, config, "rules", processor, net))
    validation = data.load(out / "validation", config.validation_pictures)
    read = dense.measure(net, head, validation, len(validation))
    say(f"joint: pictures read wholly right by the head: {shares_read(read)}")
    with runs.with_room(out):
        clock.result("head_reads", read)
        return export(out, net, processor, head, config, clock.seconds(), base)


def train_rounds(
    out: Path,
    config: PocketConfig,
    number: int,
    *,
    later_steps: int = LATER_STEPS,
    base: Path | None = None,
    threads: int | None = None,
    say: Say = print,
) -> Path:
    """`number` rounds, each going on from the one before by the last stage, on new pictures.

    Returns the model folder: the mean of the last two rounds' models (see `averaging`).

    Raises:
        As `train_pocket` and `averaging.average`.
    """
    base = bases.find_pocket(str(base)) if base else None
    began = _checked(base, config) if base else ""
    bind(out, _Rounds(config, number, later_steps, began))
    runs.begin_staged(
        out,
        "pocket",
        config.seed,
        base=base,
        fingerprint=began,
        data={"rounds": number},
    )
    Clock(out)  # what makes it a run's folder, though each round measures in its own
    later = prolonged(later_steps)
    later = replace(config, joint=later.joint, sft_pictures=later.sft_pictures)
    models: list[Path] = []
    for n in range(number):
        own = replace(later, seed=config.seed + APART * n) if n else config
        say(f"round {n + 1} of {number}")
        model = train_pocket(out / f"round-{n + 1}", own, base=base, threads=threads, say=say)
        models, base = [*models, model], model
    if not (out / "model").exists():
        averaging.average([str(model) for model in models[-2:]], out / "model")
    return out / "model"


@dataclass(frozen=True)
class _Rounds:
    """What a folder of rounds belongs to."""

    config: PocketConfig
    rounds: int
    later_steps: int
    base: str


def make_pictures(out: Path, config: PocketConfig, clock: "Clock", workers: int) -> None:
    """Those to learn from and those of validation, by as many processes."""
    with clock.stage("pictures") as shown:
        told = shown.shards("pictures", data.SHARD)
        data.make(out / "pictures", _pictures(config), config.seed, workers, told)
        told = shown.shards("validation pictures", data.SHARD)
        data.make(out / "validation", config.validation_pictures, config.seed + 1, workers, told)


def _stages(out: Path, config: PocketConfig, clock: "Clock", processes: int) -> None:
    """Everything before the joint stage: the tower alone, then the language model alone."""
    with clock.stage("dense"):
        if not dense.finished(dense_path(out), config.dense):
            share(processes, _dense_process, out, config)
    language(out, config, (config.lookups, config.captions, config.rules), clock, processes)


def language(
    out: Path, config: PocketConfig, stages: Sequence[SftConfig], clock: "Clock", processes: int
) -> None:
    """The language model alone, stage after stage, on the tower that `dense_path` holds."""
    with clock.stage("features"):
        if not (out / "features.safetensors").exists():
            share(processes, _features_process, out, config)
    before: SftConfig | None = None
    for stage in stages:
        with clock.stage(stage.stage):
            if not language_path(out, stage).exists():
                share(processes, _sft_process, out, config, stage, before)
            if stage.stage != "lookups":  # of no picture
                samples.keep(out, stage.stage, partial(_language_answers, out, config, stage))
        before = stage


def whole_share(workers: int) -> int:
    """How many processes share a step's prompts evenly."""
    return max(n for n in (1, 2, 4, 8) if n <= workers)


def share(processes: int, work: Callable[..., None], out: Path, *arguments: object) -> None:
    """Let `processes` of one thread each do `work` together, with torch.distributed.

    They train twice as fast as one process of as many threads: the operations of a model this
    small are too short to split.
    """
    if processes == 1:
        work(out, *arguments)
        return
    (out / "meeting").unlink(missing_ok=True)
    spawn(_member, (processes, work, out, *arguments), nprocs=processes)  # type: ignore[no-untyped-call]


def _member(
    rank: int, world: int, work: Callable[..., None], out: Path, *arguments: object
) -> None:
    # When the first process is killed, torch has SIGINT sent to these, which a shell's background
    # ignores; they would train on, and write into the folder of the run that is gone on with.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    logging.disable_progress_bar()  # transformers' own, when a checkpoint is written
    torch.set_flush_denormal(True)
    torch.set_num_threads(1)
    # The trainer's own setting up (accelerate) reads these.
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "OMP_NUM_THREADS": "1"}
    meeting = (out / "meeting").resolve()
    distributed.init_process_group("gloo", f"file://{meeting}", rank=rank, world_size=world)
    work(out, *arguments)
    distributed.destroy_process_group()


def _network(config: PocketConfig) -> tuple[Any, Qwen2_5_VLForConditionalGeneration]:
    """The processor, and the model as every process starts it."""
    processor = architecture.processor()
    net = architecture.model(
        processor.tokenizer, seed=config.seed, width=config.width, layers=config.layers
    )
    return processor, net


def _pictures(config: PocketConfig) -> int:
    return config.sft_pictures if config.base else config.dense_pictures + config.sft_pictures


def _checked(base: Path, config: PocketConfig) -> str:
    """The fingerprint of a base that can be gone on from."""
    witness = load_witness(base)
    assert witness is not None  # every pocket model keeps one
    if witness.head.words != dense.WORDS:
        raise UsageError(f"{base}: made for other products; give a pocket model")
    made = bases.card(Base(base, None)).get("configuration")
    if not isinstance(made, dict):
        raise UsageError(f"{base}: model_card.json does not say how it was made")
    for name in ("width", "layers"):
        if made.get(name) != getattr(config, name):
            raise UsageError(f"{base}: its {name} is {made.get(name)}, not {getattr(config, name)}")
    if made.get("seed") == config.seed:
        raise UsageError(f"{base} was made with seed {config.seed}; name another with --seed")
    return fingerprint(base)


def _start(
    out: Path, config: PocketConfig, base: Path | None
) -> tuple[Any, Qwen2_5_VLForConditionalGeneration, ObjectHead]:
    """Processor, model and heads as the joint stage starts them: those of `base`, or of the
    stages before."""
    processor, net = _network(config)
    if base is None:
        head = dense.load(net, dense_path(out))
        net.model.language_model.load_state_dict(load_file(language_path(out, config.rules)))
        return processor, net, head
    opened = Qwen2_5_VLForConditionalGeneration.from_pretrained(base, local_files_only=True)
    net.load_state_dict(opened.state_dict())
    witness = load_witness(base)
    assert witness is not None  # as checked at the start
    return processor, net, witness.head


def _joint_process(out: Path, config: PocketConfig, base: Path | None) -> None:
    """One of the processes that train the whole model together."""
    processor, net, head = _start(out, config, base)
    pictures = data.load(out / "pictures", _pictures(config))
    log = Clock(out).log("joint", config.joint.steps)
    joint.train(
        net, head, processor, pictures, config.joint, _joint_path(out), log, config.seed + 2
    )


def _joint_path(out: Path) -> Path:
    return out / "joint.safetensors"


def _dense_process(out: Path, config: PocketConfig) -> None:
    """One of the processes that train the tower together."""
    _, net = _network(config)
    pictures = data.load(out / "pictures", config.dense_pictures)
    log = Clock(out).log("dense", config.dense.steps)
    dense.train(net, pictures, config.dense, dense_path(out), log)


def _features_process(out: Path, config: PocketConfig) -> None:
    """One of the processes that make the tower's tokens of the pictures for fine-tuning, and of
    each product's references."""
    _, net = _network(config)
    dense.load(net, dense_path(out))
    pictures = data.load(out / "pictures", config.dense_pictures + config.sft_pictures)
    rows = np.arange(config.dense_pictures, len(pictures))
    tokens = {"queries": sft.shared_tokens(net, pictures, rows)}
    if not runs.first_process():
        return
    for product in synloco.PRODUCTS:
        images = [data.reference(product, config.seed + 2, n) for n in range(data.REFERENCES)]
        normal = data.Pictures((np.stack(images),), (), ())
        tokens[product] = sft.tokens(net, normal, np.arange(len(images)))
    write_tensors(out / "features.safetensors", tokens)


def _sft_process(
    out: Path, config: PocketConfig, stage: SftConfig, before: SftConfig | None
) -> None:
    """One of the processes that train the language model together, from where the stage before
    has left it."""
    processor, net = _network(config)
    head = dense.load(net, dense_path(out))
    sft.ground(net, head, processor.tokenizer)
    if before is not None:
        net.model.language_model.load_state_dict(load_file(language_path(out, before)))
    tokens: dict[str, Tensor] = {}
    queries = sft.NO_PICTURES
    if stage.stage != "lookups":
        facts = data.load(out / "pictures", config.dense_pictures + config.sft_pictures).facts
        tokens = load_file(out / "features.safetensors")
        queries = sft.Features(tokens.pop("queries"), facts[config.dense_pictures :])
    log = Clock(out).log(stage.stage, stage.steps)
    sft.train(net, processor, queries, tokens, stage, out / stage.stage, [Lines(log)])
    if dense.place()[0] == 0:
        state = net.model.language_model.state_dict()
        write_tensors(
            language_path(out, stage), {name: value.contiguous() for name, value in state.items()}
        )


def _language_answers(out: Path, config: PocketConfig, stage: SftConfig) -> list[dict[str, Any]]:
    """What the model says after a stage of the language model."""
    processor, net = _network(config)
    dense.load(net, dense_path(out))
    net.model.language_model.load_state_dict(load_file(language_path(out, stage)))
    return _answers(out, config, stage.stage, processor, net)


def _answers(
    out: Path,
    config: PocketConfig,
    stage: sft.Stage,
    processor: Any,
    net: Qwen2_5_VLForConditionalGeneration,
) -> list[dict[str, Any]]:
    """What the model says of the first validation pictures, in texts of a stage."""
    pictures = data.load(out / "validation", config.validation_pictures)
    references = {p: data.reference(p, config.seed + 2, 0)[None] for p in synloco.PRODUCTS}
    return samples.answers(net, processor, pictures, references, stage, sft.sample)


def export(
    out: Path,
    net: Qwen2_5_VLForConditionalGeneration,
    processor: Any,
    head: ObjectHead,
    config: PocketConfig,
    seconds: Mapping[str, float],
    base: Path | None = None,
) -> Path:
    """Write the model folder: weights, processor, witness and `model_card.json`.

    The card tells how `base` was made too, as its own card has it.
    """
    metrics = runs.read_lines(out / "metrics.jsonl")
    last = {entry["stage"]: entry for entry in metrics if "step" in entry}
    card = {
        "name": "pocket",
        "architecture": "Qwen2_5_VLForConditionalGeneration",
        "parameters": sum(p.numel() for p in net.parameters()),
        "products": list(synloco.PRODUCTS),
        "image_size": architecture.IMAGE_SIZE,
        "made_by": f"lad-agent train pocket OUT --seed {config.seed}"
        + (" --base MODEL" if config.base else ""),
        "licence": bases.POCKET_LICENCE,
        "data": "SynLOCO, and nothing else",
        "configuration": asdict(config),
        "seconds": dict(seconds),
        "last_losses": last,
        "head_reads": next((e["head_reads"] for e in metrics[::-1] if "head_reads" in e), {}),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }
    if base is not None:
        told = bases.card(Base(base, None))
        card["base"] = {name: value for name, value in told.items() if name != "figures"}
    nouns = {product: synloco.classes(product) for product in synloco.PRODUCTS}
    return write_model(out / "model", net, processor, head, nouns, card)


def write_model(
    folder: Path,
    net: Qwen2_5_VLForConditionalGeneration,
    processor: Any,
    head: ObjectHead,
    product_nouns: Mapping[str, Sequence[str]],
    card: Mapping[str, Any],
) -> Path:
    """Write a model folder with its witness and card; what is there already stays until the new one
    is whole. `product_nouns` are those that the head is asked for in each product's pictures."""
    described = {
        "width": net.config.text_config.hidden_size,
        "products": head.words.products,
        "nouns": head.words.nouns,
        "attributes": head.words.attributes,
        "product_nouns": dict(product_nouns),
    }
    with atomic.new_folder(folder) as part:
        net.save_pretrained(part)
        processor.save_pretrained(part)
        weights = {name: value.contiguous() for name, value in head.state_dict().items()}
        save_file(weights, part / "witness.safetensors")
        (part / "witness.json").write_text(json.dumps(described, indent=1), encoding="utf-8")
        told = json.dumps(card, indent=1) + "\n"
        (part / "model_card.json").write_text(told, encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
    return folder


def bind(out: Path, config: Any) -> None:
    """Bind the folder to this configuration, or refuse."""
    written, wanted = out / "config.json", json.dumps(asdict(config), indent=1)
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not written.exists():
            atomic.write(written, wanted)
        elif written.read_text(encoding="utf-8") != wanted:
            raise UsageError(
                f"{out} holds a run of another configuration; name a new folder to start anew"
            )
    except OSError as error:
        raise UsageError(f"{out}: cannot be written ({error.strerror})") from error


def dense_path(out: Path) -> Path:
    """Where the tower and its heads lie."""
    return out / "dense.safetensors"


def language_path(out: Path, stage: SftConfig) -> Path:
    """Where a stage leaves the language model."""
    return out / f"{stage.stage}.safetensors"


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    part = path.with_suffix(".part")
    save_file(tensors, part)
    part.replace(path)


def shares_read(read: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {share:.3f}" for name, share in read.items())


class Lines(TrainerCallback):  # type: ignore[misc]
    """Hands the trainer's log entries on."""

    def __init__(self, log: Callable[[Mapping[str, float]], None]) -> None:
        self.entry = log

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if state.is_world_process_zero and logs and "loss" in logs:
            keep = ("loss", "learning_rate", "mean_token_accuracy", "grad_norm")
            self.entry(
                {"step": state.global_step, **{k: float(logs[k]) for k in keep if k in logs}}
            )


class Clock:
    """Seconds a stage over all sessions, killed ones too, and the run's `metrics.jsonl`."""

    def __init__(self, out: Path, say: Say = print) -> None:
        self.path, self.say = out / "metrics.jsonl", say
        self.path.touch()

    @contextmanager
    def stage(self, name: str) -> Iterator[Following]:
        """A stage goes on in here: what its processes log is shown; at the end it is drawn.

        Raises:
            PrerequisiteError: the disk is full.
        """
        with runs.with_room(self.path.parent):
            yield from self._stage(name)

    def _stage(self, name: str) -> Iterator[Following]:
        started = time.monotonic()
        self.say(f"{name}: starts")
        try:
            with Following(self.path.parent, name, self.say) as following:
                yield following
        finally:
            spent = time.monotonic() - started
            self.write({"name": name, "spent": spent})
            self.say(f"{name}: {spent:.0f} s")
        if following.measured:
            curves.write_stages(self.path.parent, self.path.with_name("curves.png"))

    def log(self, stage: str, steps: int) -> Callable[[Mapping[str, float]], None]:
        """Writes what is measured in a stage of so many steps."""
        started = time.monotonic()
        if runs.first_process():
            self.write({"stage": stage, "steps": steps})

        def entry(values: Mapping[str, float]) -> None:
            self.write({"stage": stage, **values, "seconds": time.monotonic() - started})

        return entry

    def result(self, name: str, value: object) -> None:
        self.write({name: value})

    def write(self, entry: Mapping[str, object]) -> None:
        runs.add_line(self.path, entry)

    def seconds(self) -> dict[str, float]:
        spent: Counter[str] = Counter()
        running: Counter[str] = Counter()
        for entry in runs.read_lines(self.path):
            if "spent" in entry:
                spent[entry["name"]] += entry["spent"]
                del running[entry["name"]]
            elif "seconds" in entry:
                stage, seconds = entry["stage"], entry["seconds"]
                if seconds < running[stage]:  # killed: all that is known of it is its last line
                    spent[stage] += running[stage]
                running[stage] = seconds
        return {name: round(value, 1) for name, value in spent.items()}


def shortened(steps: int) -> PocketConfig:
    """A run of a few steps that goes through every stage: for tests and dry runs."""
    config = PocketConfig(dense_pictures=1000, sft_pictures=1000, validation_pictures=1000)
    return replace(
        config,
        dense=replace(config.dense, steps=steps, batch=8),
        captions=replace(config.captions, steps=steps, batch=8, warmup=1),
        lookups=replace(config.lookups, steps=steps, batch=8, warmup=1),
        rules=replace(config.rules, steps=steps, batch=8, warmup=1),
        joint=replace(config.joint, steps=steps, batch=8, warmup=1),
    )


def prolonged(steps: int) -> PocketConfig:
    """Some steps of the joint stage, for a run with a base: no more pictures than prompts."""
    config = PocketConfig()
    joint = replace(config.joint, steps=steps)
    return replace(config, joint=joint, sft_pictures=min(config.sft_pictures, steps * joint.batch))
