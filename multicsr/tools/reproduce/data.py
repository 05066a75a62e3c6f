"""The triplets of the rows of a table; what rows write with equal settings is written once."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from multicsr.config import Config
from multicsr.hashing import hash_64
from multicsr.observability.progress import Progress
from multicsr.pipeline import full_run
from multicsr.storage.manifest import Manifest, iter_tables
from multicsr.storage.store import Store
from multicsr.storage.versions import Snapshot, snapshot_of
from multicsr.tools.ablate.variants import NO_TRIPLETS, TRIPLET, human_triplets, triplets_in
from multicsr.tools.reproduce.appendix_tables import PREMISES_12
from multicsr.tools.reproduce.paper import Origin
from multicsr.tools.reproduce.plan import RowPlan, config_of

_SEED = 42
"""Seed by which sentences are drawn from a source."""
_ARTIFACTS = {Origin.PREMISES: ("ingest", "sentences"), Origin.SCORED: ("generate", "scored")}
"""Last stage and artifact of an origin; those of all others are `curate` and `curated`."""
_LABELLED_ROWS = 10_000
"""Number of labelled triplets to which copies of one are added (Figure 4)."""


@dataclass
class TripletReader:
    """Reader of the triplets of rows, which runs the stages that they come from."""

    progress: Progress
    labelled: str | None
    """File of human triplets."""
    sample: int | None
    """Number of sentences that are drawn from a source; None: all."""
    _known: dict[str, pa.Table] = field(default_factory=dict)
    """Tables by what decides them."""

    def table(self, plan: RowPlan) -> pa.Table:
        """Return the triplets that a row is trained on.

        Raises:
            ConfigError: a file is missing or has other columns.
            NothingKept: stage 2 keeps no triplet.
            RunError: a stage fails.
        """
        config, origin = plan.config, plan.row.origin
        if config is None or origin == Origin.NONE:
            return NO_TRIPLETS
        key = self._key(plan, config)
        if key not in self._known:
            self._known[key] = pa.concat_tables(self._parts(plan, config))
        return self._known[key]

    def _key(self, plan: RowPlan, config: Config) -> str:
        """Return what decides the triplets of a row: all settings but those of the training."""
        tree = config.model_dump(mode="json", exclude={"train", "refresh", "card"})
        scorer = [*config.scoring_encoder, config.scoring_prompt] if config.score.uses_encoder else None
        shown = config.generate.demonstrations
        retriever = None if shown is None else shown.retriever(config.train)
        return json.dumps([tree, scorer, retriever, plan.row.origin, plan.row.source, plan.row.copies])

    def _parts(self, plan: RowPlan, config: Config) -> Iterator[pa.Table]:
        origin = plan.row.origin
        if origin in (Origin.LABELLED, Origin.LABELLED_AND_CURATED):
            labelled = human_triplets(Path(str(self.labelled)), "--labelled")
            yield with_copies(labelled, plan.row.copies) if plan.row.line else labelled
        if origin != Origin.LABELLED:
            stage, artifact = _ARTIFACTS.get(origin, ("curate", "curated"))
            snapshot = self.snapshot(plan, stage)
            if artifact == "sentences":
                yield premises(snapshot.store, snapshot.manifest(artifact))
            else:
                yield triplets_in(snapshot.store, snapshot.manifest(artifact))

    def snapshot(self, plan: RowPlan, until: str) -> Snapshot:
        """Run the stages of a row up to one of them, and return the version that they publish.

        Raises:
            ConfigError, RunError: see `pipeline.full_run`.
        """
        config = with_input(plan, config_of(plan), self.sample, self.progress)
        return snapshot_of(full_run.run(config, self.progress, until=until), None)


def with_copies(triplets: pa.Table, copies: int) -> pa.Table:
    """Return the first labelled triplets and copies of the first one, which differ by a number at their end.

    Equal sentences never share a batch, so that exact copies would test nothing.
    """
    rows = triplets.slice(0, _LABELLED_ROWS)
    first = rows.slice(0, 1).to_pylist()[0]
    made = [
        {
            name: f"{text} ({number})" if name != "row_id" else f"{text}#{number}"
            for name, text in first.items()
        }
        for number in range(copies)
    ]
    return pa.concat_tables([rows, pa.Table.from_pylist(made, schema=TRIPLET)])


def premises(store: Store, sentences: Manifest) -> pa.Table:
    """Return sentences as triplets whose hypotheses are empty, for objectives that read premises alone."""
    rows = _sentences(store, sentences)
    empty = pa.array([""] * len(rows), pa.string())
    return pa.table([rows["row_id"], rows["text"], empty, empty], schema=TRIPLET)


def _sentences(store: Store, sentences: Manifest) -> pa.Table:
    """Return the ids and the texts of sentences."""
    return pa.concat_tables(iter_tables(store, sentences, ["row_id", "text"]))


def with_input(plan: RowPlan, config: Config, sample: int | None, progress: Progress) -> Config:
    """Return a configuration whose input are the sentences of a row's source, or a sample of them.

    A sample is drawn by a hash of the ids of the sentences, so that it depends on no order. It lies as text,
    a sentence a line, in the folder `inputs` of the store.
    """
    folder = Path(config.store, "inputs")
    if plan.row.source == "examples":
        return _reading(config, _written(folder / "examples.txt", PREMISES_12))
    if sample is None:
        return config
    whole = config.model_copy(update={"store": str(folder / plan.row.source)})
    snapshot = snapshot_of(full_run.run(whole, progress, until="ingest"), None)
    rows = _sentences(snapshot.store, snapshot.manifest("sentences")).to_pylist()
    drawn = sorted(rows, key=lambda row: hash_64(f"{_SEED}:{row['row_id']}"))[:sample]
    return _reading(
        config, _written(folder / f"{plan.row.source}-{sample}.txt", [row["text"] for row in drawn])
    )


def _written(path: Path, sentences: list[str] | tuple[str, ...]) -> Path:
    """Write sentences to a file, unless it has them."""
    text = "\n".join(sentences) + "\n"
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return path


def _reading(config: Config, path: Path) -> Config:
    return config.model_copy(update={"input": type(config.input)(paths=[str(path)])})
