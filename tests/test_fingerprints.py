"""Fingerprints of the configurations whose files ship: a change of one makes every store's artifacts anew."""

import pytest

from multicsr.config_file import load_config
from multicsr.prompts import load_prompts
from multicsr.stages.curate.curation import Curation
from multicsr.stages.curate.run import curate_settings
from multicsr.stages.evaluate import find_tasks
from multicsr.stages.evaluate import run as evaluate_run
from multicsr.stages.generate import run as generate_run
from multicsr.stages.ingest import run as ingest_run
from multicsr.stages.ingest.files import find_files
from multicsr.stages.train import trainer
from multicsr.storage.manifest import fingerprint
from multicsr.storage.store import Store
from tests.support.paths import ROOT
from tests.support.versions import manifest

PINNED = {
    "ablation.yaml": {
        "ingest": "dac6c6c9b95604db",
        "generate": "e319b0fae3cfd37d",
        "curate": "5acdf07638d2f639",
        "train": "82fd54434a6323fe",
    },
    "demo.yaml": {
        "ingest": "dac6c6c9b95604db",
        "generate": "e319b0fae3cfd37d",
        "curate": "5acdf07638d2f639",
        "train": "ad3e6e08bc1031b0",
        "evaluate": "5f78a4baf03b0ed2",
    },
}
PINNED["nightly.yaml"] = PINNED["demo.yaml"]


def fingerprints(name: str, store: Store) -> dict[str, str]:
    """Fingerprints of all stages, for input files and artifacts with invented digests."""
    config = load_config(ROOT / "configs" / name)
    files = find_files(config.input, config.s3, config.ingest.language).files
    sentences, scored, curated, model = (
        manifest(stage, rows_digest=stage) for stage in ("ingest", "generate", "curate", "train")
    )
    made = {
        "ingest": ingest_run._settings(config, files, {file.path: "digest" for file in files}),
        "generate": generate_run._settings(config, sentences),
        "curate": curate_settings(Curation.of(config, store, scored), scored),
        "train": trainer._settings(config, curated, None),
    }
    if config.evaluate.data:
        made["evaluate"] = evaluate_run._settings(config, model, find_tasks(config.evaluate.data))
    return {stage: fingerprint(settings) for stage, settings in made.items()}


@pytest.mark.parametrize("name", sorted(PINNED))
def test_fingerprints_of_a_configuration_are_pinned(name, tmp_path, monkeypatch):
    """If this fails, users' artifacts are made anew: note it in CHANGELOG, then pin the new values."""
    monkeypatch.chdir(ROOT)
    assert fingerprints(name, Store.open(str(tmp_path))) == PINNED[name]


def test_scores_of_an_llm_keep_the_names_that_they_were_stored_with(tmp_path, monkeypatch):
    """An LLM was paid for them under `expected` and `stated`."""
    monkeypatch.chdir(ROOT)
    for method, stored in (("llm_expected", "expected"), ("llm_stated", "stated"), ("both", "both")):
        config = load_config(ROOT / "configs" / "demo.yaml", [f"score.method={method}"])
        settings = generate_run._settings(config, manifest("ingest", rows_digest="x"))
        assert settings["scoring"]["score"] == {"method": stored, "max_new_tokens": 8}
        assert settings["scoring"].keys() == {"score", "prompts", "rules"}
        scored = manifest("generate", rows_digest="x").model_copy(update={"settings": settings})
        curation = Curation.of(config, Store.open(str(tmp_path)), scored)
        made = curate_settings(curation, scored)
        assert made["curate"]["score"] == {"both": "expected"}.get(stored, stored)
        curated = scored.model_copy(update={"settings": made})
        assert Curation.stored(curated) == curation


def test_comments_of_a_prompt_file_are_no_part_of_the_fingerprint(tmp_path):
    shipped = ROOT / "multicsr/prompts/syncse.yaml"
    path = tmp_path / "syncse.yaml"
    path.write_text("# a comment\n" + shipped.read_text(encoding="utf-8"), encoding="utf-8")
    ours, theirs = load_prompts(str(path)), load_prompts("syncse")
    assert ours.writing_digest() == theirs.writing_digest()
    assert ours.scoring_digest() == theirs.scoring_digest()
