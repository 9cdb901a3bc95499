"""The served reasoner over real HTTP: what it sends, and what it makes of failures."""

import asyncio
import base64
import io
import math
import time

import pytest
from openai.types.chat.chat_completion import Choice
from PIL import Image

from lad_agent import images
from lad_agent.errors import ReasonerError, ReasonerTimeout, ReasonerUnavailable
from lad_agent.reasoners.served import ServedReasoner, _read
from lad_agent.recipe import load
from tests.reasoners import toy


@pytest.fixture
def recipe(tmp_path):
    return toy.write_recipe(tmp_path, samples=3, sample_below=0.75)


@pytest.fixture
def server(toy_server):
    toy_server.requests.clear()
    toy_server.failures_left = toy_server.most_at_once = 0
    return toy_server


@pytest.fixture
async def open_served(server):
    opened = []

    def open_it(model="toy", **options):
        options = {"retries": 0, "max_new_tokens": toy.LIMIT} | options
        opened.append(ServedReasoner(options.pop("url", server.url), model, **options))
        return opened[-1]

    yield open_it
    for reasoner in opened:
        await reasoner.aclose()


async def test_answers_as_the_local_one(open_served, toy_model, recipe):
    served = open_served()
    for colour in (toy.DARK, toy.BRIGHT, toy.GREEN, toy.BLUE, toy.RED):
        question = toy.question(recipe, colour)
        found, [expected] = await served.judge(question), toy_model.judge_batch([question])
        assert found.raw_text == expected.raw_text
        assert found.well_formed == expected.well_formed
        assert found.samples == expected.samples
        assert found.weakest_token == pytest.approx(expected.weakest_token, abs=1e-4)
        if not found.samples and found.well_formed:
            assert found.anomaly_score == pytest.approx(expected.anomaly_score, abs=1e-4)


async def test_what_is_sent(open_served, server, recipe):
    question = toy.question(recipe, toy.GREEN)
    await open_served().judge(question)
    greedy, draws = server.requests
    assert (greedy["temperature"], greedy["n"]) == (0.0, 1)
    assert (draws["temperature"], draws["n"], draws["top_p"]) == (1.0, 3, 1.0)
    for body in (greedy, draws):
        assert (body["logprobs"], body["top_logprobs"]) == (True, 20)
        assert (body["repetition_penalty"], body["top_k"]) == (1.0, -1)
        assert body["max_tokens"] == toy.LIMIT
    urls = [
        part["image_url"]["url"]
        for part in greedy["messages"][1]["content"]
        if part["type"] == "image_url"
    ]
    shown = [_decode(url) for url in urls]
    expected = [*images.references(recipe), question.image]
    assert [image.tobytes() for image in shown] == [image.tobytes() for image in expected]


async def test_other_references_are_sent_one_turn_after_the_other(open_served, server, tmp_path):
    recipe = toy.write_recipe(
        tmp_path, references=3, samples=0, sample_below=0.75, other_references=2
    )
    await open_served().judge(toy.question(recipe, toy.GREEN))
    assert [(body["temperature"], body["n"]) for body in server.requests] == [(0.0, 1)] * 3
    for body, reference in zip(server.requests, images.references(recipe), strict=True):
        parts = body["messages"][1]["content"]
        first, _ = (_decode(p["image_url"]["url"]) for p in parts if p["type"] != "text")
        assert first.tobytes() == reference.tobytes()


def _decode(url):
    head, data = url.split(",")
    assert head == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


async def test_seeds_depend_on_the_picture_alone(open_served, server, recipe):
    served = open_served()
    await asyncio.gather(*(served.judge(toy.question(recipe, toy.DARK, n % 3)) for n in range(6)))
    assert len({body["seed"] for body in server.requests}) == 3


async def test_pictures_are_cut_to_whole_visual_tokens(open_served, server, tmp_path):
    path = toy.write_recipe(tmp_path, samples=0).path
    path.write_text(path.read_text().replace("image_size: 56", "image_size: 60"))
    recipe = load(path)
    await open_served().judge(toy.question(recipe, toy.DARK))
    parts = server.requests[0]["messages"][1]["content"]
    assert {_decode(p["image_url"]["url"]).size for p in parts if p["type"] != "text"} == {(56, 56)}


async def test_a_bounded_number_is_in_flight(open_served, server, recipe):
    served = open_served(max_in_flight=2)
    answers = await asyncio.gather(
        *(served.judge(toy.question(recipe, toy.DARK, n)) for n in range(8))
    )
    assert [answer.anomalous for answer in answers] == [False] * 8
    assert 1 <= server.most_at_once <= 2


async def test_tries_again_where_the_server_is_overloaded(open_served, server, recipe):
    server.failures_left = 1
    found = await open_served(retries=2).judge(toy.question(recipe, toy.DARK))
    assert found.anomalous is False
    assert len(server.requests) == 2


async def test_gives_up_on_an_overloaded_server(open_served, server, recipe):
    server.failures_left = 2
    with pytest.raises(ReasonerUnavailable, match="overloaded"):
        await open_served(retries=1).judge(toy.question(recipe, toy.DARK))
    assert len(server.requests) == 2


async def test_no_answer_in_time(open_served, recipe):
    begun = time.perf_counter()
    with pytest.raises(ReasonerTimeout, match=r"no answer in 0\.2 s"):
        await open_served("slow", timeout_s=0.2).judge(toy.question(recipe, toy.DARK))
    assert time.perf_counter() - begun < 0.9


async def test_no_longer_than_the_policy_allows(open_served, tmp_path):
    recipe = toy.write_recipe(tmp_path, samples=0, time_limit_s=0.2)
    with pytest.raises(ReasonerTimeout):
        await open_served("slow").judge(toy.question(recipe, toy.DARK))


async def test_nobody_there(open_served, recipe):
    with pytest.raises(ReasonerUnavailable, match="is the server running"):
        await open_served(url="http://127.0.0.1:9/v1").judge(toy.question(recipe, toy.DARK))


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("unknown", "unknown model"),
        ("secret", "LAD_AGENT_API_KEY"),
        ("picky", "top_k is not supported"),
        ("mute", "no log-probabilities"),
        ("parsing", "without a reasoning parser"),
    ],
)
async def test_refusals_name_the_remedy(open_served, recipe, model, words):
    with pytest.raises(ReasonerError, match=words) as error:
        await open_served(model).judge(toy.question(recipe, toy.DARK))
    assert "\n" not in str(error.value)


async def test_a_failure_hurts_its_own_question_only(open_served, server, recipe):
    served = open_served()
    server.failures_left = 1
    answers = await asyncio.gather(
        *(served.judge(toy.question(recipe, toy.DARK, n)) for n in range(4)),
        return_exceptions=True,
    )
    kinds = sorted(type(answer).__name__ for answer in answers)
    assert kinds == ["Judgement", "Judgement", "Judgement", "ReasonerUnavailable"]


@pytest.mark.parametrize(
    ("environment", "given", "sent"),
    [
        ({"OPENAI_API_KEY": "mine"}, None, "none"),
        ({"OPENAI_API_KEY": "mine", "LAD_AGENT_API_KEY": "ours"}, None, "ours"),
        ({"LAD_AGENT_API_KEY": "ours"}, "given", "given"),
    ],
)
async def test_keys_go_where_they_belong(
    open_served, server, recipe, monkeypatch, environment, given, sent
):
    monkeypatch.delenv("LAD_AGENT_API_KEY", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    await open_served(api_key=given).judge(toy.question(recipe, toy.DARK))
    assert server.authorization == f"Bearer {sent}"


async def test_is_named_by_model_and_endpoint(open_served):
    served = open_served(url="https://line7:8000/v1/", products=frozenset({"toy"}))
    assert served.fingerprint == "toy@line7:8000/v1"
    assert served.products == {"toy"}


def test_tokens_that_hold_parts_of_characters_are_passed_over():
    """Servers spell such tokens as they can; the verdict is found from the end."""
    said = [("<think>", 0.9), ("Gr", 0.8), ("\ufffd", 0.7), ("\ufffd", 0.95), ("</think>", 0.9),
            ("<answer>", 0.9), (" no", 0.6), ("</answer>", 0.5), ("<|im_end|>", 0.5)]  # fmt: skip
    choice = _choice("<think>Gr螺</think><answer> no</answer>", said)
    found = _read(choice, "toy")
    assert found.weakest_token == pytest.approx(0.7)
    assert found.p_yes == pytest.approx(0.2 / 0.8)
    assert found.tokens == 9


def test_tokens_that_are_not_the_answers_give_no_figures():
    choice = _choice("<think>a</think><answer>no</answer>", [("something", 0.9), ("else", 0.9)])
    found = _read(choice, "toy")
    assert (found.weakest_token, found.p_yes) == (None, None)


@pytest.mark.parametrize("value", [math.nan, -math.inf, math.inf])
@pytest.mark.parametrize("at", range(4))
def test_a_token_without_a_number_gives_no_figures(at, value):
    """Whichever it is: min and max of Python pass over a NaN that does not come first."""
    said = [("<think>", 0.9), ("a", 0.99), ("</think>", 0.9), ("<answer>", 0.9), ("no", 0.9),
            ("</answer>", 0.9)]  # fmt: skip
    choice = _choice("<think>a</think><answer>no</answer>", said)
    assert _read(choice, "toy").weakest_token == pytest.approx(0.9)
    choice.logprobs.content[at].logprob = value
    found = _read(choice, "toy")
    assert (found.weakest_token, found.mean_logprob, found.p_yes) == (None, None, None)


def _choice(text, said):
    content = [
        {"token": token, "logprob": math.log(p), "bytes": list(token.encode()),
         "top_logprobs": [{"token": "yes", "logprob": math.log(0.2)}]}
        for token, p in said
    ]  # fmt: skip
    return Choice.model_validate(
        {"index": 0, "finish_reason": "stop", "logprobs": {"content": content},
         "message": {"role": "assistant", "content": text}}
    )  # fmt: skip
