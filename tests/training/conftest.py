"""Models and pictures that several of training's tests begin with."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from lad_agent.reasoners.processing import new_processor
from tests.reasoners import toy


@pytest.fixture(scope="module")
def _one_thread() -> Iterator[None]:
    """Training on one thread; the same sums in the same order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random toy; leave it as it is."""
    folder = tmp_path_factory.mktemp("small")
    tokens = toy.tokenizer()
    toy.network(tokens).eval().save_pretrained(folder)
    new_processor(tokens, toy.CHAT_TEMPLATE, toy.SIZE).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the taught toy: it calls two in three green pictures anomalous, bright ones
    always, dark ones never. Leave it as it is."""
    folder = tmp_path_factory.mktemp("taught")
    toy.teach(folder)
    return folder


def own_pictures(
    folder: Path,
    count: int,
    good: tuple[int, int, int],
    *,
    first: int = 0,
    striped: bool = False,
) -> Path:
    """A user's own folder: `count` good pictures of that colour and as many bad ones, which are
    bright, of 64 px, with a recipe. Pictures of other numbers from `first` on are others; striped
    ones have an edge, so that the gate lets them pass."""
    toy.write_recipe(folder)
    for number in range(first, first + count):
        for name, colour in (("good", good), ("bad/no_lamp", toy.BRIGHT)):
            (folder / name).mkdir(parents=True, exist_ok=True)
            shown = toy.picture(colour, number, 64)
            if striped:
                shown.paste("black" if colour == toy.BRIGHT else "white", (0, 0, 2, 64))
            shown.save(folder / name / f"{number:03d}.png")
    return folder


class Steps(TrainerCallback):  # type: ignore[misc]
    """The steps that a trainer has taken."""

    def __init__(self) -> None:
        self.taken: list[int] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        self.taken.append(state.global_step)
