"""The local reasoner against the stock `generate`, in batches, in draws, with adapters."""

import dataclasses
import itertools
import math
import shutil
import sys
from collections import Counter
from functools import partial

import pytest
import torch
from safetensors.torch import save_file

from lad_agent import images, protocol
from lad_agent.errors import ModelError, UnreadableInput
from lad_agent.reasoners import Question, decoding
from lad_agent.reasoners.local import TransformersReasoner, _uniform
from lad_agent.recipe import load
from tests.reasoners import toy
from tests.reasoners.stand import Stand

COLOURS = (toy.DARK, toy.BRIGHT, toy.GREEN, toy.BLUE, toy.RED)


_TIME = {"elapsed_s"}
_FIGURES = {"anomaly_score", "confidence", "weakest_token", "mean_logprob", "sum_logprob"}


@pytest.fixture
def recipe(tmp_path):
    return toy.write_recipe(tmp_path, samples=6, sample_below=0.75)


def close(one, other):
    """Equal, figures within rounding, time left out."""
    return all(
        a.model_dump(exclude=_TIME | _FIGURES) == b.model_dump(exclude=_TIME | _FIGURES)
        and all(getattr(a, f) == pytest.approx(getattr(b, f), abs=1e-5) for f in _FIGURES)
        for a, b in zip(one, other, strict=True)
    )


def stock(reasoner, question):
    """Text, weakest token and P(yes) as transformers' own `generate` has them."""
    model, processor = reasoner._checkpoint.model, reasoner._checkpoint.processor
    recipe = question.recipe
    text = processor.apply_chat_template(
        protocol.messages(recipe.product, recipe.rules, len(recipe.references)),
        add_generation_prompt=True,
        tokenize=False,
    )
    shown = [*images.references(recipe), question.image]
    inputs = processor(text=[text], images=[shown], return_tensors="pt")
    out = model.generate(
        **inputs, do_sample=False, repetition_penalty=1.0, max_new_tokens=toy.LIMIT,
        return_dict_in_generate=True, output_logits=True,
    )  # fmt: skip
    ids = out.sequences[0, inputs["input_ids"].shape[1] :].tolist()
    probabilities = torch.stack(out.logits, 1)[0].softmax(-1)
    ids = ids[: ids.index(processor.tokenizer.eos_token_id)]
    verdict = next(i for i in reversed(range(len(ids))) if ids[i] in reasoner._reader.spelled)
    sides = {True: 0.0, False: 0.0}
    for token, word in reasoner._reader.spelled.items():
        sides[protocol.spells(word)] += float(probabilities[verdict, token])
    weakest = min(float(probabilities[n, ids[n]]) for n in range(verdict))
    return processor.tokenizer.decode(ids), weakest, sides[True] / (sides[True] + sides[False])


@pytest.mark.parametrize("colour", [toy.DARK, toy.BRIGHT, toy.GREEN])
def test_agrees_with_the_stock_generate(toy_model, tmp_path, colour):
    recipe = toy.write_recipe(tmp_path, samples=0)
    question = toy.question(recipe, colour)
    text, weakest, p_yes = stock(toy_model, question)
    [found] = toy_model.judge_batch([question])
    assert found.raw_text == text
    assert found.weakest_token == pytest.approx(weakest, abs=1e-5)
    assert found.anomaly_score == pytest.approx(p_yes, abs=1e-5)


def test_agrees_with_the_stock_generate_on_several_references_and_another_size(toy_model, tmp_path):
    path = toy.write_recipe(tmp_path, samples=0).path
    toy.picture(toy.BRIGHT, 5, 84).save(tmp_path / "second.png")
    listed = "[reference.png, second.png]\nreferences_shown: 2"
    written = path.read_text().replace("[reference.png]", listed)
    path.write_text(written.replace("image_size: 56", "image_size: 84"))
    recipe = load(path)
    question = Question(recipe, toy.picture(toy.DARK, 3, 84), "1" * 64)
    start = _prefilled(toy_model, question)
    logits = _stock_logits(toy_model, question)
    assert torch.allclose(start.logits[0], logits, atol=1e-4)


def _prefilled(reasoner, question):
    features = reasoner._features([question])
    prompt = reasoner._prompt(question.recipe)
    return decoding.prefill(reasoner._checkpoint.model, prompt, features)


@torch.inference_mode()
def _stock_logits(reasoner, question):
    model, processor = reasoner._checkpoint.model, reasoner._checkpoint.processor
    recipe = question.recipe
    text = processor.apply_chat_template(
        protocol.messages(recipe.product, recipe.rules, len(recipe.references)),
        add_generation_prompt=True,
        tokenize=False,
    )
    shown = [[*images.references(recipe), question.image]]
    inputs = processor(text=[text], images=shown, do_resize=False, return_tensors="pt")
    return model(**inputs).logits[0, -1]


def test_a_batch_judges_as_one_by_one(toy_model, recipe):
    questions = [toy.question(recipe, COLOURS[n % 5], n) for n in range(20)]
    together = toy_model.judge_batch(questions)
    alone = [toy_model.judge_batch([question])[0] for question in questions]
    assert close(together, alone)
    assert close(together, list(reversed(toy_model.judge_batch(questions[::-1]))))


def test_recipes_may_be_mixed(toy_model, recipe, tmp_path):
    other = toy.write_recipe(tmp_path / "other", rule="exactly 3 lamps", samples=0)
    assert other.task_version != recipe.task_version
    questions = [
        toy.question(r, colour, n)
        for n, colour in enumerate((toy.DARK, toy.BRIGHT, toy.GREEN))
        for r in (recipe, other)
    ]
    mixed = toy_model.judge_batch(questions)
    apart = [toy_model.judge_batch([question])[0] for question in questions]
    assert close(mixed, apart)
    assert [j.samples for j in mixed[1::2]] == [0, 0, 0]


def test_policies_of_one_task_share_a_batch(toy_model, tmp_path):
    few = toy.write_recipe(tmp_path / "few", samples=2, sample_below=1.0)
    many = toy.write_recipe(tmp_path / "many", samples=9, sample_below=1.0)
    assert few.task_version == many.task_version
    found = toy_model.judge_batch([toy.question(few, toy.GREEN), toy.question(many, toy.GREEN)])
    assert [j.samples for j in found] == [2, 9]


def test_no_questions_no_judgements(toy_model):
    assert toy_model.judge_batch([]) == []


def test_prompts_of_many_recipes_do_not_pile_up(toy_model, tmp_path):
    recipes = [
        toy.write_recipe(tmp_path / str(n), rule=f"exactly {n} lamps", samples=0) for n in range(20)
    ]
    first = toy_model.judge_batch([toy.question(recipes[0], toy.DARK)])
    for recipe in recipes:
        toy_model.judge_batch([toy.question(recipe, toy.DARK)])
    assert len(toy_model._prompts) == 16
    assert close(first, toy_model.judge_batch([toy.question(recipes[0], toy.DARK)]))


class TestDraws:
    def test_follow_the_models_probabilities(self, recipe):
        """5,000 draws of two tokens: each pair as often as its probability, within 4 sigma."""
        table = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.0, 0.9]]).log()
        question, number = toy.question(recipe, toy.GREEN), 5000
        draws = [(0, partial(_uniform, question, "model", n)) for n in range(number)]
        found = decoding.decode(
            Stand(table),
            decoding.Prefilled(layers=(), logits=table[:1], next_position=1),
            draws,
            stop=frozenset(),
            limit=2,
            watch=torch.tensor([0]),
        )
        seen = Counter(tuple(answer.ids) for answer in found)
        for first, second in itertools.product(range(3), range(3)):
            p = float((table[0, first] + table[1, second]).exp())
            spread = 4 * math.sqrt(p * (1 - p) / number)
            assert abs(seen[first, second] / number - p) <= spread

    def test_are_exact_inverse_sampling(self):
        logprobs = torch.tensor([[0.5, 0.0, 0.3, 0.2]]).log().expand(1000, 4)
        numbers = [(n + 0.5) / 1000 for n in range(1000)]
        picked = Counter(decoding._pick(logprobs, numbers).tolist())
        assert picked == {0: 500, 2: 300, 3: 200}

    def test_the_last_number_picks_a_token_that_can_be(self):
        logprobs = torch.tensor([[1.0, 0.0]]).log()
        assert decoding._pick(logprobs, [1 - 2**-48]).tolist() == [0]

    def test_are_the_same_in_any_company(self, toy_model, tmp_path):
        recipe = toy.write_recipe(tmp_path, samples=8, sample_below=1.0)
        question = toy.question(recipe, toy.GREEN, 7)
        [alone] = toy_model.judge_batch([question])
        crowd = [toy.question(recipe, COLOURS[n % 5], n) for n in range(8, 20)]
        assert close([alone], [toy_model.judge_batch([*crowd, question])[-1]])

    def test_differ_by_picture_and_number(self, toy_model, tmp_path):
        recipe = toy.write_recipe(tmp_path, samples=16, sample_below=1.0)
        found = toy_model.judge_batch([toy.question(recipe, toy.GREEN, n) for n in range(12)])
        assert len({j.agreement for j in found}) > 3
        assert any(0.0 < j.agreement < 1.0 for j in found)

    def test_leave_the_greedy_answer_as_it_is(self, toy_model, tmp_path):
        none = toy.write_recipe(tmp_path / "none", samples=0)
        many = toy.write_recipe(tmp_path / "many", samples=8, sample_below=1.0)
        [a] = toy_model.judge_batch([toy.question(none, toy.GREEN)])
        [b] = toy_model.judge_batch([toy.question(many, toy.GREEN)])
        assert (a.raw_text, a.anomalous) == (b.raw_text, b.anomalous)
        assert a.weakest_token == pytest.approx(b.weakest_token, abs=1e-6)


class TestOtherReferences:
    """A part in doubt is judged again under the recipe's next references, one at a time."""

    @pytest.fixture
    def several(self, tmp_path):
        return toy.write_recipe(
            tmp_path, references=3, samples=0, sample_below=1.0, other_references=2
        )

    def test_each_answer_is_that_under_its_reference_alone(self, toy_model, several):
        alone = [
            dataclasses.replace(
                several,
                references=several.references[n : n + 1],
                reference_sha256=several.reference_sha256[n : n + 1],
                policy=several.policy.model_copy(update={"other_references": None}),
                task_version=f"alone {n}",
            )
            for n in range(3)
        ]
        for colour in (toy.GREEN, toy.DARK):
            [found] = toy_model.judge_batch([toy.question(several, colour)])
            first, *others = (toy_model.judge_batch([toy.question(r, colour)])[0] for r in alone)
            assert found.raw_text == first.raw_text
            scores = [j.anomaly_score for j in (first, *others)]
            assert found.anomaly_score == pytest.approx(sum(scores) / 3, abs=1e-5)
            assert found.tokens == first.tokens + sum(j.tokens for j in others)
            assert found.samples == 2
            agree = [j.anomalous == first.anomalous for j in others]
            assert found.agreement == sum(agree) / 2

    def test_a_batch_judges_as_one_by_one(self, toy_model, several):
        questions = [toy.question(several, COLOURS[n % 5], n) for n in range(10)]
        alone = [toy_model.judge_batch([question])[0] for question in questions]
        assert close(toy_model.judge_batch(questions), alone)

    def test_draws_and_other_references_join(self, toy_model, several):
        policy = several.policy.model_copy(update={"samples": 3})
        both = dataclasses.replace(several, policy=policy)
        [found] = toy_model.judge_batch([toy.question(both, toy.GREEN)])
        assert found.samples == 5

    def test_more_references_than_are_shown_are_not_read_into_the_prompt(self, toy_model, tmp_path):
        one = toy.write_recipe(tmp_path / "one", samples=0)
        three = toy.write_recipe(tmp_path / "three", references=3, samples=0)
        assert one.task_version != three.task_version
        [a], [b] = (toy_model.judge_batch([toy.question(r, toy.GREEN)]) for r in (one, three))
        assert close([a], [b])


class TestLimits:
    def test_an_answer_longer_than_the_limit_is_malformed(self, toy_folder, recipe):
        [whole] = TransformersReasoner(toy_folder, device="cpu").judge_batch(
            [toy.question(recipe, toy.DARK)]
        )
        for limit, well_formed in ((whole.tokens + 1, True), (whole.tokens, False), (3, False)):
            reasoner = TransformersReasoner(toy_folder, device="cpu", max_new_tokens=limit)
            [found] = reasoner.judge_batch([toy.question(recipe, toy.DARK)])
            assert found.well_formed is well_formed
            assert found.tokens <= limit

    def test_long_answers_outgrow_the_room_of_the_cache(self, toy_folder, recipe):
        reasoner = TransformersReasoner(toy_folder, device="cpu", max_new_tokens=200)
        [found] = reasoner.judge_batch([toy.question(recipe, toy.RED)])
        assert found.tokens > 100
        assert not found.well_formed

    def test_a_lost_reference_is_named(self, toy_model, tmp_path):
        recipe = toy.write_recipe(tmp_path, rule="exactly 77 lamps")
        recipe.references[0].unlink()
        with pytest.raises(UnreadableInput, match=r"reference\.png"):
            toy_model.judge_batch([toy.question(recipe, toy.DARK)])

    def test_the_callers_floating_point_mode_is_left_alone(self, toy_model, recipe):
        toy_model.judge_batch([toy.question(recipe, toy.DARK)])
        assert sys.float_info.min / 2 > 0.0


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
class TestAdapter:
    @pytest.fixture
    def adapter(self, toy_folder, tmp_path):
        """A LoRA adapter that turns the language model's head upside down."""
        from peft import LoraConfig, get_peft_model

        base = TransformersReasoner(toy_folder, device="cpu")._checkpoint.model
        settings = LoraConfig(
            r=4, target_modules=r".*language_model\.layers\.\d+\.mlp\.(gate|up|down)_proj"
        )
        torch.manual_seed(1)
        model = get_peft_model(base, settings)
        for name, weights in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weights, std=0.5)
        model.save_pretrained(tmp_path / "adapter")
        return tmp_path / "adapter"

    def test_changes_answer_and_fingerprint(self, toy_folder, toy_model, adapter, recipe):
        adapted = TransformersReasoner(toy_folder, device="cpu", adapter=adapter)
        question = toy.question(recipe, toy.DARK)
        [plain], [changed] = toy_model.judge_batch([question]), adapted.judge_batch([question])
        assert plain.raw_text != changed.raw_text
        assert adapted.fingerprint != toy_model.fingerprint
        again = TransformersReasoner(toy_folder, device="cpu", adapter=adapter)
        assert again.fingerprint == adapted.fingerprint

    def test_merged_it_answers_as_peft_does(self, toy_folder, adapter, recipe):
        from peft import PeftModel

        merged = TransformersReasoner(toy_folder, device="cpu", adapter=adapter)
        apart = TransformersReasoner(toy_folder, device="cpu")
        question = toy.question(recipe, toy.BRIGHT)
        expected = _stock_logits(merged, question)
        wrapped = PeftModel.from_pretrained(apart._checkpoint.model, adapter).eval()
        apart._checkpoint = dataclasses.replace(apart._checkpoint, model=wrapped)
        assert torch.allclose(expected, _stock_logits(apart, question), atol=1e-3)


class TestWitness:
    def test_contradicts_where_the_model_keeps_one(self, toy_folder, tmp_path, recipe, monkeypatch):
        from lad_agent.reasoners import local

        class Witness:
            head = torch.nn.Linear(1, 1)

            def facts(self, features):
                self.shape = features.shape
                return ["seen"] * len(features)

            def contradiction(self, seen, product, rules, text):
                assert (seen, product, rules) == ("seen", "toy", recipe.rules)
                return "the head sees two" if "1 of 1" in text else None

        witness = Witness()
        monkeypatch.setattr(local, "load_witness", lambda folder: witness)
        monkeypatch.setattr(local, "CELLS", range(4))
        reasoner = TransformersReasoner(toy_folder, device="cpu")
        good, bad, malformed = reasoner.judge_batch(
            [toy.question(recipe, c) for c in (toy.DARK, toy.BRIGHT, toy.BLUE)]
        )
        assert witness.shape == (3, 4, 64)
        assert (good.evidence, good.evidence_detail) == ("contradicted", "the head sees two")
        assert (bad.evidence, malformed.evidence) == ("consistent", "unchecked")

    def test_a_damaged_one_is_an_error(self, toy_folder, tmp_path):
        folder = shutil.copytree(toy_folder, tmp_path / "model")
        (folder / "witness.json").write_text("{}")
        save_file({"a": torch.zeros(1)}, folder / "witness.safetensors")
        with pytest.raises(ModelError, match="witness"):
            TransformersReasoner(folder, device="cpu")
