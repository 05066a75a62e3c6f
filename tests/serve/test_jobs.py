"""Jobs at `multicsr serve` have the rows of jobs on the engine itself, stage 1 and scores included."""

import shutil

import pytest

from multicsr.config import Config
from multicsr.errors import RunError
from multicsr.llm.openai.engine import OpenAIEngine
from multicsr.llm.openai.offer import require_pairs
from multicsr.models.resolve import ASSETS
from multicsr.observability.progress import SilentProgress
from multicsr.pipeline import full_run
from multicsr.stages.generate.triplets import TripletStage
from multicsr.storage.manifest import iter_rejects, iter_tables
from multicsr.storage.store import Store
from multicsr.storage.versions import current
from tests.serve.test_answers import TEMPLATE
from tests.support.llm_rows import make_sentences
from tests.support.served import NAME, engine_of, serving_engine
from tests.support.tiny_llms import make_config

SCORE = {"score": {"method": "both", "max_new_tokens": 3}, "curate": {"score": "llm_expected"}}
SAMPLINGS = {"greedy": {}, "drawn": {"temperature": 0.8, "top_p": 0.9}}


def at(server, **sections):
    """The settings of a job at the server that has these settings otherwise."""
    llm = {"engine": "openai", "model": NAME, "base_url": server.url, "patience_s": 2.0}
    sections["llm"] = {**sections.get("llm", {}), **llm}
    tree = make_config(NAME, **sections).model_dump(exclude_unset=True)
    del tree["llm"]["device"]
    return Config.model_validate(tree)


def rows_of(config, sentences):
    """WRITTEN rows by id, without the name of the model."""
    stage = TripletStage(config)
    try:
        rows = stage(sentences).rows.to_pylist()
    finally:
        stage.close()
    return {row.pop("row_id"): {**row, "llm": ""} for row in rows}


@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS)
@pytest.mark.parametrize("kind", ["causal", "encoder_decoder", "chat"])
def test_rows_are_those_of_the_engine_itself(request, premises, tmp_path, kind, sampling):
    folder = request.getfixturevalue("encoder_decoder_dir" if kind == "encoder_decoder" else "causal_dir")
    if kind == "chat":
        folder = shutil.copytree(folder, tmp_path / "model")
        (folder / "chat_template.jinja").write_text(TEMPLATE)
    sections = {**SCORE, "generate": {"omega": 0.3, **sampling}}
    sentences = make_sentences(premises[:12])
    expected = rows_of(make_config(folder, **sections), sentences)
    with serving_engine(engine_of(folder)) as server:
        assert rows_of(at(server, **sections), sentences) == expected
    assert len(expected) == 12


def test_prompts_that_are_not_for_chat_are_continued_as_they_are(causal_dir, tmp_path, premises):
    folder = shutil.copytree(causal_dir, tmp_path / "model")
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    text = "name: plain\nlayout: '{premise}: {instruction}'\nchat: false\n"
    text += "entailment: ['It is so:']\ncontradiction: ['It is not so:']\n"
    text += "score: '{premise}. {hypothesis}. Score:'\nstop: []\n"
    text += "score_labels: ['0', '1', '2', '3', '4', '5']\n"
    (tmp_path / "set.yaml").write_text(text)
    sections = {**SCORE, "generate": {"omega": 0.3, "prompts": str(tmp_path / "set.yaml")}}
    sentences = make_sentences(premises[:6])
    expected = rows_of(make_config(folder, **sections), sentences)
    with serving_engine(engine_of(folder)) as server:
        assert rows_of(at(server, **sections), sentences) == expected
        always = {**sections, "llm": {"chat_template": True}}
        in_chat = rows_of(make_config(folder, **always), sentences)
        assert rows_of(at(server, **always), sentences) == in_chat != expected


def run(config):
    full_run.run(config, SilentProgress(), until="generate")
    store = Store.of(config)
    manifest = current(store).manifest("scored")
    tables = [*iter_tables(store, manifest), *iter_rejects(store, manifest)]
    return {row["row_id"]: row for table in tables for row in table.to_pylist()}


@pytest.mark.usefixtures("without_ray")
def test_whole_run_on_the_shipped_lm_is_that_of_the_engine_itself(tmp_path, premises):
    """The model has one name, so the rows are equal in every column."""
    (tmp_path / "in.txt").write_text("\n".join(premises[:40]) + "\n", encoding="utf-8")

    def settings(store, **llm):
        return {
            "name": store,
            "store": str(tmp_path / store),
            "input": {"paths": [str(tmp_path / "in.txt")]},
            "llm": {"model": "tinylm", **llm},
            "generate": {"omega": 0.3, "max_new_tokens": 24, "max_rejected": 1.0},
            "score": {"method": "both"},
            "curate": {"score": "llm_expected"},
        }

    local = run(Config.model_validate(settings("local")))
    with serving_engine(engine_of(ASSETS / "tinylm"), name="tinylm") as server:
        endpoint = settings("served", engine="openai", base_url=server.url)
        served = run(Config.model_validate(endpoint))
    assert len(local) == 40
    assert served == local
    assert any(row["entailment"] for row in local.values())


def test_offer_of_a_real_server_is_found(causal_dir):
    with serving_engine(None) as server:
        config = at(server, **SCORE)
        with pytest.raises(RunError, match="does not answer now: HTTP 503"):
            require_pairs(config.llm)
        server.load(engine_of(causal_dir))
        require_pairs(config.llm)
        OpenAIEngine(config, backoff_s=0.01).close()
