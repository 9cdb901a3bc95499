"""A calibration into its file and into the recipe, whose comments and order stay as they are."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from lad_agent import atomic, recipe
from lad_agent.errors import UsageError
from lad_agent.recipe import Recipe
from lad_agent.training.calibration.choosing import Made


def write(path: Path, made: Made) -> Recipe:
    """Write the calibration beside the recipe at `path`, then the recipe; returns it as read again.

    The calibration's file is named by its content, so an older recipe version keeps its own. Each
    file is whole or not there.

    Raises:
        UsageError: a file cannot be written, or the recipe cannot be edited as text.
    """
    data = made.calibration.model_dump_json(indent=1).encode() + b"\n"
    digest = hashlib.sha256(data).hexdigest()
    file = path.with_name(f"{path.stem}.calibration-{digest[:8]}.json")
    named = {"file": file.name, "sha256": digest, "promise": made.promised}
    try:
        with path.open(encoding="utf-8", newline="") as opened:
            text = opened.read()
        changed = edited(text, {"policy": made.changes, "calibration": named})
        atomic.write(file, data)
        atomic.write(path, changed)
    except OSError as error:
        raise UsageError(
            f"{path}: cannot be written ({error.strerror}); check its rights"
        ) from error
    return recipe.load(path)


def edited(text: str, changes: Mapping[str, Mapping[str, Any]]) -> str:
    """A YAML mapping's text with the values of mappings in it set, and all else untouched.

    A value of None sets a key that is there to null, and adds none.

    Raises:
        UsageError: the edit did not come out as meant.
    """
    found = yaml.safe_load(text)
    out = text
    for key, values in changes.items():
        out = _set(out, key, values) if _loaded(out) is not None else out
    wanted = {**found, **{key: dict(found.get(key) or {}) for key in changes}}
    for key, values in changes.items():
        wanted[key] |= {k: v for k, v in values.items() if v is not None or k in wanted[key]}
    if _loaded(out) != {k: v for k, v in wanted.items() if v or k in found}:
        raise UsageError(
            f"the recipe cannot be edited as text; write {' and '.join(changes)} as plain mappings"
        )
    return out


def _loaded(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return None


def _set(text: str, key: str, values: Mapping[str, Any]) -> str:
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)
    node = next((value for name, value in root.value if name.value == key), None)
    if not isinstance(node, yaml.MappingNode):
        pairs = ", ".join(f"{k}: {_scalar(v)}" for k, v in values.items() if v is not None)
        if not pairs:
            return text
        if node is None:
            return _insert(text, root, [f"{key}: {{{pairs}}}"])
        start = node.start_mark.index
        space = "" if text[start - 1].isspace() else " "
        return f"{text[:start]}{space}{{{pairs}}}{text[node.end_mark.index :]}"
    there = {name.value: value for name, value in node.value}
    new = [f"{k}: {_scalar(v)}" for k, v in values.items() if k not in there and v is not None]
    if new:
        text = _insert(text, node, new)
    # From the end to the beginning, so that the marks before stay right.
    old = [(there[k], v) for k, v in values.items() if k in there]
    for value_node, value in sorted(old, key=lambda pair: -pair[0].start_mark.index):
        start, end = value_node.start_mark.index, _end(value_node)
        text = text[:start] + _scalar(value) + text[end:]
    return text


def _insert(text: str, node: yaml.MappingNode, entries: Sequence[str]) -> str:
    """Add entries after the last one of a mapping."""
    if not node.value:
        at = node.start_mark.index + 1
        return text[:at] + ", ".join(entries) + text[at:]
    at = _end(node.value[-1][1])
    if node.flow_style:
        return ", ".join([text[:at], *entries]) + text[at:]
    newline = "\r\n" if "\r\n" in text else "\n"
    if not text[:at].endswith("\n"):
        line = text.find("\n", at)
        if line < 0:
            text, line = text + newline, len(text + newline) - 1
        at = line + 1
    indent = " " * node.value[0][0].start_mark.column
    return text[:at] + "".join(indent + entry + newline for entry in entries) + text[at:]


def _end(node: yaml.Node) -> int:
    """Where the node's own text ends; a block's mark stands at whatever comes after it."""
    if isinstance(node, yaml.MappingNode | yaml.SequenceNode) and node.value:
        last = node.value[-1]
        inner = last[1] if isinstance(last, tuple) else last
        if not node.flow_style:
            return _end(inner)
    end: int = node.end_mark.index
    return end


def _scalar(value: Any) -> str:
    written = json.dumps(value, ensure_ascii=False)
    if isinstance(value, float) and "e" in written and "." not in written:
        return written.replace("e", ".0e")  # YAML 1.1 reads 1e-05 as a word
    return written
