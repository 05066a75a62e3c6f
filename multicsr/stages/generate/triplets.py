"""Stages 1 and 2 for a block of sentences: write two hypotheses for each premise, then score them.

Reads: rows.SENTENCE. Writes: rows.WRITTEN, in the order of the input. Paper: MultiCSR Sec. 3.1 and Eq. 3.
Generation and scoring share an actor because they share the model. A row that fails becomes a reject and
keeps the columns filled so far; a failure of the LLM itself raises an error.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from operator import attrgetter
from queue import Empty, SimpleQueue

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import JsonValue

from multicsr.config import Config
from multicsr.errors import ConfigError
from multicsr.llm.base import Completion, Rejection
from multicsr.llm.load import load_engine
from multicsr.models.llm_weights import digest_llm
from multicsr.models.resolve import digest_model
from multicsr.observability.metrics import publish
from multicsr.prompts import PromptSet, load_prompts
from multicsr.rows import WRITING_REASONS, WRITTEN, Reason, normalise
from multicsr.stages.score.expected import EXPECTATION, expected_scores
from multicsr.stages.score.parse import PARSER, Unparsable, parse_score
from multicsr.storage.manifest import Manifest

_LLM = {"engine", "model", "revision", "dtype", "chat_template"}
_VLLM = {"max_model_len", "tensor_parallel", "quantization", "lora"}
_DECODING = {"omega", "max_new_tokens", "min_new_tokens", "bad_words", "temperature", "top_p"}
_SCORING = {"method", "max_new_tokens"}
"""Settings that decide what the LLM writes, by section. Adding a setting must not change the key of the LLM
cache by itself, because every row would have to be paid for again; include one that decides the results only
where it differs from its default."""
HYPOTHESIS_RULES = 1
"""Version of the rules by which hypotheses are rejected; raise it with every change of
`_hypothesis_rejection`. It is among the settings of scoring: after a change, hypotheses are checked again and
not written again."""
_JUDGED = (Reason.EMPTY_HYPOTHESIS, Reason.COPIED_HYPOTHESIS, Reason.SAME_HYPOTHESES)
"""Reasons that follow from the texts alone, so that existing hypotheses can be checked again."""
_COMMIT_S = 10.0
"""Seconds after which finished rows are yielded for a commit, even if they are few."""
_HYPOTHESES = (
    "entailment",
    "contradiction",
    "entailment_prompt",
    "contradiction_prompt",
    "generated_tokens",
)
"""Columns that need not be written again when only scores are wanted."""


@dataclass(slots=True)
class TripletInProgress:
    """Row in progress: the columns of `WRITTEN`, and the premise."""

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
    rejection: Rejection | None = None
    is_written: bool = False
    """True if the hypotheses exist, or if the row is rejected without them."""

    @property
    def reason(self) -> str | None:
        """Return the value of the column `reason`; None if the row is not rejected."""
        return self.rejection.reason.value if self.rejection else None

    @property
    def detail(self) -> str | None:
        """Return the value of the column `detail`; None if there is none."""
        return self.rejection.detail if self.rejection else None


@dataclass(frozen=True)
class WrittenRows:
    """Results of the LLM for some sentences."""

    rows: pa.Table
    """WRITTEN rows."""
    counters: dict[str, float]
    """Amounts of work by name: rows, tokens, seconds."""


class _Running:
    """Batches of one call, in a pool of threads that other calls share."""

    def __init__(self, threads: ThreadPoolExecutor, rows_per_commit: int | None) -> None:
        """Start without batches.

        Args:
            threads: pool in which the batches run.
            rows_per_commit: number of finished rows that are yielded together; None: all at the end.
        """
        self._threads = threads
        self._rows_per_commit = rows_per_commit
        self._batches: dict[Future[dict[str, float]], Sequence[TripletInProgress]] = {}
        self._ended: SimpleQueue[Future[dict[str, float]]] = SimpleQueue()
        self._has_failed = False

    def submit(
        self,
        work: Callable[[Sequence[TripletInProgress]], dict[str, float]],
        batch: Sequence[TripletInProgress],
    ) -> None:
        """Queue one batch, unless another one has failed."""
        if self._has_failed:
            return
        future = self._threads.submit(work, batch)
        self._batches[future] = batch
        future.add_done_callback(self._end)

    def cancel(self) -> None:
        """Cancel the batches that have not started."""
        for future in list(self._batches):
            future.cancel()

    def _end(self, future: Future[dict[str, float]]) -> None:
        """Record that a batch has ended, and cancel the others if it failed.

        It runs in the thread of the batch, so that no other batch starts after a failure.
        """
        if not future.cancelled() and future.exception() is not None:
            self._has_failed = True
            self.cancel()
        self._ended.put(future)

    def pieces(self) -> Iterator[WrittenRows]:
        """Yield rows of batches that have ended.

        After a failure, yield the finished rows only, and then raise the first error.
        """
        finished: list[TripletInProgress] = []
        counters: Counter[str] = Counter()
        failure: BaseException | None = None
        due_at = time.monotonic() + _COMMIT_S
        left = len(self._batches)
        while left:
            with suppress(Empty):
                future = self._ended.get(timeout=_COMMIT_S)
                left -= 1
                if future.cancelled():
                    continue
                if error := future.exception():
                    failure = failure or error
                    finished += _abandon(self._batches[future])
                else:
                    finished += self._batches[future]
                    counters.update(future.result())
            if self._is_due(len(finished), due_at) and left:
                yield _piece(finished, counters)
                finished, counters, due_at = [], Counter(), time.monotonic() + _COMMIT_S
        if finished:
            yield _piece(finished, counters)
        if failure is not None:
            raise failure

    def _is_due(self, num_finished: int, due_at: float) -> bool:
        """Return True if the finished rows must be yielded now."""
        if self._rows_per_commit is None or num_finished == 0:
            return False
        return num_finished >= self._rows_per_commit or time.monotonic() >= due_at


class TripletStage:
    """Writer and scorer of triplets. It loads the LLM once; every call processes some sentences.

    Several calls may run at the same time if the engine allows it: small batches of all of them are then in
    flight together, and each one generates or scores independently, so that none waits for another.

    Raises:
        ConfigError: the engine, its model or the prompt set cannot work as configured.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._prompts = load_prompts(config.generate.prompts)
        self._engine = load_engine(config)
        self._threads = ThreadPoolExecutor(self._engine.batches_at_once, "batch")

    def __call__(self, sentences: pa.Table, hypotheses: pa.Table | None = None) -> WrittenRows:
        """Write and score triplets; return all of them together, in the order of the input. See `pieces`."""
        parts = list(self.pieces(sentences, hypotheses))
        rows = pa.concat_tables([WRITTEN.empty_table(), *(part.rows for part in parts)])
        counters: Counter[str] = Counter()
        for part in parts:
            counters.update(part.counters)
        order = pc.index_in(sentences["row_id"], rows["row_id"].combine_chunks())
        return WrittenRows(rows.take(order), dict(counters))

    def pieces(self, sentences: pa.Table, hypotheses: pa.Table | None = None) -> Iterator[WrittenRows]:
        """Write and score triplets; yield finished rows as soon as the engine wants them committed.

        A batch that fails ends the call: batches that have not started are cancelled, those in flight are
        awaited, the finished rows are yielded, and then the error is raised.

        Args:
            sentences: SENTENCE rows.
            hypotheses: WRITTEN rows of some of the sentences; they are scored again and not written again.
        """
        triplets = self._triplets(sentences)
        _fill_in(triplets, hypotheses)
        # Rows of similar length decode together, the longest first: so a lack of memory shows at once.
        order = sorted(triplets, key=lambda triplet: len(triplet.premise), reverse=True)
        size = self._engine.batch_size or self._config.generate.batch_size
        running = _Running(self._threads, self._engine.rows_per_commit)
        try:
            for start in range(0, len(order), size):
                running.submit(self._work, order[start : start + size])
            yield from running.pieces()
        finally:
            running.cancel()

    def close(self) -> None:
        """End the processes of the engine, if it has any. The end of an actor has the same effect."""
        self._threads.shutdown()
        self._engine.close()

    def _work(self, batch: Sequence[TripletInProgress]) -> dict[str, float]:
        """Generate and score a batch; return the amounts of work, with the seconds of each part."""
        started = time.perf_counter()
        to_write = [triplet for triplet in batch if not triplet.is_written]
        if to_write:
            self._generate(to_write)
        generated = time.perf_counter()
        to_score = [triplet for triplet in batch if triplet.rejection is None]
        if to_score:
            self._score(to_score)
        scored = time.perf_counter()
        amounts = self._engine.usage.take()
        rows = {"rows_written": len(to_write), "rows_scored": len(to_score)}
        rejected = sum(triplet.rejection is not None for triplet in batch)
        publish(
            "generate",
            {**amounts, **rows, "rows": len(batch), "rows_refused": rejected},
            self._engine.usage.levels,
        )
        return {
            **amounts,
            **rows,
            "generate_seconds": generated - started,
            "score_seconds": scored - generated,
        }

    def _triplets(self, sentences: pa.Table) -> list[TripletInProgress]:
        """Return a triplet in progress for each SENTENCE row, in order."""
        config = self._config
        premises, row_ids = sentences["text"].to_pylist(), sentences["row_id"].to_pylist()
        return [
            TripletInProgress(premise, row_id, config.generate.omega, self._prompts.name, config.llm.model)
            for premise, row_id in zip(premises, row_ids, strict=True)
        ]

    def _generate(self, triplets: Sequence[TripletInProgress]) -> None:
        """Write the hypotheses (stage 1) into the triplets.

        Reject rows that the engine cannot write and rows whose hypotheses break a rule.
        """
        pairs = [
            self._prompts.pair(triplet.premise, triplet.row_id, self._config.seed) for triplet in triplets
        ]
        results = self._engine.generate_pairs(pairs, [triplet.row_id for triplet in triplets])
        for triplet, pair, result in zip(triplets, pairs, results, strict=True):
            triplet.entailment_prompt, triplet.contradiction_prompt = (
                pair.entailment_id,
                pair.contradiction_id,
            )
            if isinstance(result, Rejection):
                triplet.rejection = result
                continue
            entailment, contradiction = result
            triplet.entailment = normalise(entailment.text)
            triplet.contradiction = normalise(contradiction.text)
            triplet.generated_tokens = entailment.num_tokens + contradiction.num_tokens
            triplet.rejection = _hypothesis_rejection(triplet.premise, entailment, contradiction)

    def _score(self, triplets: Sequence[TripletInProgress]) -> None:
        """Score a = (premise, entailment) and b = (premise, contradiction) of MultiCSR Eq. 3 (stage 2).

        A row is rejected if the engine failed on it, or if no scoring method gives a score. The stage
        `curate` decides whether the scores that exist are sufficient.
        """
        ways = {
            "expected": [self._score_expected],
            "stated": [self._score_stated],
            "both": [self._score_expected, self._score_stated],
        }[self._config.score.method]
        for triplet, *rejections in zip(triplets, *(way(triplets) for way in ways), strict=True):
            found = [rejection for rejection in rejections if rejection is not None]
            failed = [rejection for rejection in found if rejection.reason is Reason.ENGINE_ERROR]
            if failed or len(found) == len(ways):
                triplet.rejection = (failed or found)[0]

    def _scoring_prompts(self, triplets: Sequence[TripletInProgress]) -> list[str]:
        """Return the scoring prompts: for each row that of a, then that of b."""
        return [
            self._prompts.scoring(triplet.premise, hypothesis or "")
            for triplet in triplets
            for hypothesis in (triplet.entailment, triplet.contradiction)
        ]

    def _score_expected(self, triplets: Sequence[TripletInProgress]) -> list[Rejection | None]:
        """Fill in the expected scores; return for each row None, or the reason why it has none."""
        prompts = self._scoring_prompts(triplets)
        results = self._engine.label_probabilities(prompts, self._prompts.score_labels)
        rejections: list[Rejection | None] = []
        for triplet, a, b in zip(triplets, results[::2], results[1::2], strict=True):
            if isinstance(a, Rejection) or isinstance(b, Rejection):
                rejections.append(a if isinstance(a, Rejection) else b if isinstance(b, Rejection) else None)
                continue
            expected = expected_scores(np.stack([a, b]))
            if np.isfinite(expected).all():
                triplet.entailment_expected, triplet.contradiction_expected = expected.tolist()
                rejections.append(None)
            else:
                rejections.append(Rejection(Reason.ENGINE_ERROR, "label probabilities that are not numbers"))
        return rejections

    def _score_stated(self, triplets: Sequence[TripletInProgress]) -> list[Rejection | None]:
        """Fill in the stated scores and the replies; return for each row None, or why a score is missing."""
        prompts = self._scoring_prompts(triplets)
        row_ids = [triplet.row_id for triplet in triplets for _ in range(2)]
        results = self._engine.reply(prompts, row_ids, self._config.score.max_new_tokens)
        rejections: list[Rejection | None] = []
        for triplet, a, b in zip(triplets, results[::2], results[1::2], strict=True):
            if isinstance(a, Rejection) or isinstance(b, Rejection):
                rejections.append(a if isinstance(a, Rejection) else b if isinstance(b, Rejection) else None)
                continue
            triplet.entailment_reply, triplet.contradiction_reply = a.text, b.text
            triplet.entailment_stated, triplet.contradiction_stated, rejection = _stated(a.text, b.text)
            rejections.append(rejection)
        return rejections


def writing_settings(config: Config) -> dict[str, JsonValue]:
    """Return every setting that decides the hypotheses: equal settings give equal hypotheses (invariant 5).

    A local model is represented by a digest of its files, a Hugging Face id by its revision.
    """
    settings: dict[str, JsonValue] = {
        "llm": config.llm.model_dump(mode="json", include={**dict.fromkeys(_LLM, True), "vllm": _VLLM}),
        "generate": config.generate.model_dump(mode="json", include=_DECODING),
        "prompts": load_prompts(config.generate.prompts).writing_digest(),
        "seed": config.seed,
    }
    if config.llm.engine in ("transformers", "vllm"):
        settings["weights"] = digest_llm(config.llm)
    if config.llm.vllm.lora is not None:
        settings["lora"] = digest_model(config.llm.vllm.lora)
    return settings


def scoring_settings(config: Config) -> dict[str, JsonValue]:
    """Return the settings that decide the scores of given hypotheses, besides the model that wrote them."""
    return {
        "score": config.score.model_dump(mode="json", include=_SCORING),
        "prompts": load_prompts(config.generate.prompts).scoring_digest(),
        "rules": {"hypotheses": HYPOTHESIS_RULES, "stated": PARSER, "expected": EXPECTATION},
    }


def prompts_of(scored: Manifest, name: str) -> PromptSet | None:
    """Return the prompt set of that name if the rows were written with the same prompts, or else None."""
    try:
        prompts = load_prompts(name)
    except ConfigError:
        return None
    writing = scored.settings.get("writing")
    is_same = isinstance(writing, dict) and writing.get("prompts") == prompts.writing_digest()
    return prompts if is_same else None


def _hypothesis_rejection(
    premise: str, entailment: Completion, contradiction: Completion
) -> Rejection | None:
    """Return the reason to reject a row by its hypotheses alone, or None.

    If several reasons apply, return the worst: empty, then unfinished, copied, both the same.
    """
    words = [normalise(text).casefold() for text in (premise, entailment.text, contradiction.text)]
    for name, text in (("entailment", words[1]), ("contradiction", words[2])):
        if not text:
            return Rejection(Reason.EMPTY_HYPOTHESIS, name)
    for name, completion in (("entailment", entailment), ("contradiction", contradiction)):
        if not completion.finished:
            return Rejection(Reason.UNFINISHED_HYPOTHESIS, f"{name}: {completion.num_tokens} tokens")
    for name, text in (("entailment", words[1]), ("contradiction", words[2])):
        if text == words[0]:
            return Rejection(Reason.COPIED_HYPOTHESIS, name)
    return Rejection(Reason.SAME_HYPOTHESES) if words[1] == words[2] else None


def _stated(entailment: str, contradiction: str) -> tuple[float | None, float | None, Rejection | None]:
    """Return both stated scores, and the reason to reject the row if one of them cannot be read."""
    a, b = parse_score(entailment), parse_score(contradiction)
    rejection = None
    if isinstance(a, Unparsable):
        rejection = Rejection(Reason.SCORE_UNPARSABLE, f"entailment: {a}")
    elif isinstance(b, Unparsable):
        rejection = Rejection(Reason.SCORE_UNPARSABLE, f"contradiction: {b}")
    return _number(a), _number(b), rejection


def _number(score: float | Unparsable) -> float | None:
    """Return a score, or None if it cannot be read."""
    return None if isinstance(score, Unparsable) else score


def _fill_in(triplets: Sequence[TripletInProgress], hypotheses: pa.Table | None) -> None:
    """Fill in the hypotheses that exist, and reject the rows that no scoring can save."""
    known = {} if hypotheses is None else {row["row_id"]: row for row in hypotheses.to_pylist()}
    for triplet in triplets:
        if (row := known.get(triplet.row_id)) is None:
            continue
        for name in _HYPOTHESES:
            setattr(triplet, name, row[name])
        if row["reason"] in WRITING_REASONS and row["reason"] not in _JUDGED:
            triplet.rejection = Rejection(Reason(row["reason"]), row["detail"])
        elif row["entailment"] is not None:
            texts = (Completion(row[name], 0, finished=True) for name in ("entailment", "contradiction"))
            triplet.rejection = _hypothesis_rejection(triplet.premise, *texts)
        triplet.is_written = triplet.rejection is not None or triplet.entailment is not None


def _abandon(batch: Sequence[TripletInProgress]) -> list[TripletInProgress]:
    """Return the rows of a batch that are worth keeping after the engine failed within it.

    They are the rejected rows, and the rows with hypotheses, which become rejects of the reason ENGINE_ERROR.
    """
    for triplet in batch:
        if triplet.rejection is None and triplet.entailment is not None:
            triplet.rejection = Rejection(Reason.ENGINE_ERROR, "the engine failed before it was scored")
    return [triplet for triplet in batch if triplet.rejection is not None]


def _piece(triplets: Sequence[TripletInProgress], counters: Counter[str]) -> WrittenRows:
    """Return finished rows, sorted by id like the files of the LLM cache."""
    return WrittenRows(_table(sorted(triplets, key=attrgetter("row_id"))), dict(counters))


def _table(triplets: Sequence[TripletInProgress]) -> pa.Table:
    """Return the triplets as WRITTEN rows, in order."""
    columns = [pa.array(map(attrgetter(field.name), triplets), field.type) for field in WRITTEN]
    return pa.table(columns, schema=WRITTEN)
