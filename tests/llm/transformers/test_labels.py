"""Score labels: against multiplication token by token, and with the tokenizers of many families."""

import shutil
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from multicsr.config import LLMConfig
from multicsr.errors import ConfigError
from multicsr.llm.label_probabilities import PROBABILITY_STEP
from multicsr.llm.prompt_tokens import PromptTokens
from multicsr.llm.transformers.engine import TransformersEngine
from multicsr.llm.transformers.read_labels import read_labels
from multicsr.prompts import load_prompts
from multicsr.stages.generate.triplets import TripletStage
from multicsr.stages.score.expected import expected_scores
from tests.support.decoding import next_logits
from tests.support.tiny_llms import make_config
from tests.support.tokenizers import IMITATED, REAL, t5

PROMPTS = load_prompts("syncse")
NESTED = ["1", "10", "100", "17 apples", "17 dogs", "the same"]
"""Labels of several tokens, some of which are the beginning of others."""


@pytest.fixture
def engine(model_dir):
    engine = TransformersEngine(make_config(model_dir))
    with torch.no_grad():
        engine._read.args[0].get_output_embeddings().weight *= 0.1  # such a random model is sure of one token
    return engine


def spellings(tokenizer, prompt, labels, *, has_encoder):
    """The set of token paths of each label: without and with a blank before it."""
    found = []
    for label in labels:
        texts = (label.strip(), " " + label.strip())
        if has_encoder:
            found.append({tuple(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts})
        else:
            start = len(tokenizer(prompt)["input_ids"])
            found.append({tuple(tokenizer(prompt + text)["input_ids"][start:]) for text in texts})
    return found


def step_by_step(model, tokenizer, prompt, labels):
    """Probabilities of the labels, each token by a whole forward pass."""
    found = spellings(tokenizer, prompt, labels, has_encoder=model.config.is_encoder_decoder)
    ids = tokenizer(prompt)["input_ids"]

    def p_after(written):
        with torch.no_grad():
            return next_logits(model, ids, list(written)).double().softmax(-1).numpy()

    def starts(path, number):
        others = [other for i, paths in enumerate(found) if i != number for other in paths]
        return any(other[: len(path)] == path for other in others)

    def end_of(path, number):
        for length in range(1, len(path)):
            is_text = tokenizer.convert_ids_to_tokens(path[length - 1]).strip("Ġ▁") != ""
            if is_text and not starts(path[:length], number):
                return path[:length]
        return path

    ends = [{end_of(path, number) for path in paths} for number, paths in enumerate(found)]
    all_ends = [end for some in ends for end in some]
    mass = []
    for some in ends:
        total = 0.0
        for end in some:
            p = np.prod([p_after(end[:i])[end[i]] for i in range(len(end))])
            onward = {
                other[len(end)] for other in all_ends if len(other) > len(end) and other[: len(end)] == end
            }
            if onward:
                p *= sum(p_next for token, p_next in enumerate(p_after(end)) if token not in onward)
            total += p
        mass.append(total)
    return np.array(mass) / sum(mass)


@pytest.mark.parametrize("labels", [PROMPTS.score_labels, NESTED], ids=["digits", "nested"])
def test_label_probabilities_are_products_over_the_tokens(engine, premises, labels):
    prompts = [PROMPTS.scoring(a, b) for a, b in pairwise(premises[:13])]
    model, tokenizer = engine._read.args[0], engine.tokens._tokenizer
    found = np.stack(engine.label_probabilities(prompts, labels))
    for row, prompt in zip(found, prompts, strict=True):
        assert (
            np.abs(row - step_by_step(model, tokenizer, prompt, labels)).max() <= PROBABILITY_STEP / 2 + 1e-4
        )
    assert len(np.unique(found)) > 10
    assert (len(engine._tree(labels).prefixes) > 3) == (labels is NESTED)


@pytest.mark.parametrize("labels", [PROMPTS.score_labels, NESTED], ids=["digits", "nested"])
def test_label_probabilities_are_the_same_in_every_batch(engine, premises, labels):
    prompts = [PROMPTS.scoring(a, b) for a, b in pairwise(premises[:40])]
    whole = np.stack(engine.label_probabilities(prompts, labels))
    backwards = np.stack(engine.label_probabilities(prompts[::-1], labels))[::-1]
    alone = np.stack([engine.label_probabilities([prompt], labels)[0] for prompt in prompts])
    assert (whole == backwards).all()
    assert (whole == alone).all()


class ForcedBranches:
    """Model that writes one sequence of tokens after every prompt; what follows anything else is open."""

    def __init__(self, forced, vocab_size, prompts):
        self._forced, self._vocab_size = list(forced), vocab_size
        self._written = [[] for _ in prompts]
        self.first_PV = self._logits()

    def fork(self, prompts):
        self._written = [[] for _ in prompts]

    def step(self, tokens_R):
        for written, token in zip(self._written, tokens_R.tolist(), strict=True):
            written.append(token)
        return self._logits()

    def keep(self, rows_K):
        self._written = [self._written[row] for row in rows_K.tolist()]

    def _logits(self):
        logits = torch.zeros(len(self._written), self._vocab_size)
        for row, written in zip(logits, self._written, strict=True):
            if len(written) < len(self._forced) and written == self._forced[: len(written)]:
                row[self._forced[len(written)]] = 40.0
        return logits


def expected_of_forced(tokens, forced, vocab_size):
    tree = tokens.label_tree(PROMPTS, PROMPTS.score_labels)
    [log_p] = read_labels(partial(ForcedBranches, forced, vocab_size), [[1, 2, 3]], tree)
    return expected_scores(tree.probabilities(log_p)[None])[0]


def check_decoder(tokenizer, prompts):
    """Each digit, forced with and without a blank, must be the score; each path must read as its digit."""
    tokens = PromptTokens(LLMConfig(model="m"), tokenizer, None, has_encoder=False)
    prompt = prompts.scoring("A man plays a guitar.", "A man makes music.")
    if tokenizer.chat_template:
        message = [{"role": "user", "content": prompt}]
        prompt = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
    special = not tokenizer.chat_template
    base = tokenizer(prompt, add_special_tokens=special)["input_ids"]
    tree = tokens.label_tree(prompts, prompts.score_labels)
    for path in tree.paths:
        if path not in tree.prefixes:
            text = tokenizer.decode([*base, *path], clean_up_tokenization_spaces=False)
            assert text[-1] in "012345"
            assert text[:-1] == tokenizer.decode(base, clean_up_tokenization_spaces=False) + text[-2] * (
                text[-2] == " "
            )
    for digit in range(6):
        for text in (f"{digit}", f" {digit}"):
            forced = tokenizer(prompt + text, add_special_tokens=special)["input_ids"][len(base) :]
            assert expected_of_forced(tokens, forced, len(tokenizer)) == pytest.approx(digit, abs=1e-5)
    return tree


@pytest.mark.parametrize("name", ["syncse", "reference"])
@pytest.mark.parametrize("family", IMITATED)
def test_a_forced_digit_is_the_score(family, name, premises):
    tree = check_decoder(IMITATED[family](premises), load_prompts(name))
    assert len(tree.prefixes) == (1 if family == "gpt2" else 2)


@pytest.mark.parametrize("name", ["syncse", "reference"])
@pytest.mark.parametrize("family", ["qwen3", "llama3", "llama2", "gemma3", "smollm2"])
def test_a_forced_digit_is_the_score_with_a_real_tokenizer(family, name):
    if not (REAL / family / "tokenizer.json").is_file():
        pytest.skip(f"no tokenizer of {family}: make tokenizers")
    tokenizer = AutoTokenizer.from_pretrained(REAL / family)
    assert len(tokenizer) > 30_000
    assert len(check_decoder(tokenizer, load_prompts(name)).prefixes) == 2


def test_a_forced_digit_is_the_score_of_a_t5_without_a_piece_for_0(premises, tmp_path):
    tokenizer = t5(premises, tmp_path)
    tokens = PromptTokens(LLMConfig(model="m"), tokenizer, None, has_encoder=True)
    lengths = []
    for digit in range(6):
        *forced, end = tokenizer(text_target=str(digit))["input_ids"]
        assert end == tokenizer.eos_token_id
        lengths.append(len(forced))
        assert expected_of_forced(tokens, forced, len(tokenizer)) == pytest.approx(digit, abs=1e-5)
    assert lengths == [2, 1, 1, 1, 1, 1]


def test_the_tokens_that_begin_every_target_begin_every_label(premises):
    from tokenizers.processors import TemplateProcessing

    tokenizer = IMITATED["gpt2"](premises)  # BART writes its start token before the text
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<pad> $A <eos>", special_tokens=[("<pad>", 0), ("<eos>", 1)]
    )
    tokens = PromptTokens(LLMConfig(model="m"), tokenizer, None, has_encoder=True)
    tree = tokens.label_tree(PROMPTS, PROMPTS.score_labels)
    assert tree.prefixes == [(), (0,)]
    assert len(tree.tokens_after((0,))) == 12


def test_a_label_that_melts_into_the_prompt_is_read_as_its_own_tokens(premises):
    tokenizer = IMITATED["gpt2"](premises)
    prompts = PROMPTS.model_copy(update={"score": "{premise} {hypothesis} Score: "})
    tokens = PromptTokens(LLMConfig(model="m"), tokenizer, None, has_encoder=False)
    tree = tokens.label_tree(prompts, prompts.score_labels)
    read = {tokenizer.decode([path[-1]]) for path in tree.paths}
    assert read == {f"{gap}{digit}" for gap in ("", " ") for digit in range(6)}


@pytest.fixture
def lacking(encoder_decoder_dir, premises, tmp_path):
    """A model whose tokenizer has no piece at all for 3."""
    model = shutil.copytree(encoder_decoder_dir, tmp_path / "model")
    for path in model.glob("tokenizer*"):
        path.unlink()
    t5(premises, tmp_path, without="3").save_pretrained(model)
    return model


def test_a_label_that_cannot_be_written_ends_the_job_before_the_first_sentence(lacking):
    with pytest.raises(ConfigError, match=r"generate\.prompts: .* cannot write the score label '3'; change"):
        TripletStage(make_config(lacking))
    TripletStage(make_config(lacking, score={"method": "llm_stated"}))
