"""Images a second, end to end, beside the bare model and a plain loop, in one run.

    python -m benchmarks.throughput [--images 200]

Five ways over the same pictures: `lad-agent inspect` from files to committed records, with the
rationales that the recipe draws more for the doubtful; the local reasoner's batches, with and
without those; transformers' own batched `generate` on the whole prompt; a plain loop, one picture
at a time. Read the ratios: absolute numbers belong to the machine.
"""

import argparse
import dataclasses
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image

from lad_agent import images, protocol, recipe
from lad_agent.reasoners import EMBEDDED
from lad_agent.reasoners.base import Question
from lad_agent.reasoners.checkpoint import load_checkpoint
from lad_agent.reasoners.local import TransformersReasoner

BATCH = 32
PRODUCT = "screw_bag"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=200)
    count = parser.parse_args().images
    lad_agent = str(Path(sys.executable).with_name("lad-agent"))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        subprocess.run(
            [lad_agent, "synth", str(root), "--product", PRODUCT, "--count", str(count)],
            check=True,
            capture_output=True,
        )
        files = sorted((root / PRODUCT / "test").rglob("*.png"))
        task = recipe.load(root / PRODUCT / "recipe.yaml")
        pictures = [
            images.prepare(images.read(f).image, task.region, task.image_size) for f in files
        ]
        inspect = [lad_agent, "inspect", str(root / PRODUCT / "test"), "--store"]
        empty = _seconds(
            lambda: _run([*inspect, str(root / "one.db"), "--limit", "1"]),
        )
        whole = _seconds(lambda: _run([*inspect, str(root / "all.db")]))
        rows = [
            ("inspect, files to records, start-up excluded", whole - empty, count - 1),
            ("local reasoner, with the recipe's extra draws", _reasoner(task, pictures), count),
            ("local reasoner, one rationale each", _reasoner(_greedy(task), pictures), count),
            ("transformers generate, batches of 32", _generate(task, pictures, BATCH), count),
            ("transformers generate, one at a time", _generate(task, pictures[:20], 1), 20),
        ]
    slowest = rows[-1][2] / rows[-1][1]
    print("| way | images/s | times the plain loop |\n|---|---|---|")
    for name, seconds, number in rows:
        rate = number / seconds
        print(f"| {name} | {rate:.1f} | {rate / slowest:.1f} |")
    print(f"\nstart-up of inspect, one image: {empty:.1f} s")


def _greedy(task: recipe.Recipe) -> recipe.Recipe:
    return dataclasses.replace(task, policy=task.policy.model_copy(update={"samples": 0}))


def _reasoner(task: recipe.Recipe, pictures: list[Image.Image]) -> float:
    reasoner = TransformersReasoner(EMBEDDED, max_batch=BATCH)
    questions = [Question(task, picture, f"{n:064x}") for n, picture in enumerate(pictures)]
    reasoner.judge_batch(questions[:1])
    return _seconds(lambda: reasoner.judge_batch(questions))


def _generate(task: recipe.Recipe, pictures: list[Image.Image], batch: int) -> float:
    held = load_checkpoint(EMBEDDED, device="cpu", adapter=None)
    shown = images.prepare(images.references(task)[0], recipe.Region(), task.image_size)
    messages = protocol.messages(task.product, task.rules)
    text = held.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)

    def run() -> None:
        for start in range(0, len(pictures), batch):
            group = pictures[start : start + batch]
            inputs = held.processor(
                text=[text] * len(group),
                images=[[shown, picture] for picture in group],
                return_tensors="pt",
            )
            with torch.inference_mode():
                held.model.generate(**inputs, max_new_tokens=160, do_sample=False)

    return _seconds(run)


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True)


def _seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
