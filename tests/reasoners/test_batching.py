"""Micro-batching: what goes together, how long it waits, and whom a failure hurts."""

import asyncio
import threading
import time

import pytest

from lad_agent.errors import ReasonerError, ReasonerUnavailable, UnreadableInput
from lad_agent.judgement import Judgement
from lad_agent.reasoners.base import Question
from lad_agent.reasoners.batching import MicroBatched
from tests.reasoners import toy


class Counting:
    """Judges at once or after `seconds`, and notes the batches; stumbles over `bad` pictures."""

    fingerprint = "counting"
    products = frozenset({"toy"})

    def __init__(self, *, seconds: float = 0.0, error: Exception | None = None) -> None:
        self.batches: list[list[Question]] = []
        self.threads: set[str] = set()
        self.go = threading.Event()
        self.go.set()
        self._seconds, self._error = seconds, error

    def judge_batch(self, questions):
        self.batches.append(list(questions))
        self.threads.add(threading.current_thread().name)
        self.go.wait()
        time.sleep(self._seconds)
        if self._error and any(q.image_sha256 == "bad" for q in questions):
            raise self._error
        return [_says(question.image_sha256) for question in questions]

    @property
    def sizes(self):
        return [len(batch) for batch in self.batches]


def _says(text):
    return Judgement(anomalous=None, raw_text=text, well_formed=False, model="counting")


@pytest.fixture
def recipe(tmp_path):
    return toy.write_recipe(tmp_path)


def ask(reasoner, recipe, name):
    question = Question(recipe, toy.picture(toy.DARK), str(name))
    return asyncio.create_task(reasoner.judge(question))


async def ask_all(reasoner, recipe, names):
    tasks = [ask(reasoner, recipe, name) for name in names]
    return await asyncio.gather(*tasks, return_exceptions=True)


async def test_full_batches_do_not_wait(recipe):
    local = Counting()
    reasoner = MicroBatched(local, max_batch=4, max_wait_s=30.0)
    answers = await ask_all(reasoner, recipe, range(12))
    assert [answer.raw_text for answer in answers] == [str(n) for n in range(12)]
    assert local.sizes == [4, 4, 4]
    await reasoner.aclose()


async def test_a_lone_question_waits_no_longer_than_it_must(recipe):
    local = Counting()
    reasoner = MicroBatched(local, max_batch=4, max_wait_s=0.1)
    begun = time.perf_counter()
    await ask(reasoner, recipe, 1)
    assert 0.09 < time.perf_counter() - begun < 2.0
    assert local.sizes == [1]
    await reasoner.aclose()


async def test_what_comes_while_a_batch_is_judged_makes_the_next(recipe):
    local = Counting()
    local.go.clear()
    reasoner = MicroBatched(local, max_batch=8, max_wait_s=0.0)
    first = ask(reasoner, recipe, 0)
    while not local.batches:
        await asyncio.sleep(0.001)
    others = [ask(reasoner, recipe, n) for n in range(1, 7)]
    await asyncio.sleep(0.01)
    local.go.set()
    await asyncio.gather(first, *others)
    assert local.sizes == [1, 6]
    await reasoner.aclose()


async def test_one_task_a_batch_the_oldest_first(recipe, tmp_path):
    other = toy.write_recipe(tmp_path / "other", rule="exactly 5 lamps")
    local = Counting()
    reasoner = MicroBatched(local, max_batch=3, max_wait_s=0.02)
    tasks = [ask(reasoner, (recipe, other)[n % 2], n) for n in range(8)]
    await asyncio.gather(*tasks)
    named = [[q.image_sha256 for q in batch] for batch in local.batches]
    assert named == [["0", "2", "4"], ["1", "3", "5"], ["6"], ["7"]]
    await reasoner.aclose()


async def test_the_queue_is_bounded_and_a_full_one_does_not_wait(recipe):
    local = Counting(seconds=0.01)
    reasoner = MicroBatched(local, max_batch=8, max_wait_s=30.0, queue=3)
    answers = await ask_all(reasoner, recipe, range(9))
    assert len(answers) == 9
    assert max(local.sizes) <= 3
    last = ask(reasoner, recipe, "last")
    await asyncio.sleep(0.05)
    assert not last.done()
    last.cancel()
    await reasoner.aclose()


async def test_one_thread_and_a_free_event_loop(recipe):
    local = Counting(seconds=0.2)
    reasoner = MicroBatched(local, max_batch=2, max_wait_s=0.0)
    tasks = [ask(reasoner, recipe, n) for n in range(4)]
    ticks = 0
    while not all(task.done() for task in tasks):
        await asyncio.sleep(0.01)
        ticks += 1
    assert ticks > 10
    assert len(local.threads) == 1
    await reasoner.aclose()


@pytest.mark.parametrize("at", [0, 3, 6])
async def test_a_bad_question_fails_alone(recipe, at):
    local = Counting(error=UnreadableInput("reference is gone"))
    reasoner = MicroBatched(local, max_batch=7, max_wait_s=0.5)
    names = [str(n) for n in range(7)]
    names[at] = "bad"
    answers = await ask_all(reasoner, recipe, names)
    assert isinstance(answers.pop(at), UnreadableInput)
    assert all(isinstance(answer, Judgement) for answer in answers)
    assert len(local.batches) <= 7
    await reasoner.aclose()


async def test_errors_of_lower_libraries_become_ours(recipe):
    cause = RuntimeError("out of memory\nby 3 GB")
    reasoner = MicroBatched(Counting(error=cause), max_batch=2, max_wait_s=0.0)
    with pytest.raises(
        ReasonerError, match=r"^the model failed on this image: out of memory$"
    ) as e:
        await ask(reasoner, recipe, "bad")
    assert e.value.__cause__ is cause
    await reasoner.aclose()


async def test_a_short_answer_of_the_model_hangs_nobody(recipe):
    class Short(Counting):
        def judge_batch(self, questions):
            return super().judge_batch(questions)[:-1]

    reasoner = MicroBatched(Short(), max_batch=2, max_wait_s=0.0)
    answers = await ask_all(reasoner, recipe, range(3))
    assert all(isinstance(answer, ReasonerError) for answer in answers)
    await reasoner.aclose()


async def test_a_cancelled_question_is_not_judged(recipe):
    local = Counting()
    local.go.clear()
    reasoner = MicroBatched(local, max_batch=4, max_wait_s=0.0)
    first = ask(reasoner, recipe, "first")
    while not local.batches:
        await asyncio.sleep(0.001)
    gone, stays = ask(reasoner, recipe, "gone"), ask(reasoner, recipe, "stays")
    await asyncio.sleep(0.01)
    gone.cancel()
    local.go.set()
    assert (await first).raw_text == "first"
    assert (await stays).raw_text == "stays"
    assert [q.image_sha256 for q in local.batches[1]] == ["stays"]
    await reasoner.aclose()


async def test_closing_answers_even_those_at_the_door(recipe):
    before = set(threading.enumerate())
    local = Counting(seconds=0.01)
    reasoner = MicroBatched(local, max_batch=2, max_wait_s=30.0, queue=2)
    tasks = [ask(reasoner, recipe, n) for n in range(6)]
    await asyncio.sleep(0)
    await reasoner.aclose()
    assert [task.result().raw_text for task in tasks] == [str(n) for n in range(6)]
    with pytest.raises(ReasonerUnavailable):
        await ask(reasoner, recipe, "late")
    left = set(threading.enumerate()) - before
    assert not [thread for thread in left if thread.name.startswith("reasoner")]


async def test_closing_unused(recipe):
    reasoner = MicroBatched(Counting())
    assert (reasoner.fingerprint, reasoner.products) == ("counting", {"toy"})
    await reasoner.aclose()
    await reasoner.aclose()
