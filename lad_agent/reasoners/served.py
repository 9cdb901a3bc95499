"""The served reasoner: any OpenAI-compatible endpoint that shows pictures to a Qwen2.5-VL.

Made for `vllm serve` (see docs/serving-with-vllm.md), which needs an environment of its own. The
server must return log-probabilities, and the answer as generated: no reasoning parser.
"""

import asyncio
import base64
import hashlib
import io
import itertools
import os
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import openai
from openai.types.chat import ChatCompletion
from openai.types.chat.chat_completion import Choice
from PIL import Image

from lad_agent import images, protocol
from lad_agent.errors import ReasonerError, ReasonerTimeout, ReasonerUnavailable
from lad_agent.judgement import Judgement
from lad_agent.reasoners.base import Drawn, Question, in_doubt, judgement
from lad_agent.reasoners.door import Door
from lad_agent.reasoners.reading import read_drawn
from lad_agent.recipe import Region

UNSHAPED: Mapping[str, Any] = {"repetition_penalty": 1.0, "top_k": -1}
"""Extra fields that switch off what a model's generation_config would do to the probabilities."""

_TOP = 20
_TOKEN = 28
_REFERENCES_KEPT = 16


class ServedReasoner:
    """A `Reasoner` behind an OpenAI-compatible HTTP API.

    Each question is one request, and where the policy asks for more one for all its draws and one
    for each turn of other references; at most `max_in_flight` questions are under way. The openai
    client tries `retries` times again where the server is away, overloaded or late. `api_key` falls
    back to LAD_AGENT_API_KEY, never to OPENAI_API_KEY, which is not meant for other people's
    servers. `extra_body` are further fields of the request, as the server understands them.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key: str | None = None,
        timeout_s: float = 60.0,
        retries: int = 2,
        max_in_flight: int = 32,
        max_new_tokens: int = 512,
        products: frozenset[str] | None = None,
        extra_body: Mapping[str, Any] = UNSHAPED,
    ) -> None:
        self._base_url = base_url
        self._model = model
        self._timeout_s = timeout_s
        self._max_new_tokens = max_new_tokens
        self._products = products
        self._extra_body = dict(extra_body)
        self._door = Door(max_in_flight)
        self._references: OrderedDict[str, list[str]] = OrderedDict()
        self._client = openai.AsyncOpenAI(
            base_url=base_url,
            api_key=api_key or os.environ.get("LAD_AGENT_API_KEY") or "none",
            max_retries=retries,
        )

    @property
    def fingerprint(self) -> str:
        """Model and endpoint; which weights are behind it only the server knows."""
        url = urlsplit(self._base_url)
        return f"{self._model}@{url.netloc}{url.path.rstrip('/')}"

    @property
    def products(self) -> frozenset[str] | None:
        """What the caller says the model was made for, None for any product."""
        return self._products

    async def judge(self, question: Question) -> Judgement:
        """Judge one image.

        Raises:
            ReasonerTimeout: no answer in time, after retries.
            ReasonerUnavailable: closed, not reachable, or overloaded, after retries.
            ReasonerError: the server refuses the request, or returns no log-probabilities.
            UnreadableInput: the recipe's reference image cannot be read.
        """
        async with self._door.enter():
            begun = time.perf_counter()
            messages = await asyncio.to_thread(self._messages, question, 0)
            [greedy] = await self._ask(question, messages, temperature=0.0, n=1)
            more = await self._more(question, messages) if in_doubt(greedy, question) else []
            elapsed = time.perf_counter() - begun
        return judgement(question, greedy, more, model=self.fingerprint, elapsed_s=elapsed)

    async def aclose(self) -> None:
        """Let what is under way end, take nothing more, and close the connections."""
        await self._door.close()
        await self._client.close()

    async def _more(self, question: Question, messages: Any) -> list[Drawn]:
        policy = question.recipe.policy
        answers = []
        if policy.samples:
            answers += await self._ask(question, messages, temperature=1.0, n=policy.samples)
        for turn in range(1, (policy.other_references or 0) + 1):
            messages = await asyncio.to_thread(self._messages, question, turn)
            answers += await self._ask(question, messages, temperature=0.0, n=1)
        return answers

    def _messages(self, question: Question, turn: int) -> list[dict[str, Any]]:
        recipe = question.recipe
        known = self._references.get(recipe.task_version)
        if known is None:
            pictures = images.references(recipe)
            known = [_data_url(picture, recipe.image_size) for picture in pictures]
            self._references[recipe.task_version] = known
            if len(self._references) > _REFERENCES_KEPT:
                self._references.popitem(last=False)
        shown = known[recipe.shown(turn)]
        urls = iter([*shown, _data_url(question.image, recipe.image_size)])
        written = protocol.messages(recipe.product, recipe.rules, len(shown))
        return [{**m, "content": [_part(part, urls) for part in m["content"]]} for m in written]

    async def _ask(
        self, question: Question, messages: Any, *, temperature: float, n: int
    ) -> list[Drawn]:
        try:
            completion: ChatCompletion = await self._client.chat.completions.create(
                model=self._model,
                messages=messages,
                temperature=temperature,
                top_p=1.0,
                n=n,
                seed=_seed(question, self._model),
                max_tokens=self._max_new_tokens,
                logprobs=True,
                top_logprobs=_TOP,
                timeout=min(self._timeout_s, question.recipe.policy.time_limit_s),
                extra_body=self._extra_body,
            )
        except openai.OpenAIError as error:
            raise self._as_ours(error) from error
        if len(completion.choices) != n:
            raise ReasonerError(
                f"{self.fingerprint}: {len(completion.choices)} answers instead of {n}"
            )
        return [_read(choice, self.fingerprint) for choice in completion.choices]

    def _as_ours(self, error: openai.OpenAIError) -> ReasonerError:
        who, words = self.fingerprint, " ".join(str(error).split())[:200]
        match error:
            case openai.APITimeoutError():
                return ReasonerTimeout(f"{who}: no answer in {self._timeout_s:g} s")
            case openai.APIConnectionError():
                return ReasonerUnavailable(f"{who}: not reachable; is the server running?")
            case openai.RateLimitError() | openai.InternalServerError():
                return ReasonerUnavailable(f"{who}: overloaded or failing ({words})")
            case openai.NotFoundError():
                return ReasonerError(f"{who}: unknown model or path ({words})")
            case openai.AuthenticationError() | openai.PermissionDeniedError():
                return ReasonerError(f"{who}: key refused; set LAD_AGENT_API_KEY")
            case _:
                return ReasonerError(f"{who}: request refused ({words})")


def _part(part: dict[str, Any], urls: Iterator[str]) -> dict[str, Any]:
    if part["type"] != "image":
        return part
    return {"type": "image_url", "image_url": {"url": next(urls)}}


def _data_url(picture: Image.Image, image_size: int) -> str:
    """The picture as PNG, cut to whole visual tokens here: servers may not resize as we do."""
    size = max(1, round(image_size / _TOKEN)) * _TOKEN
    file = io.BytesIO()
    images.prepare(picture, Region(), size).save(file, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def _seed(question: Question, model: str) -> int:
    """The same on every host and port: what is asked decides, not where."""
    name = f"{question.image_sha256}\0{question.recipe.task_version}\0{model}"
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") >> 1


def _read(choice: Choice, who: str) -> Drawn:
    if getattr(choice.message, "reasoning_content", None):
        raise ReasonerError(f"{who}: start the server without a reasoning parser")
    tokens = choice.logprobs.content if choice.logprobs else None
    if tokens is None:
        raise ReasonerError(f"{who}: no log-probabilities; the server must support logprobs")

    def alternatives(at: int) -> Mapping[str, float]:
        top = {t.token: t.logprob for t in tokens[at].top_logprobs}
        return {**top, tokens[at].token: tokens[at].logprob}

    text = choice.message.content or ""
    pieces = [t.token if t.bytes is None else _decoded(t.bytes) for t in tokens]
    return read_drawn(
        text,
        _ends(pieces, text),
        [token.logprob for token in tokens],
        alternatives,
        complete=choice.finish_reason == "stop",
    )


def _ends(pieces: list[str], text: str) -> list[int]:
    """Where each token ends in the text, reckoned from the verdict.

    The tokens' texts need not add up to the answer's: servers list the end token too, and cannot
    spell a token that holds a part of a character. Both lie outside what is looked for.
    """
    span = protocol.verdict_span(text)
    if span is None:
        return []
    generated = "".join(pieces)
    at = generated.rfind(text[span[0] :])
    if at < 0:
        return []
    return [end - at + span[0] for end in itertools.accumulate(map(len, pieces))]


def _decoded(spelled: list[int]) -> str:
    return bytes(spelled).decode("utf-8", "replace")
