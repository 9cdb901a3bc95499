"""What every reasoner must do. Subclass `ReasonerContract` and give it a `reasoner` fixture.

The reasoner under test must answer by the query's colour as `tests.reasoners.toy` says, and be
sure of dark and bright pictures only.
"""

import asyncio
import dataclasses
import math

import pytest

from lad_agent import protocol
from lad_agent.errors import LadAgentError, ReasonerUnavailable
from lad_agent.judgement import Judgement
from lad_agent.reasoners import Question, Reasoner
from lad_agent.recipe import Recipe
from tests.reasoners import toy


def same(one: Judgement, other: Judgement) -> bool:
    """Whether two judgements agree but for time and rounding."""
    a, b = (j.model_dump(exclude={"elapsed_s"}) for j in (one, other))
    return all(
        a[key] == pytest.approx(b[key], abs=1e-3) if isinstance(a[key], float) else a[key] == b[key]
        for key in a
    )


class ReasonerContract:
    """Inherit and define the fixture `reasoner`; pytest runs these tests on it."""

    @pytest.fixture
    def sure(self, tmp_path) -> Recipe:
        """A recipe that never asks for more rationales."""
        return toy.write_recipe(tmp_path / "sure", samples=0)

    @pytest.fixture
    def doubting(self, tmp_path) -> Recipe:
        """A recipe that asks for three more rationales unless a token is almost certain."""
        return toy.write_recipe(tmp_path / "doubting", samples=3, sample_below=0.75)

    def test_names_itself(self, reasoner: Reasoner) -> None:
        assert reasoner.fingerprint
        assert reasoner.products is None or isinstance(reasoner.products, frozenset)

    async def test_good_and_bad_parts(self, reasoner: Reasoner, sure: Recipe) -> None:
        good = await reasoner.judge(toy.question(sure, toy.DARK))
        bad = await reasoner.judge(toy.question(sure, toy.BRIGHT))
        assert (good.anomalous, bad.anomalous) == (False, True)
        assert good.anomaly_score < 0.1 < 0.9 < bad.anomaly_score
        assert (good.rule, bad.rule) == (None, "R1")
        assert (good.evidence, bad.evidence) == ("consistent", "consistent")
        assert bad.rationale == "product: toy of toy ok; R1 lamps: 0 of 1 bad"

    async def test_says_what_the_raw_text_says(self, reasoner: Reasoner, sure: Recipe) -> None:
        for colour in (toy.DARK, toy.BRIGHT, toy.GREEN):
            found = await reasoner.judge(toy.question(sure, colour))
            answer = protocol.parse(found.raw_text)
            assert answer is not None
            assert (found.anomalous, found.rationale) == (answer.anomalous, answer.rationale)

    async def test_figures_of_a_verdict(self, reasoner: Reasoner, sure: Recipe) -> None:
        found = await reasoner.judge(toy.question(sure, toy.DARK))
        assert found.well_formed
        assert found.model == reasoner.fingerprint
        assert 0.5 < found.weakest_token <= 1.0
        assert found.confidence == found.weakest_token
        assert found.sum_logprob <= math.log(found.weakest_token) + 1e-6
        assert found.sum_logprob <= found.mean_logprob <= 0.0
        assert (found.samples, found.agreement) == (0, None)
        assert 0.0 <= found.image_quality <= 1.0
        assert found.tokens > 5
        assert found.elapsed_s > 0

    @pytest.mark.parametrize("colour", [toy.BLUE, toy.RED], ids=["malformed", "cut off"])
    async def test_no_verdict_without_form(
        self, reasoner: Reasoner, doubting: Recipe, colour: tuple[int, int, int]
    ) -> None:
        found = await reasoner.judge(toy.question(doubting, colour))
        assert not found.well_formed
        assert found.raw_text
        assert found.rationale == ""
        assert found.samples == 0
        figures = (found.anomalous, found.anomaly_score, found.confidence, found.weakest_token)
        assert figures == (None, None, None, None)
        assert (found.mean_logprob, found.sum_logprob, found.image_quality) == (None, None, None)

    async def test_more_rationales_only_where_in_doubt(
        self, reasoner: Reasoner, doubting: Recipe
    ) -> None:
        clear = await reasoner.judge(toy.question(doubting, toy.DARK))
        green = [await reasoner.judge(toy.question(doubting, toy.GREEN, n)) for n in range(6)]
        assert clear.samples == 0
        assert all(j.weakest_token < 0.75 and j.samples == 3 for j in green)
        assert len({j.agreement for j in green}) > 1
        for j in green:
            assert j.confidence == pytest.approx((j.weakest_token + 3 * j.agreement) / 4)
            assert j.tokens > 2 * clear.tokens

    async def test_other_references_only_where_in_doubt(self, reasoner: Reasoner, tmp_path) -> None:
        """Each is one vote; the toy answers by the query, so it takes its greedy verdict again."""
        recipe = toy.write_recipe(
            tmp_path, references=3, samples=0, sample_below=0.75, other_references=2
        )
        clear = await reasoner.judge(toy.question(recipe, toy.DARK))
        green = [await reasoner.judge(toy.question(recipe, toy.GREEN, n)) for n in range(3)]
        assert (clear.samples, clear.agreement) == (0, None)
        for j in green:
            assert j.samples == 2
            assert j.confidence == pytest.approx((j.weakest_token + 2 * j.agreement) / 3)
            assert j.tokens > 2 * clear.tokens

    async def test_the_same_question_has_the_same_answer(
        self, reasoner: Reasoner, doubting: Recipe
    ) -> None:
        first, second = [await reasoner.judge(toy.question(doubting, toy.GREEN)) for _ in range(2)]
        assert same(first, second)

    async def test_each_its_own_answer_whoever_is_beside_it(
        self, reasoner: Reasoner, doubting: Recipe, sure: Recipe
    ) -> None:
        colours = (toy.GREEN, toy.DARK, toy.BLUE, toy.GREEN, toy.BRIGHT, toy.RED)
        questions = [
            toy.question(recipe, colour, seed)
            for seed in range(3)
            for colour in colours
            for recipe in (doubting, sure)
        ]
        together = await asyncio.gather(*map(reasoner.judge, questions))
        alone = [await reasoner.judge(question) for question in questions[:6]]
        assert all(map(same, alone, together))
        by_colour = dict(zip(colours, together[::2], strict=False))
        assert by_colour[toy.DARK].anomalous is False
        assert by_colour[toy.BRIGHT].anomalous is True
        assert by_colour[toy.BLUE].anomalous is None

    async def test_a_bad_question_fails_alone(
        self, reasoner: Reasoner, sure: Recipe, tmp_path
    ) -> None:
        lost = toy.write_recipe(tmp_path / "lost", rule="exactly 99 lamps", samples=0)
        lost.references[0].unlink()
        questions = [toy.question(sure, toy.DARK, n) for n in range(4)]
        questions.insert(2, toy.question(lost, toy.DARK))
        answers = await asyncio.gather(*map(reasoner.judge, questions), return_exceptions=True)
        assert isinstance(answers.pop(2), LadAgentError)
        assert [answer.anomalous for answer in answers] == [False] * 4

    async def test_pictures_of_any_size(self, reasoner: Reasoner, sure: Recipe) -> None:
        for size in ((640, 480), (20, 31)):
            image = toy.picture(toy.BRIGHT).resize(size)
            found = await reasoner.judge(Question(sure, image, "0" * 64))
            assert found.anomalous is True

    async def test_cancelling_one_leaves_the_others(self, reasoner: Reasoner, sure: Recipe) -> None:
        tasks = [
            asyncio.create_task(reasoner.judge(toy.question(sure, toy.DARK, n))) for n in range(4)
        ]
        await asyncio.sleep(0)
        tasks[1].cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(answers.pop(1), asyncio.CancelledError)
        assert [answer.anomalous for answer in answers] == [False] * 3

    async def test_closing_answers_what_was_asked_and_takes_no_more(
        self, reasoner: Reasoner, sure: Recipe
    ) -> None:
        tasks = [
            asyncio.create_task(reasoner.judge(toy.question(sure, toy.DARK, n))) for n in range(5)
        ]
        await asyncio.sleep(0)
        await reasoner.aclose()
        assert [task.result().anomalous for task in tasks] == [False] * 5
        with pytest.raises(ReasonerUnavailable):
            await reasoner.judge(toy.question(sure, toy.DARK))
        await reasoner.aclose()

    async def test_questions_are_left_as_they_are(self, reasoner: Reasoner, sure: Recipe) -> None:
        asked = toy.question(sure, toy.DARK)
        before = dataclasses.replace(asked, image=asked.image.copy())
        await reasoner.judge(asked)
        assert asked.image.tobytes() == before.image.tobytes()
