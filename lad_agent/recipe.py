"""What to inspect and how: product, rules, reference images and decision policy, as a YAML file.

`task_version` hashes what the reasoner is asked (product, rules, references and how many of them
are shown, region, image size, and `JUDGING`, the version of how);
`recipe_version` adds the policy and the calibration. A new threshold therefore keeps the task, and
what was calibrated for it; a new rule does not.
"""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lad_agent import nearest
from lad_agent.confidence import Calibration
from lad_agent.errors import NotFound, RecipeError

SHIPPED = ("breakfast_box", "juice_bottle", "pushpins", "screw_bag", "splicing_connectors")
"""Products whose recipe comes with the package."""

JUDGING = 1
"""Version of all that a judgement depends on beside recipe and model: how a picture is prepared and
gated, what the prompt says, how an answer is read and held against its evidence, what the features
of a confidence mean. Raise it where one of them changes: every recipe is another task then, and
calibrations, results and findings of before do not hold for it.
"""

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Rule(_Strict):
    """One sentence that a good part fulfils."""

    id: str = Field(pattern=r"^R[0-9]{1,3}$")
    text: str = Field(min_length=3, max_length=300)

    @model_validator(mode="after")
    def _one_line(self) -> "Rule":
        if "\n" in self.text or "<" in self.text:
            raise ValueError("a rule is one line of plain words without '<'")
        return self


class Region(_Strict):
    """The part of the picture that is judged, in shares of its width and height."""

    left: Share = 0.0
    top: Share = 0.0
    right: Share = 1.0
    bottom: Share = 1.0

    @model_validator(mode="after")
    def _not_empty(self) -> "Region":
        if self.right - self.left < 0.05 or self.bottom - self.top < 0.05:
            raise ValueError("the region is empty: right must exceed left and bottom exceed top")
        return self


class Policy(_Strict):
    """When a judgement is a result, and when a person decides. See `lad_agent.policy.decide`.

    A part whose weakest token is below `sample_below` is in doubt: `samples` more rationales are
    drawn, and it is judged again under `other_references` of the recipe's further references.
    `pass_confidence` and `reject_confidence` stand in for `min_confidence` where they are set.
    With `on_alarm: hold` every part goes to people as soon as an alarm is raised: a promise is seen
    to be broken, or confidence or score have drifted.
    """

    pass_below: Share = 0.5
    reject_above: Share = 0.5
    min_confidence: Share = 0.6
    pass_confidence: Share | None = None
    reject_confidence: Share | None = None
    sample_below: Share = 0.9
    samples: int = Field(default=4, ge=0, le=64)
    other_references: int | None = Field(default=None, ge=1, le=15)
    time_limit_s: float = Field(default=60.0, gt=0.0, le=3600.0)
    audit_rate: Share = 0.02
    on_alarm: Literal["hold"] | None = None

    @model_validator(mode="after")
    def _ordered(self) -> "Policy":
        if self.pass_below > self.reject_above:
            raise ValueError("pass_below must not exceed reject_above")
        return self

    def least_confidence(self, anomalous: bool) -> float:
        """The confidence below which a person decides on a verdict of that kind."""
        own = self.reject_confidence if anomalous else self.pass_confidence
        return self.min_confidence if own is None else own

    @property
    def more_answers(self) -> int:
        """How many answers a part in doubt gets after the greedy one."""
        return self.samples + (self.other_references or 0)


class Calibrated(_Strict):
    """Which calibration the policy's thresholds rest on; written by `lad-agent calibrate`.

    `file` lies beside the recipe, `sha256` is that of its bytes. `promise` says in words what was
    promised, for the reader alone.
    """

    file: str = Field(pattern=r"^[^/\\]+\.json$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    promise: str = Field(max_length=500)


class RecipeFile(_Strict):
    """The YAML file's content, as written.

    `references_shown` of the references stand in one prompt, from the first on.
    """

    product: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")
    rules: tuple[Rule, ...] = Field(min_length=1, max_length=40)
    references: tuple[str, ...] = Field(min_length=1, max_length=16)
    references_shown: int = Field(default=1, ge=1, le=16)
    region: Region = Region()
    image_size: int = Field(default=196, ge=56, le=2240)
    policy: Policy = Policy()
    calibration: Calibrated | None = None

    @model_validator(mode="after")
    def _unique_ids(self) -> "RecipeFile":
        ids = [rule.id for rule in self.rules]
        twice = sorted({i for i in ids if ids.count(i) > 1})
        if twice:
            raise ValueError(f"rule id {twice[0]} is used twice")
        return self

    @model_validator(mode="after")
    def _enough_references(self) -> "RecipeFile":
        asked = self.references_shown * (1 + (self.policy.other_references or 0))
        if asked > len(self.references):
            raise ValueError(
                f"references_shown and other_references ask for {asked} references, there are "
                f"{len(self.references)}; list more, or show fewer"
            )
        return self


@dataclass(frozen=True)
class Recipe:
    """A validated recipe with its reference images found and hashed.

    `references` are absolute paths; `reference_sha256` are the hashes of their bytes;
    `references_shown` of them stand in one prompt. `damaged` says that the file
    names a calibration that cannot be used and was left out (`load` with `anew`).
    """

    product: str
    rules: tuple[Rule, ...]
    references: tuple[Path, ...]
    reference_sha256: tuple[str, ...]
    region: Region
    image_size: int
    policy: Policy
    task_version: str
    recipe_version: str
    path: Path
    calibration: Calibration | None = None
    references_shown: int = 1
    damaged: bool = False

    def shown(self, turn: int) -> slice:
        """Which references a prompt shows: of turn 0 the first, of each further one the next."""
        return slice(turn * self.references_shown, (turn + 1) * self.references_shown)

    @property
    def uncalibrated(self) -> Policy:
        """The policy without a calibration's thresholds, which are on its own scale."""
        if self.calibration is None and not self.damaged:
            return self.policy
        return self.policy.model_copy(update={"pass_confidence": None, "reject_confidence": None})


@dataclass(frozen=True)
class Fault:
    """One thing wrong with a recipe file: 1-based line, and a sentence that names the remedy."""

    line: int
    message: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.message}"


def load(path: Path, *, anew: bool = False) -> Recipe:
    """Read, validate and hash the recipe at `path`.

    With `anew` a calibration that cannot be used is left out: another one is about to be made.

    Raises:
        RecipeError: names the file and its first fault (`check` lists them all).
    """
    content, faults = _read(path, anew=anew)
    if content is None or faults:
        more = f" (and {len(faults) - 1} more: lad-agent recipe check)" if len(faults) > 1 else ""
        raise RecipeError(f"{path}: {faults[0]}{more}")
    references = tuple((path.parent / name).resolve() for name in content.references)
    hashes = tuple(hashlib.sha256(p.read_bytes()).hexdigest() for p in references)
    task = {
        "product": content.product,
        "rules": [rule.model_dump() for rule in content.rules],
        "references": list(hashes),
        "region": content.region.model_dump(),
        "image_size": content.image_size,
    }
    if len(hashes) > 1:
        task["references_shown"] = content.references_shown
    task |= judging()
    # What is not set is left out, so that a new setting changes no recipe's version.
    whole = {**task, "policy": content.policy.model_dump(exclude_none=True)}
    made = None
    if content.calibration is not None:
        whole["calibration"] = content.calibration.sha256
        try:
            made = _calibration(path, content.calibration)
        except ValueError as error:
            if not anew:
                raise RecipeError(f"{path}: {error}") from error
    loaded = Recipe(
        product=content.product,
        rules=content.rules,
        references=references,
        reference_sha256=hashes,
        region=content.region,
        image_size=content.image_size,
        policy=content.policy,
        task_version=_version(task),
        recipe_version=_version(whole),
        path=path.resolve(),
        calibration=made,
        references_shown=content.references_shown,
        damaged=content.calibration is not None and made is None,
    )
    if not loaded.damaged:
        _loaded[loaded.recipe_version] = loaded
    return loaded


def of_version(path: Path, recipe_version: str) -> Recipe | None:
    """The recipe of that version: as this process has loaded it, or what its file says, if that is
    it still; else None."""
    if recipe_version not in _loaded:
        with suppress(RecipeError, OSError, ValueError):
            load(path)
    return _loaded.get(recipe_version)


_loaded: dict[str, Recipe] = {}
"""Every version that this process has loaded: files are rewritten while stations judge by them."""


def check(path: Path) -> list[Fault]:
    """All faults of the recipe at `path`, in the order of their lines; empty if it can be used."""
    return _read(path)[1]


def shipped(product: str) -> Path:
    """Path of the recipe that comes with the package.

    Raises:
        NotFound: no such product; names the nearest.
    """
    if product not in SHIPPED:
        raise NotFound(
            f"no shipped recipe for {product!r}; {nearest.hint(product, SHIPPED)}; "
            f"shipped: {', '.join(SHIPPED)}; or give --recipe FILE.yaml"
        )
    return Path(__file__).parent / "recipes" / product / "recipe.yaml"


def judging() -> dict[str, int]:
    """What a task and its record say of `JUDGING`; of the first version nothing, as ever."""
    return {} if JUDGING == 1 else {"judging": JUDGING}


def recorded_version(product: str, said: Mapping[str, Any]) -> str:
    """The version of an uncalibrated recipe that says what the audit store has noted of it."""
    names = ("rules", "references", "region", "image_size", "references_shown", "judging")
    task = {name: said[name] for name in names if name in said}
    policy = Policy.model_validate(said["policy"]).model_dump(exclude_none=True)
    return _version({"product": product, **task, "policy": policy})


def _version(content: object) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _read(path: Path, *, anew: bool = False) -> tuple[RecipeFile | None, list[Fault]]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None, [Fault(1, "no such recipe file; lad-agent recipe new writes one")]
    except (OSError, UnicodeDecodeError) as error:
        return None, [Fault(1, f"cannot be read as UTF-8 text ({error})")]
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or "not YAML"
        return None, [Fault(mark.line + 1 if mark else 1, f"not valid YAML: {problem}")]
    if not isinstance(data, dict) or root is None:
        return None, [Fault(1, "a recipe is a mapping with product, rules and references")]
    lines: dict[tuple[str | int, ...], int] = {}
    faults = list(_walk(root, (), lines))
    content = None
    try:
        content = RecipeFile.model_validate(data)
    except ValidationError as error:
        faults += [_explain(detail, lines) for detail in error.errors() if not _follows(detail)]
    for index, name in enumerate(content.references if content else ()):
        if not (path.parent / name).is_file():
            faults.append(
                Fault(
                    lines.get(("references", index), 1),
                    f"reference image {name!r} is not there; paths are relative to the recipe",
                )
            )
    if content and content.calibration:
        try:
            _calibration(path, content.calibration)
        except ValueError as error:
            if not anew:
                faults.append(Fault(lines[("calibration",)], str(error)))
    return content, sorted(faults, key=lambda fault: fault.line)


def _calibration(path: Path, named: Calibrated) -> Calibration:
    """The calibration that a recipe names, byte for byte as it was written."""
    remedy = (
        "run lad-agent calibrate again, or take calibration, pass_confidence and reject_confidence "
        "out of the recipe"
    )
    try:
        data = (path.parent / named.file).read_bytes()
    except OSError as error:
        raise ValueError(f"calibration {named.file!r} is not there; {remedy}") from error
    if hashlib.sha256(data).hexdigest() != named.sha256:
        raise ValueError(f"calibration {named.file!r} was changed after it was made; {remedy}")
    try:
        return Calibration.model_validate_json(data)
    except ValidationError as error:
        raise ValueError(f"calibration {named.file!r} is of another version; {remedy}") from error


def _walk(node: yaml.Node, at: tuple[str | int, ...], lines: dict[Any, int]) -> list[Fault]:
    """Note the line of every key and item; report keys that are written twice."""
    faults: list[Fault] = []
    lines.setdefault(at, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            where = (*at, str(key.value))
            if where in lines:
                faults.append(Fault(key.start_mark.line + 1, f"{key.value!r} is written twice"))
            lines[where] = key.start_mark.line + 1
            faults += _walk(value, where, lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            faults += _walk(value, (*at, index), lines)
    return faults


def _follows(detail: Any) -> bool:
    """Whether an error only says that items with errors of their own were not counted."""
    found = detail["input"]
    return bool(detail["type"] == "too_short" and isinstance(found, list) and found)


def _explain(detail: Any, lines: dict[tuple[str | int, ...], int]) -> Fault:
    at = tuple(detail["loc"])
    line = next((lines[at[:n]] for n in range(len(at), -1, -1) if at[:n] in lines), 1)
    name = ".".join(str(part) for part in at) or "recipe"
    match detail["type"]:
        case "extra_forbidden":
            hint = nearest.hint(str(at[-1]), _keys(at[:-1]))
            return Fault(line, f"unknown key {at[-1]!r}; {hint}")
        case "missing":
            return Fault(line, f"{name} is missing")
        case "value_error":
            return Fault(line, f"{name}: {detail['ctx']['error']}")
        case _:
            said = detail["msg"][:1].lower() + detail["msg"][1:]
            return Fault(line, f"{name}: {said} (found {detail['input']!r})")


def _keys(at: tuple[str | int, ...]) -> list[str]:
    model: type[BaseModel] = RecipeFile
    for part, inner in (("rules", Rule), ("region", Region), ("policy", Policy)):
        if at and at[0] == part:
            model = inner
    return list(model.model_fields)
