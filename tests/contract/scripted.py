"""A reasoner that answers by script: what the toy would say, without a model."""

import asyncio
import hashlib
import math

from PIL import ImageStat

from lad_agent import images
from lad_agent.judgement import Judgement
from lad_agent.reasoners.base import Drawn, Question, in_doubt, judgement
from lad_agent.reasoners.door import Door
from tests.reasoners import toy


class ScriptedReasoner:
    """Implements `Reasoner`; reads the colour of the query and the recipe's references."""

    fingerprint = "scripted"
    products = None

    def __init__(self) -> None:
        self._door = Door(8)

    async def judge(self, question: Question) -> Judgement:
        async with self._door.enter():
            await asyncio.sleep(0.001)
            images.references(question.recipe)
            greedy = answer(question, 0)
            wanted = question.recipe.policy.more_answers if in_doubt(greedy, question) else 0
            more = [answer(question, number + 1) for number in range(wanted)]
            return judgement(question, greedy, more, model=self.fingerprint, elapsed_s=0.001)

    async def aclose(self) -> None:
        await self._door.close()


def answer(question: Question, number: int) -> Drawn:
    """The greedy answer (0) or a draw."""
    red, green, blue = ImageStat.Stat(question.image).mean
    if max(red, blue) - green > 100:
        text = toy.ENDLESS if red > blue else toy.MALFORMED
        return Drawn(text, None, None, None, None, 40)
    sure = green - red < 100
    bad = green > 128 if sure else _coin(question, number)
    weakest = 0.97 if sure else 0.55
    mean, total = math.log(weakest) / 30, math.log(weakest)
    return Drawn(toy.BAD if bad else toy.GOOD, weakest, mean, total, 0.99 if bad else 0.01, 30)


def _coin(question: Question, number: int) -> bool:
    return hashlib.sha256(f"{question.image_sha256}{number}".encode()).digest()[0] < 128
