"""The local reasoner: a Qwen2.5-VL folder judged by transformers, many questions at a time."""

import hashlib
import sys
import threading
import time
from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from PIL import Image

from lad_agent import images, protocol
from lad_agent.cells import CELLS
from lad_agent.errors import ModelError
from lad_agent.judgement import Judgement
from lad_agent.reasoners import decoding
from lad_agent.reasoners.answers import AnswerReader
from lad_agent.reasoners.base import Drawn, Question, in_doubt, judgement
from lad_agent.reasoners.checkpoint import load_checkpoint
from lad_agent.reasoners.processing import pixels, usable_size
from lad_agent.reasoners.witness import Witness, load_witness
from lad_agent.recipe import Recipe, Region

MAX_NEW_TOKENS = 512
_PROMPTS_KEPT = 16


class TransformersReasoner:
    """Judges batches with a model folder; wrap it in `MicroBatched` for a `Reasoner`.

    Deterministic: a question's answer and draws depend on its picture, its recipe's task and the
    model, not on the questions beside it. On a CPU batches differ by rounding alone (1e-6).
    Answers longer than `max_new_tokens` are malformed.

    Raises:
        ModelError: the folder or the adapter cannot be used.
        PrerequisiteError: the device is not there.
    """

    def __init__(
        self,
        folder: Path,
        *,
        device: str = "auto",
        adapter: Path | None = None,
        max_batch: int = 32,
        max_new_tokens: int | None = None,
    ) -> None:
        self._checkpoint = load_checkpoint(folder, device=device, adapter=adapter)
        settings = self._checkpoint.model.generation_config
        self._limit = max_new_tokens or settings.max_new_tokens or MAX_NEW_TOKENS
        self._max_batch = max_batch
        self._stop = _end_tokens(
            settings.eos_token_id, self._checkpoint.processor.tokenizer.eos_token_id
        )
        self._reader = AnswerReader(self._checkpoint.processor.tokenizer)
        self._prompts: OrderedDict[tuple[str, int], decoding.Prompt] = OrderedDict()
        self._witness = _witness(folder)
        if self._witness is not None:
            self._witness.head.to(self._checkpoint.device)
        self._one_at_a_time = threading.Lock()

    @property
    def fingerprint(self) -> str:
        """16 hex digits that name weights, configuration, tokenizer and adapter."""
        return self._checkpoint.fingerprint

    @property
    def products(self) -> frozenset[str] | None:
        """What the model was made for, None where it is open to any product."""
        return self._checkpoint.products

    def judge_batch(self, questions: Sequence[Question]) -> list[Judgement]:
        """One judgement for each question, in their order; recipes may be mixed.

        Questions of one task share the reading of its prompt, and are judged `max_batch` at a
        time.

        Raises:
            UnreadableInput: a recipe's reference image cannot be read.
        """
        judged: dict[int, Judgement] = {}
        with self._one_at_a_time, _flushing_denormals():
            for indices in self._batches(questions):
                batch = [questions[i] for i in indices]
                judged.update(zip(indices, self._judge(batch), strict=True))
        return [judged[i] for i in range(len(questions))]

    def _batches(self, questions: Sequence[Question]) -> Iterator[list[int]]:
        by_task: defaultdict[str, list[int]] = defaultdict(list)
        for index, question in enumerate(questions):
            by_task[question.recipe.task_version].append(index)
        for indices in by_task.values():
            for start in range(0, len(indices), self._max_batch):
                yield indices[start : start + self._max_batch]

    def _judge(self, batch: Sequence[Question]) -> list[Judgement]:
        begun = time.perf_counter()
        prompt = self._prompt(batch[0].recipe)
        features = self._features(batch)
        start = decoding.prefill(self._checkpoint.model, prompt, features)
        greedy = self._decode(start, None)
        doubtful = [row for row, question in enumerate(batch) if in_doubt(greedy[row], question)]
        more = self._draw(start, batch, doubtful)
        self._ask_again(features, batch, doubtful, more)
        doubts = self._hear_witness(features, batch, greedy)
        elapsed = time.perf_counter() - begun
        return [
            judgement(
                question,
                greedy[row],
                more[row],
                model=self.fingerprint,
                elapsed_s=elapsed,
                witness=doubts[row],
            )
            for row, question in enumerate(batch)
        ]

    def _prompt(self, recipe: Recipe, turn: int = 0) -> decoding.Prompt:
        name = recipe.task_version, turn
        known = self._prompts.get(name)
        if known is None:
            known = self._read_prompt(recipe, turn)
            self._prompts[name] = known
            if len(self._prompts) > _PROMPTS_KEPT:
                self._prompts.popitem(last=False)
        self._prompts.move_to_end(name)
        return known

    def _read_prompt(self, recipe: Recipe, turn: int) -> decoding.Prompt:
        processor, device = self._checkpoint.processor, self._checkpoint.device
        references = images.references(recipe)[recipe.shown(turn)]
        messages = protocol.messages(recipe.product, recipe.rules, len(references))
        text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        size = usable_size(recipe.image_size, processor)
        place = Image.new("RGB", (size, size))  # keeps the query's place; its tokens come later
        shown = [*(images.prepare(picture, Region(), size) for picture in references), place]
        inputs = processor(text=[text], images=[shown], do_resize=False, return_tensors="pt")
        inputs = inputs.to(device)
        visual = (inputs["input_ids"][0] == processor.image_token_id).nonzero()[:, 0].tolist()
        query_at = visual[-(len(visual) // len(shown))]
        return decoding.read_prompt(self._checkpoint.model, inputs, query_at)

    def _features(self, batch: Sequence[Question]) -> tuple[torch.Tensor, ...]:
        pictures = [question.image for question in batch]
        found = pixels(self._checkpoint.processor, pictures, batch[0].recipe.image_size)
        found = found.to(self._checkpoint.device)
        grids = found["image_grid_thw"]
        return decoding.image_features(self._checkpoint.model, found["pixel_values"], grids)

    def _draw(
        self, start: decoding.Prefilled, batch: Sequence[Question], doubtful: Sequence[int]
    ) -> list[list[Drawn]]:
        wanted = [
            (row, partial(_uniform, batch[row], self.fingerprint, number))
            for row in doubtful
            for number in range(batch[row].recipe.policy.samples)
        ]
        drawn: list[list[Drawn]] = [[] for _ in batch]
        for at in range(0, len(wanted), self._max_batch):
            part = wanted[at : at + self._max_batch]
            for (row, _), answer in zip(part, self._decode(start, part), strict=True):
                drawn[row].append(answer)
        return drawn

    def _ask_again(
        self,
        features: Sequence[torch.Tensor],
        batch: Sequence[Question],
        doubtful: Sequence[int],
        more: Sequence[list[Drawn]],
    ) -> None:
        """Add greedy answers under other references to `more`, as many as each policy asks for."""
        wanted = {row: batch[row].recipe.policy.other_references or 0 for row in doubtful}
        for turn in range(1, max(wanted.values(), default=0) + 1):
            rows = [row for row in doubtful if wanted[row] >= turn]
            prompt = self._prompt(batch[0].recipe, turn)
            seen = [features[row] for row in rows]
            start = decoding.prefill(self._checkpoint.model, prompt, seen)
            for row, answer in zip(rows, self._decode(start, None), strict=True):
                more[row].append(answer)

    def _hear_witness(
        self,
        features: Sequence[torch.Tensor],
        batch: Sequence[Question],
        greedy: Sequence[Drawn],
    ) -> list[str | None]:
        """How the model's second witness contradicts each rationale; it knows its own grid only."""
        if self._witness is None or len(features[0]) != len(CELLS):
            return [None] * len(batch)
        facts = self._witness.facts(torch.stack(tuple(features)))
        answers = [protocol.parse(drawn.text) for drawn in greedy]
        return [
            self._witness.contradiction(
                seen, question.recipe.product, question.recipe.rules, answer.rationale
            )
            if answer
            else None
            for seen, answer, question in zip(facts, answers, batch, strict=True)
        ]

    def _decode(
        self, start: decoding.Prefilled, draws: Sequence[tuple[int, decoding.Uniform]] | None
    ) -> list[Drawn]:
        spelled = list(self._reader.spelled)
        watch = torch.tensor(spelled, dtype=torch.long, device=self._checkpoint.device)
        answers = decoding.decode(
            self._checkpoint.model, start, draws, stop=self._stop, limit=self._limit, watch=watch
        )
        return [self._reader.read(answer) for answer in answers]


@contextmanager
def _flushing_denormals() -> Iterator[None]:
    """Denormal numbers make a CPU many times slower; the switch belongs to the thread."""
    already = sys.float_info.min / 2 == 0.0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(already)


def _uniform(question: Question, fingerprint: str, number: int, step: int) -> float:
    """The random number of one step of one draw: the same on every machine, in any company."""
    name = f"{question.image_sha256}\0{question.recipe.task_version}\0{fingerprint}"
    digest = hashlib.sha256(f"{name}\0{number}\0{step}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def _end_tokens(configured: int | list[int] | None, eos: int | None) -> frozenset[int]:
    tokens = configured if isinstance(configured, list) else [configured]
    return frozenset(token for token in (*tokens, eos) if token is not None)


def _witness(folder: Path) -> Witness | None:
    try:
        return load_witness(folder)
    except Exception as error:
        # json, safetensors and torch each raise their own on damaged or unfitting files.
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ModelError(f"{folder}: the second witness cannot be loaded ({reason})") from error
