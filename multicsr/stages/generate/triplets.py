"""Stages 1 and 2 for a block of sentences: write two hypotheses for each premise, then score them.

Reads: rows.SENTENCE. Writes: rows.WRITTEN, in the order of the input. Paper: MultiCSR Sec. 3.1 and Eq. 3.
Generation and scoring share an actor because they mostly share the model. A row that fails becomes a reject
and keeps the columns filled so far; a failure of the LLM itself raises an error.

retrieval         demonstrations for the prompts, if `generate.demonstrations` is set
triplet_rows      a row in progress, and its columns
batches           batches that run at the same time
cleaning          the sentence in what the LLM wrote
hypothesis_rules  which rows are rejected for what the LLM wrote
scoring           stage 2
fingerprint       settings that decide the results
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import pyarrow as pa
import pyarrow.compute as pc

from multicsr.config import Config
from multicsr.execution.profiling import tracing
from multicsr.llm.base import Engine, Rejection
from multicsr.llm.load import load_engine
from multicsr.observability.metrics import publish
from multicsr.prompts import load_prompts
from multicsr.prompts.demonstrations import Demonstration
from multicsr.rows import WRITTEN
from multicsr.stages.generate.batches import RunningBatches, WrittenRows
from multicsr.stages.generate.hypothesis_rules import HypothesisRules
from multicsr.stages.generate.scoring import TripletScorer
from multicsr.stages.generate.triplet_rows import TripletInProgress, take_existing
from multicsr.stages.score.load import load_scorers, load_scoring_engine

Retrieve = Callable[[Sequence[str]], Sequence[tuple[Demonstration, ...]]]
"""A function that returns the demonstrations of each of some premises."""


class TripletStage:
    """Writer and scorer of triplets. It loads the models once; every call processes some sentences.

    Several calls may run at the same time if the engine allows it: small batches of all of them are then in
    flight together, and each one generates or scores independently, so that none waits for another.

    Raises:
        ConfigError: the engine, its model or the prompt set cannot work as configured.
    """

    def __init__(self, config: Config, retrieve: Retrieve | None = None) -> None:
        """Load the models.

        Args:
            config: the configuration.
            retrieve: returns the demonstrations of each of some premises; None: prompts have none.
        """
        if (retrieve is None) != (config.generate.demonstrations is None):
            raise AssertionError("demonstrations are configured and not retrieved, or the other way round")
        self._config = config
        self._retrieve = retrieve
        self._prompts = load_prompts(config.generate.prompts)
        self._prompts_of = cache(self._prompts.for_language)
        self._rules = HypothesisRules(self._prompts, config.generate.reject_reasons)
        self._engine = load_engine(config)
        self._scoring_engine = load_scoring_engine(config, self._engine)
        self._score = TripletScorer(load_scorers(config, self._scoring_engine))
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
            hypotheses: WRITTEN rows of some of the sentences; they are not written again, and scored only if
                they have no scores or their texts change by cleaning.
        """
        triplets = self._triplets(sentences)
        if hypotheses is not None:
            known = {*hypotheses["row_id"].to_pylist()}
            # Whether a hypothesis is copied from a demonstration is decided again.
            self._find_demonstrations([triplet for triplet in triplets if triplet.row_id in known])
        take_existing(triplets, hypotheses, self._rules)
        # Rows of similar length decode together, the longest first: so a lack of memory shows at once. The
        # length of demonstrations does not count: they are found only when a batch begins.
        order = sorted(triplets, key=lambda triplet: len(triplet.premise), reverse=True)
        size = self._engine.batch_size or self._config.generate.batch_size
        running = RunningBatches(self._threads, self._engine.rows_per_commit)
        try:
            for start in range(0, len(order), size):
                running.submit(self._work, order[start : start + size])
            yield from running.pieces()
        finally:
            running.cancel()

    def usage(self) -> dict[str, float]:
        """Return the amounts of work of batches that failed, and forget them."""
        return self._engine.usage.take()

    def close(self) -> None:
        """End the processes of the engine, if it has any. The end of an actor has the same effect."""
        self._threads.shutdown()
        for engine in self._engines:
            engine.close()

    @property
    def _engines(self) -> list[Engine]:
        """Return the engine of the LLM that writes, and that of another LLM that scores."""
        others = [self._scoring_engine] if self._scoring_engine not in (None, self._engine) else []
        return [self._engine, *(each for each in others if each is not None)]

    def _work(self, batch: Sequence[TripletInProgress]) -> dict[str, float]:
        """Generate and score a batch; return the amounts of work, with the seconds of each part."""
        started = time.perf_counter()
        with tracing():
            to_write = [triplet for triplet in batch if not triplet.is_written]
            if to_write:
                self._generate(to_write)
            generated = time.perf_counter()
            to_score = [triplet for triplet in batch if triplet.rejection is None and not triplet.is_scored]
            if to_score:
                self._score(to_score)
            scored = time.perf_counter()
        amounts: Counter[str] = Counter()
        for engine in self._engines:
            amounts.update(engine.usage.take())
        rows = {"rows_written": len(to_write), "rows_scored": len(to_score)}
        rejected = sum(triplet.rejection is not None for triplet in batch)
        cleaned = Counter(f"cleaned_{rule}" for triplet in batch for rule in triplet.cleaning)
        publish(
            "generate",
            {**amounts, **rows, "rows": len(batch), "rows_refused": rejected},
            self._engine.usage.levels,
        )
        return {
            **amounts,
            **rows,
            **cleaned,
            **(_shown(to_write) if self._retrieve is not None else {}),
            "generate_seconds": generated - started,
            "score_seconds": scored - generated,
        }

    def _triplets(self, sentences: pa.Table) -> list[TripletInProgress]:
        """Return a triplet in progress for each SENTENCE row, in order."""
        columns = (sentences[name].to_pylist() for name in ("text", "row_id", "language"))
        omega, llm = self._config.generate.omega, self._config.llm.model
        return [
            TripletInProgress(premise, row_id, language, omega, self._prompts_of(language).name, llm)
            for premise, row_id, language in zip(*columns, strict=True)
        ]

    def _find_demonstrations(self, triplets: Sequence[TripletInProgress]) -> None:
        """Find the demonstrations of these triplets, if prompts have any."""
        if self._retrieve is not None:
            shown = self._retrieve([triplet.premise for triplet in triplets])
            for triplet, demonstrations in zip(triplets, shown, strict=True):
                triplet.demonstrations = demonstrations

    def _generate(self, triplets: Sequence[TripletInProgress]) -> None:
        """Write the hypotheses (stage 1) into the triplets.

        Reject rows that the engine cannot write and rows whose hypotheses break a rule. Demonstrations are
        found for one batch at a time, so that the LLM works on other batches meanwhile.
        """
        self._find_demonstrations(triplets)
        pairs = [
            self._prompts_of(triplet.language).pair(
                triplet.premise, triplet.row_id, self._config.seed, triplet.demonstrations
            )
            for triplet in triplets
        ]
        results = self._engine.generate_pairs(pairs, [triplet.row_id for triplet in triplets])
        for triplet, pair, result in zip(triplets, pairs, results, strict=True):
            triplet.entailment.prompt = pair.entailment_id
            triplet.contradiction.prompt = pair.contradiction_id
            if isinstance(result, Rejection):
                triplet.rejection = result
            else:
                triplet.take_completions(*result, self._rules)


def _shown(triplets: Sequence[TripletInProgress]) -> dict[str, int]:
    """Return the number of demonstrations in the prompts of these triplets, and of triplets without any."""
    numbers = [len(triplet.demonstrations) for triplet in triplets]
    return {"demonstrations": sum(numbers), "rows_without_demonstrations": numbers.count(0)}
