"""What a training run is made from: one short YAML file, checked before anything is loaded.

    base: pocket
    adapter: lora
    sft: {steps: 500, batch: 16}

Every key has a default but `base`; the shipped files (`SHIPPED`) say what each is for.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from lad_agent import nearest
from lad_agent.errors import NotFound, UsageError

FOLDER = Path(__file__).parent / "configs"
SHIPPED = ("pocket", "qwen2.5-vl-3b-lora", "qwen2.5-vl-3b-full", "qwen2.5-vl-7b-lora")
"""Names of the configurations that come with the package."""

Stage = Literal["sft", "grpo"]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0.0, lt=1.0)]
Weight = Annotated[float, Field(ge=0.0)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Lora(_Strict):
    """Low-rank adapters on every linear layer of the language model (adapter: lora)."""

    rank: Count = 16
    alpha: Count = 32
    dropout: Share = 0.05


class Data(_Strict):
    """Folders or CSV files that `training.sources.open_source` reads; with `reviews` people's
    findings too. `held_out` is judged before and after, and never learned from."""

    paths: tuple[Path, ...] = ()
    reviews: bool = False
    held_out: Path | None = None


class Texts(_Strict):
    """Shares of what a picture is asked, drawn anew each time it comes up.

    `caption` lists all that is in it, `question` some of that, `inspection` is the very message of
    serving. `other_rules` is the share of inspections, of pictures whose content is known, whose
    rules are changed, so that the answer has to come from the picture.
    """

    caption: Share = 0.3
    question: Share = 0.2
    inspection: Share = 0.5
    other_rules: Share = 0.5

    @model_validator(mode="after")
    def _sums_to_one(self) -> "Texts":
        total = self.caption + self.question + self.inspection
        if abs(total - 1.0) > 1e-6:
            raise ValueError(f"caption, question and inspection sum to {total:g}, not to 1")
        return self


class Sft(_Strict):
    """Supervised fine-tuning. A step is `batch` texts over all processes, `micro` at a time."""

    steps: Count = 1000
    batch: Count = 16
    micro: Count = 4
    learning_rate: Rate = 1e-4
    warmup: int = Field(default=50, ge=0)
    weight_decay: float = Field(default=0.01, ge=0.0)
    texts: Texts = Texts()


class Grpo(_Strict):
    """Group relative policy optimisation. A step is `prompts` groups of `num_generations` answers
    over all processes, `micro` answers at a time.

    `rewards` maps a reward's name to its weight, 0 or more. `beta` weighs the distance to the
    starting model. With `pool` above 0 training goes through that many prompts, chosen anew every
    `refresh` steps because the model answers them now rightly, now wrongly: other groups teach
    nothing. Half of them are anomalous.
    """

    steps: Count = 300
    prompts: Count = 8
    num_generations: int = Field(default=8, ge=2)
    micro: Count = 8
    temperature: float = Field(default=1.0, gt=0.0, le=2.0)
    beta: float = Field(default=0.02, ge=0.0)
    learning_rate: Rate = 1e-6
    warmup: int = Field(default=10, ge=0)
    max_completion: int = Field(default=256, ge=16)
    rewards: dict[str, Weight] = {"accuracy": 1.0, "structure": 0.5}
    pool: int = Field(default=0, ge=0)
    refresh: Count = 50

    @field_validator("rewards")
    @classmethod
    def _known(cls, rewards: dict[str, float]) -> dict[str, float]:
        from lad_agent.training.rewards import REWARDS

        for name in rewards:
            if name not in REWARDS:
                raise ValueError(f"no reward {name!r}; {nearest.hint(name, REWARDS)}")
        return rewards

    @model_validator(mode="after")
    def _rewarded(self) -> "Grpo":
        if not any(self.rewards.values()):
            raise ValueError("no reward has a weight; give accuracy and structure theirs")
        return self

    @model_validator(mode="after")
    def _pool_has_halves(self) -> "Grpo":
        if self.pool % 2:
            raise ValueError(f"pool: {self.pool} has no half; give an even number, or 0 for none")
        return self


class RunConfig(_Strict):
    """A whole run.

    `base` is `pocket`, the folder of a Qwen2.5-VL, or that of an earlier run, which is gone on
    from. `image_size` is the side in pixels that pictures are resized to. `precision` is that of
    the computation; full training keeps its weights in float32 either way. `tower` says whether
    the vision tower learns too (adapter: full).
    """

    base: str = Field(min_length=1)
    adapter: Literal["lora", "full"] = "lora"
    lora: Lora = Lora()
    tower: Literal["frozen", "trained"] = "frozen"
    image_size: int = Field(default=196, ge=28, le=2240)
    precision: Literal["float32", "bfloat16"] = "float32"
    gradient_checkpointing: bool = False
    seed: int = Field(default=0, ge=0, lt=2**32)
    data: Data = Data()
    sft: Sft = Sft()
    grpo: Grpo = Grpo()
    log_every: Count = 10
    checkpoint_every: Count = 200
    keep_checkpoints: Count = 2
    samples_every: Count = 200
    samples: int = Field(default=4, ge=0)
    workers: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _tower_can_learn(self) -> "RunConfig":
        if self.tower == "trained" and self.adapter == "lora":
            raise ValueError("tower: trained needs adapter: full; LoRA is on the language model")
        return self

    @model_validator(mode="after")
    def _a_checkpoint_stays_whole(self) -> "RunConfig":
        # The trainer removes old ones before the new one is marked as completely written.
        if self.keep_checkpoints < 2:
            raise ValueError(
                "keep_checkpoints: 1 would leave none whole while the next is written; give 2"
            )
        return self


def load(name: str) -> RunConfig:
    """The shipped configuration of that name, or the one in the YAML file `name`.

    Raises:
        NotFound: neither; names the nearest shipped one.
        UsageError: names the file, the line, the fault and the remedy.
    """
    path = FOLDER / f"{name}.yaml" if name in SHIPPED else Path(name)
    try:
        return parse(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError as error:
        raise NotFound(
            f"no configuration {name!r}; {nearest.hint(name, SHIPPED)}; "
            f"shipped: {', '.join(SHIPPED)}; or give a YAML file"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read as UTF-8 text ({error})") from error


def parse(text: str, source: str) -> RunConfig:
    """The configuration that YAML `text` holds; `source` names it in errors.

    Raises:
        UsageError: names the source, the line, the fault and the remedy.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or "not YAML"
        where = f", line {mark.line + 1}" if mark else ""
        raise UsageError(f"{source}{where}: not valid YAML: {problem}") from error
    if not isinstance(data, dict) or root is None:
        raise UsageError(f"{source}: a configuration is a mapping with at least `base`")
    _refuse_doubles(root, source)
    try:
        return RunConfig.model_validate(data)
    except ValidationError as error:
        faults = error.errors()
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise UsageError(f"{source}, {_explain(faults[0], root)}{more}") from error


def changed(config: RunConfig, **flags: Any) -> RunConfig:
    """`config` with flags in place of keys, e.g. `changed(config, seed=1, sft={"steps": 2})`.

    Flags that are None were not given; a mapping changes the keys of a section that it names.

    Raises:
        UsageError: names the key whose value is wrong.
    """
    data = config.model_dump()
    for key, value in flags.items():
        if isinstance(value, dict):
            data[key] |= {name: part for name, part in value.items() if part is not None}
        elif value is not None:
            data[key] = value
    try:
        return RunConfig.model_validate(data)
    except ValidationError as error:
        raise UsageError(_explain(error.errors()[0], None)) from error


def dump(config: RunConfig) -> str:
    """The whole configuration as YAML that `parse` reads back to the same."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def flat(config: RunConfig) -> dict[str, Any]:
    """Every value under its dotted name.

    >>> flat(RunConfig(base="pocket"))["sft.texts.caption"]
    0.3
    """
    return flatten(config.model_dump(mode="json"))


def flatten(values: Mapping[str, Any], separator: str = ".") -> dict[str, Any]:
    """Every value of nested mappings under its whole name.

    >>> flatten({"seed": 20, "dense": {"steps": 3}})
    {'seed': 20, 'dense.steps': 3}
    """
    out: dict[str, Any] = {}
    for key, value in values.items():
        inner = flatten(value, separator) if isinstance(value, dict) else {"": value}
        out |= {f"{key}{separator}{name}" if name else key: v for name, v in inner.items()}
    return out


def _explain(detail: Any, root: yaml.Node | None) -> str:
    at = tuple(detail["loc"])
    name = ".".join(str(part) for part in at) or "configuration"
    line = f"line {_line(root, at)}: " if root is not None else ""
    match detail["type"]:
        case "extra_forbidden":
            hint = nearest.hint(str(at[-1]), _keys(at[:-1]))
            return f"{line}unknown key {name!r}; {hint}"
        case "missing":
            return f"{line}{name} is missing"
        case "value_error":
            return f"{line}{name}: {detail['ctx']['error']}"
        case _:
            said = detail["msg"][:1].lower() + detail["msg"][1:]
            return f"{line}{name}: {said} (found {detail['input']!r})"


def _keys(at: tuple[str | int, ...]) -> list[str]:
    """The keys that the section `at` knows."""
    model: type[BaseModel] = RunConfig
    for part in at:
        inner = model.model_fields[str(part)].annotation
        model = cast(type[BaseModel], inner)
    return list(model.model_fields)


def _line(node: yaml.Node, at: tuple[str | int, ...]) -> int:
    """The 1-based line of the key `at`, of its nearest section where it is not written."""
    line = node.start_mark.line
    for part in at:
        if not isinstance(node, yaml.MappingNode):
            break
        found = next(((k, v) for k, v in node.value if k.value == str(part)), None)
        if found is None:
            break
        line, node = found[0].start_mark.line, found[1]
    return line + 1


def _refuse_doubles(node: yaml.Node, source: str) -> None:
    """A key that is written twice would silently mean its second value."""
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[str] = set()
    for key, value in node.value:
        if str(key.value) in seen:
            raise UsageError(
                f"{source}, line {key.start_mark.line + 1}: {key.value!r} is written twice"
            )
        seen.add(str(key.value))
        _refuse_doubles(value, source)
