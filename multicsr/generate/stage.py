"""Stages 1 and 2 for a block of sentences: write two hypotheses a premise, then score them.

Reads: rows.SENTENCE. Writes: rows.WRITTEN, in the order of the input. Paper: MultiCSR Sec. 3.1 and Eq. 3.
Generation and scoring share an actor because they share the model. A row that fails becomes a reject that
keeps what was filled; an LLM that fails raises.
"""

import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from operator import attrgetter

import numpy as np
import pyarrow as pa
from pydantic import JsonValue

from multicsr.config import Config
from multicsr.errors import ConfigError
from multicsr.generate.engine import Completion, Refusal, load_engine
from multicsr.manifest import Manifest
from multicsr.metrics import publish
from multicsr.models import digest_model, resolve_model
from multicsr.prompts import PromptSet, load_prompts
from multicsr.rows import WRITING_REASONS, WRITTEN, Reason, normalise
from multicsr.score.expected import expected_scores
from multicsr.score.parse import Unparsable, parse_score

_SPEED_ONLY = {"tokens_per_step", "kv_cache_gib", "gpu_memory", "prefix_caching", "eager"}
"""Settings of vLLM that decide how soon a row is written, not what it says."""
_HYPOTHESES = (
    "entailment",
    "contradiction",
    "entailment_prompt",
    "contradiction_prompt",
    "generated_tokens",
)
"""What need not be written again when only scores are wanted."""


@dataclass(slots=True)
class Draft:
    """One row on its way: the columns of `WRITTEN`, and the premise."""

    premise: str
    row_id: str
    omega: float
    prompts: str
    llm: str
    entailment: str | None = None
    contradiction: str | None = None
    entailment_prompt: int | None = None
    contradiction_prompt: int | None = None
    generated_tokens: int | None = None
    entailment_expected: float | None = None
    contradiction_expected: float | None = None
    entailment_stated: float | None = None
    contradiction_stated: float | None = None
    entailment_reply: str | None = None
    contradiction_reply: str | None = None
    refusal: Refusal | None = None
    is_written: bool = False
    """The hypotheses are there, or will never be."""

    @property
    def reason(self) -> str | None:
        """As a column."""
        return self.refusal.reason.value if self.refusal else None

    @property
    def detail(self) -> str | None:
        """As a column."""
        return self.refusal.detail if self.refusal else None


@dataclass(frozen=True)
class Written:
    """What the LLM made of some sentences."""

    rows: pa.Table
    """WRITTEN."""
    counters: dict[str, float]


class TripletStage:
    """Loads the LLM once; every call tells what it makes of some sentences.

    Several calls may run at the same time when the engine allows it: small batches of all of them are then
    in the air together, each generating or scoring as far as it has come, so that none waits for another.

    Raises:
        ConfigError: the engine, its model or the prompt set cannot work as configured.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._prompts = load_prompts(config.generate.prompts)
        self._engine = load_engine(config)
        self._threads = ThreadPoolExecutor(self._engine.batches_at_once, "batch")

    def __call__(self, sentences: pa.Table, hypotheses: pa.Table | None = None) -> Written:
        """Write and score triplets.

        Args:
            sentences: SENTENCE rows.
            hypotheses: WRITTEN rows of some of them, that are to be scored anew and not to be written.
        """
        drafts = self._drafts(sentences)
        _fill_in(drafts, hypotheses)
        # Rows of like length decode together, the longest first: if memory is short it shows at once.
        order = sorted(drafts, key=lambda draft: len(draft.premise), reverse=True)
        size = self._engine.batch_size or self._config.generate.batch_size
        batches = [order[start : start + size] for start in range(0, len(order), size)]
        counters: Counter[str] = Counter()
        for amounts in self._threads.map(self._work, batches):
            counters.update(amounts)
        return Written(_table(drafts), dict(counters))

    def close(self) -> None:
        """End the engine's processes, if it has any; an actor that ends does so without being asked."""
        self._threads.shutdown()
        self._engine.close()

    def _work(self, batch: Sequence[Draft]) -> dict[str, float]:
        """Generate and score a batch: what that took."""
        started = time.perf_counter()
        to_write = [draft for draft in batch if not draft.is_written]
        if to_write:
            self._generate(to_write)
        generated = time.perf_counter()
        to_score = [draft for draft in batch if draft.refusal is None]
        if to_score:
            self._score(to_score)
        scored = time.perf_counter()
        amounts = self._engine.usage.take()
        rows = {"rows_written": len(to_write), "rows_scored": len(to_score)}
        refused = sum(draft.refusal is not None for draft in batch)
        publish(
            "generate",
            {**amounts, **rows, "rows": len(batch), "rows_refused": refused},
            self._engine.usage.levels,
        )
        return {
            **amounts,
            **rows,
            "generate_seconds": generated - started,
            "score_seconds": scored - generated,
        }

    def _drafts(self, sentences: pa.Table) -> list[Draft]:
        config = self._config
        premises, row_ids = sentences["text"].to_pylist(), sentences["row_id"].to_pylist()
        return [
            Draft(premise, row_id, config.generate.omega, self._prompts.name, config.llm.model)
            for premise, row_id in zip(premises, row_ids, strict=True)
        ]

    def _generate(self, drafts: Sequence[Draft]) -> None:
        """Stage 1, and the refusals that the hypotheses themselves give reason for."""
        pairs = [self._prompts.pair(draft.premise, draft.row_id, self._config.seed) for draft in drafts]
        results = self._engine.generate_pairs(pairs, [draft.row_id for draft in drafts])
        for draft, pair, result in zip(drafts, pairs, results, strict=True):
            draft.entailment_prompt, draft.contradiction_prompt = pair.entailment_id, pair.contradiction_id
            if isinstance(result, Refusal):
                draft.refusal = result
                continue
            entailment, contradiction = result
            draft.entailment = normalise(entailment.text)
            draft.contradiction = normalise(contradiction.text)
            draft.generated_tokens = entailment.num_tokens + contradiction.num_tokens
            draft.refusal = _hypothesis_refusal(draft.premise, entailment, contradiction)

    def _score(self, drafts: Sequence[Draft]) -> None:
        """Stage 2: a = (premise, entailment) and b = (premise, contradiction) of MultiCSR Eq. 3."""
        if self._config.score.method in ("expected", "both"):
            self._score_expected(drafts)
        if self._config.score.method in ("stated", "both"):
            self._score_stated([draft for draft in drafts if draft.refusal is None])

    def _scoring_prompts(self, drafts: Sequence[Draft]) -> list[str]:
        """For each row the prompt of a, then that of b."""
        return [
            self._prompts.scoring(draft.premise, hypothesis or "")
            for draft in drafts
            for hypothesis in (draft.entailment, draft.contradiction)
        ]

    def _score_expected(self, drafts: Sequence[Draft]) -> None:
        prompts = self._scoring_prompts(drafts)
        results = self._engine.label_probabilities(prompts, self._prompts.score_labels)
        scored, probabilities = [], []
        for draft, a, b in zip(drafts, results[::2], results[1::2], strict=True):
            if isinstance(a, Refusal):
                draft.refusal = a
            elif isinstance(b, Refusal):
                draft.refusal = b
            else:
                scored.append(draft)
                probabilities += [a, b]
        if not scored:
            return
        expected = expected_scores(np.stack(probabilities)).tolist()
        for draft, a_score, b_score in zip(scored, expected[::2], expected[1::2], strict=True):
            draft.entailment_expected, draft.contradiction_expected = a_score, b_score

    def _score_stated(self, drafts: Sequence[Draft]) -> None:
        prompts = self._scoring_prompts(drafts)
        row_ids = [draft.row_id for draft in drafts for _ in range(2)]
        results = self._engine.reply(prompts, row_ids, self._config.score.max_new_tokens)
        for draft, a, b in zip(drafts, results[::2], results[1::2], strict=True):
            if isinstance(a, Refusal):
                draft.refusal = a
            elif isinstance(b, Refusal):
                draft.refusal = b
            else:
                draft.entailment_reply, draft.contradiction_reply = a.text, b.text
                draft.entailment_stated, draft.contradiction_stated, draft.refusal = _stated(a.text, b.text)


def writing_settings(config: Config) -> dict[str, JsonValue]:
    """Every setting that decides the hypotheses: equal settings, equal hypotheses (invariant 5).

    A local model enters with a digest of its files, a Hugging Face id with its revision.
    """
    decoding = {"omega", "max_new_tokens", "min_new_tokens", "bad_words", "temperature", "top_p"}
    settings: dict[str, JsonValue] = {
        "llm": config.llm.model_dump(mode="json", exclude={"device": True, "vllm": _SPEED_ONLY}),
        "generate": config.generate.model_dump(mode="json", include=decoding),
        "prompts": load_prompts(config.generate.prompts).writing_digest(),
        "seed": config.seed,
    }
    if config.llm.engine in ("transformers", "vllm"):
        settings["weights"] = digest_model(resolve_model(config.llm.model, "llm.model"))
    if config.llm.vllm.lora is not None:
        settings["lora"] = digest_model(config.llm.vllm.lora)
    return settings


def scoring_settings(config: Config) -> dict[str, JsonValue]:
    """What decides the scores of given hypotheses, beside the model that wrote them."""
    return {
        "score": config.score.model_dump(mode="json"),
        "prompts": load_prompts(config.generate.prompts).scoring_digest(),
    }


def prompts_of(scored: Manifest, name: str) -> PromptSet | None:
    """The prompt set of that name, if it is still the one the rows were written with."""
    try:
        prompts = load_prompts(name)
    except ConfigError:
        return None
    writing = scored.settings.get("writing")
    is_same = isinstance(writing, dict) and writing.get("prompts") == prompts.writing_digest()
    return prompts if is_same else None


def _hypothesis_refusal(premise: str, entailment: Completion, contradiction: Completion) -> Refusal | None:
    """What is wrong with two hypotheses before anyone scores them, worst first."""
    words = [normalise(text).casefold() for text in (premise, entailment.text, contradiction.text)]
    for name, text in (("entailment", words[1]), ("contradiction", words[2])):
        if not text:
            return Refusal(Reason.EMPTY_HYPOTHESIS, name)
    for name, completion in (("entailment", entailment), ("contradiction", contradiction)):
        if not completion.finished:
            return Refusal(Reason.UNFINISHED_HYPOTHESIS, f"{name}: {completion.num_tokens} tokens")
    for name, text in (("entailment", words[1]), ("contradiction", words[2])):
        if text == words[0]:
            return Refusal(Reason.COPIED_HYPOTHESIS, name)
    return Refusal(Reason.SAME_HYPOTHESES) if words[1] == words[2] else None


def _stated(entailment: str, contradiction: str) -> tuple[float | None, float | None, Refusal | None]:
    """Both stated scores, and a refusal when one cannot be read."""
    a, b = parse_score(entailment), parse_score(contradiction)
    refusal = None
    if isinstance(a, Unparsable):
        refusal = Refusal(Reason.SCORE_UNPARSABLE, f"entailment: {a}")
    elif isinstance(b, Unparsable):
        refusal = Refusal(Reason.SCORE_UNPARSABLE, f"contradiction: {b}")
    return _number(a), _number(b), refusal


def _number(score: float | Unparsable) -> float | None:
    return None if isinstance(score, Unparsable) else score


def _fill_in(drafts: Sequence[Draft], hypotheses: pa.Table | None) -> None:
    """What was written before, and the refusals that no scoring can change."""
    known = {} if hypotheses is None else {row["row_id"]: row for row in hypotheses.to_pylist()}
    for draft in drafts:
        if (row := known.get(draft.row_id)) is None:
            continue
        for name in _HYPOTHESES:
            setattr(draft, name, row[name])
        if row["reason"] in WRITING_REASONS:
            draft.refusal = Refusal(Reason(row["reason"]), row["detail"])
        draft.is_written = draft.refusal is not None or draft.entailment is not None


def _table(drafts: Sequence[Draft]) -> pa.Table:
    """WRITTEN rows, in the order of the sentences."""
    columns = [pa.array(map(attrgetter(field.name), drafts), field.type) for field in WRITTEN]
    return pa.table(columns, schema=WRITTEN)
