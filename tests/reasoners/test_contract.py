"""The contract, on the local, the served and the scripted reasoner."""

import pytest

from lad_agent.reasoners.batching import MicroBatched
from lad_agent.reasoners.served import ServedReasoner
from tests.contract.reasoner import ReasonerContract
from tests.contract.scripted import ScriptedReasoner
from tests.reasoners import toy


class TestScripted(ReasonerContract):
    @pytest.fixture
    def reasoner(self):
        return ScriptedReasoner()


class TestLocal(ReasonerContract):
    @pytest.fixture
    async def reasoner(self, toy_model):
        reasoner = MicroBatched(toy_model, max_batch=8, max_wait_s=0.01, queue=16)
        yield reasoner
        await reasoner.aclose()


class TestServed(ReasonerContract):
    @pytest.fixture
    async def reasoner(self, toy_server):
        reasoner = ServedReasoner(
            toy_server.url, "toy", retries=0, max_in_flight=4, max_new_tokens=toy.LIMIT
        )
        yield reasoner
        await reasoner.aclose()
