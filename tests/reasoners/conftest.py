"""The toy model, taught once a session; alone, and behind a server."""

import pytest
import torch

from lad_agent.reasoners.local import TransformersReasoner
from tests.reasoners import toy
from tests.reasoners.server import Server


@pytest.fixture(scope="session")
def toy_folder(tmp_path_factory):
    """A folder with the taught toy; leave it as it is."""
    folder = tmp_path_factory.mktemp("toy")
    torch.set_num_threads(1)
    toy.teach(folder)
    return folder


@pytest.fixture(scope="session")
def toy_model(toy_folder):
    """The toy as a batch reasoner."""
    return TransformersReasoner(toy_folder, device="cpu", max_batch=8)


@pytest.fixture(scope="session")
def toy_server(toy_folder):
    """The toy behind an OpenAI-compatible server."""
    with Server(toy_folder) as server:
        yield server
