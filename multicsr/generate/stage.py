"""Stages 1 and 2 for a block of sentences: write two hypotheses a premise, then score them.

Reads: rows.SENTENCE. Writes: rows.SCORED, in the order of the input. Paper: MultiCSR Sec. 3.1 and Eq. 3.
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
from multicsr.generate.engine import Completion, Refusal, load_engine
from multicsr.generate.metrics import publish_metrics
from multicsr.models import digest_model, resolve_model
from multicsr.prompts import load_prompts
from multicsr.ray_stage import StageOutput
from multicsr.rows import SCORED, SENTENCE, Reason, normalise, rejects
from multicsr.score.expected import expected_scores
from multicsr.score.parse import Unparsable, parse_score

_SPEED_ONLY = {"tokens_per_step", "kv_cache_gib", "gpu_memory", "prefix_caching", "eager"}
"""Settings of vLLM that decide how soon a row is written, not what it says."""


@dataclass(slots=True)
class Draft:
    """One row on its way: the columns that `SCORED` adds to `SENTENCE`, and why it left if it did."""

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


class TripletStage:
    """Loads the LLM once; every call turns SENTENCE rows into SCORED rows and rejects.

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

    def __call__(self, sentences: pa.Table) -> StageOutput:
        drafts = self._drafts(sentences)
        # Rows of like length decode together, the longest first: if memory is short it shows at once.
        order = sorted(drafts, key=lambda draft: len(draft.premise), reverse=True)
        size = self._engine.batch_size or self._config.generate.batch_size
        batches = [order[start : start + size] for start in range(0, len(order), size)]
        counters: Counter[str] = Counter()
        for amounts in self._threads.map(self._work, batches):
            counters.update(amounts)
        return StageOutput(*_split(sentences, drafts), dict(counters))

    def close(self) -> None:
        """End the engine's processes, if it has any; an actor that ends does so without being asked."""
        self._threads.shutdown()
        self._engine.close()

    def _work(self, batch: Sequence[Draft]) -> dict[str, float]:
        """Generate and score a batch: what that took."""
        started = time.perf_counter()
        self._generate(batch)
        generated = time.perf_counter()
        self._score([draft for draft in batch if draft.refusal is None])
        scored = time.perf_counter()
        amounts = self._engine.usage.take()
        publish_metrics(amounts, self._engine.usage.levels)
        return {**amounts, "generate_seconds": generated - started, "score_seconds": scored - generated}

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


def fingerprint(config: Config) -> dict[str, JsonValue]:
    """Every setting that decides what this stage writes: equal fingerprints, equal rows (invariant 5).

    A local model enters with a digest of its files, a Hugging Face id with its revision.
    """
    decoding = {"omega", "max_new_tokens", "min_new_tokens", "bad_words", "temperature", "top_p"}
    settings: dict[str, JsonValue] = {
        "llm": config.llm.model_dump(mode="json", exclude={"device": True, "vllm": _SPEED_ONLY}),
        "generate": config.generate.model_dump(mode="json", include=decoding),
        "score": config.score.model_dump(mode="json"),
        "prompts": load_prompts(config.generate.prompts).digest(),
        "seed": config.seed,
    }
    if config.llm.engine in ("transformers", "vllm"):
        settings["weights"] = digest_model(resolve_model(config.llm.model, "llm.model"))
    if config.llm.vllm.lora is not None:
        settings["lora"] = digest_model(config.llm.vllm.lora)
    return settings


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


def _split(sentences: pa.Table, drafts: Sequence[Draft]) -> tuple[pa.Table, pa.Table]:
    """(SCORED rows, rejects), each in the order of the sentences."""
    kept = [i for i, draft in enumerate(drafts) if draft.refusal is None]
    refused = [i for i, draft in enumerate(drafts) if draft.refusal is not None]
    refusals = [draft.refusal for draft in drafts if draft.refusal is not None]
    rows = _columns(sentences, drafts, kept)
    lost = _columns(sentences, drafts, refused)
    lost["reason"] = pa.array([refusal.reason.value for refusal in refusals], pa.string())
    lost["detail"] = pa.array([refusal.detail for refusal in refusals], pa.string())
    return pa.table(rows, schema=SCORED), pa.table(lost, schema=rejects(SCORED))


def _columns(sentences: pa.Table, drafts: Sequence[Draft], indices: Sequence[int]) -> dict[str, pa.Array]:
    known = sentences.take(pa.array(indices, pa.int64()))
    columns: dict[str, pa.Array] = {name: known[name] for name in SENTENCE.names}
    chosen = [drafts[i] for i in indices]
    for field in SCORED:
        if field.name not in columns:
            values = map(attrgetter(field.name), chosen)
            columns[field.name] = pa.array(list(values), field.type)
    return columns
