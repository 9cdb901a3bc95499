"""Data sets of a few pictures, and results about them, as the files that `evaluate` reads."""

import hashlib
import io
import json
from pathlib import Path
from typing import Any

from PIL import Image

from lad_agent.training import evaluation


class Batch:
    """A data set of pictures that are mere bytes, or real ones, and the results about them."""

    def __init__(self, folder: Path, *, real: bool = False) -> None:
        self._real = real
        self.truth, self.results = folder / "truth", folder / "results.jsonl"
        self._lines: dict[str, list[dict[str, Any]]] = {}
        self._told: list[dict[str, Any]] = []

    def picture(
        self,
        name: str,
        kind: str = "good",
        *,
        product: str = "screw_bag",
        rule: str | None = None,
        objects: dict[str, int] | None = None,
        stratum: str = "in-range",
        split: str = "test",
    ) -> str:
        """Write a picture and its truth; returns the hash of its bytes."""
        image = self.truth / product / split / f"{name}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        content = f"{product} {name}".encode()
        image.write_bytes(_png(content) if self._real else content)
        things = [{"cls": c} for c, n in (objects or {}).items() for _ in range(n)]
        line = {
            "image": f"{split}/{name}.png", "product": product, "anomalous": kind != "good",
            "kind": kind, "rule": rule, "stratum": stratum, "objects": things,
        }  # fmt: skip
        self._lines.setdefault(product, []).append(line)
        return self.digest(image.read_bytes())

    @staticmethod
    def digest(content: bytes) -> str:
        """The hash by which results are joined."""
        return hashlib.sha256(content).hexdigest()

    def result(self, sha256: str, result: str, anomalous: bool | None, **more: Any) -> None:
        """Note one line of results."""
        self._told.append(
            {
                "image_sha256": sha256, "result": result, "anomalous": anomalous,
                "decision_score": None if anomalous is None else 0.9 if anomalous else 0.1,
                "well_formed": anomalous is not None, "rule": None, "evidence": "consistent",
            }
            | more
        )  # fmt: skip

    def write(self) -> None:
        """Write both files."""
        for product, lines in self._lines.items():
            write_lines(self.truth / product / "truth.jsonl", lines)
        write_lines(self.results, self._told)

    def evaluate(self, resampling: evaluation.Resampling | None = None) -> evaluation.Metrics:
        """Write both files and evaluate them."""
        self.write()
        return evaluation.evaluate(self.results, self.truth, resampling)


def write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def _png(content: bytes) -> bytes:
    """A picture of a colour that depends on `content`."""
    colour = tuple(hashlib.sha256(content).digest()[:3])
    data = io.BytesIO()
    Image.new("RGB", (300, 200), colour).save(data, "PNG")
    return data.getvalue()
