"""The settings of rows: at both scales, with one encoder, with and without what rows need."""

import dataclasses

import pytest

from multicsr.errors import ConfigError
from multicsr.tools.reproduce.paper import PaperEntry
from multicsr.tools.reproduce.plan import RowPlan, plan_rows
from multicsr.tools.reproduce.registry import ENTRIES
from multicsr.tools.reproduce.scale import ReproduceOptions, inputs_of, require_effects, tasks_of


def planned(name: str, options: ReproduceOptions) -> dict[str, RowPlan]:
    entry = ENTRIES[name]
    return {
        f"{plan.row.encoder} {plan.row.name}": plan
        for plan in plan_rows(entry, options, inputs_of(entry, options))
    }


@pytest.mark.parametrize("entry", [e for e in ENTRIES.values() if e.name != "table-5"], ids=lambda e: e.name)
def test_every_entry_has_valid_settings_at_small_scale(entry: PaperEntry):
    options = ReproduceOptions()
    plans = plan_rows(entry, options, inputs_of(entry, options))
    run = [plan for plan in plans if not plan.reason]
    assert run
    assert len({str(plan.settings()) for plan in run}) == len(run)
    assert all(plan.changes for plan in run[1:])
    assert tasks_of(entry, inputs_of(entry, options))


def test_rows_show_the_settings_by_which_they_differ_from_the_row_above():
    plans = planned("table-3", ReproduceOptions())
    assert plans["roberta w/o stage 1"].changes == ("generate.omega: 0.3 -> 0.0",)
    assert plans["roberta w/o stage 1&2"].changes == (
        "generate.omega: 0.3 -> 0.0",
        "train.mask: null -> sigma 0.65",
        "trained on: curated -> scored",
    )
    assert plans["roberta w/o stage 3"].changes == ("train.mask: null", "trained on: scored -> curated")


def test_full_scale_has_the_settings_of_the_paper(full):
    plan = planned("table-2", full)["roberta MultiCSR (Flan-T5)"]
    train = plan.config.train
    assert (plan.config.llm.model, plan.config.generate.omega) == ("google/flan-t5-xl", 0.3)
    assert (train.encoder, train.pooling, train.mlp_head) == ("FacebookAI/roberta-base", "cls", True)
    assert (train.global_batch, train.epochs, train.learning_rate) == (256, 3, 5e-5)
    assert (train.mask.model, train.mask.sigma) == ("princeton-nlp/unsup-simcse-roberta-base", 0.9)
    curate = plan.config.curate
    assert (curate.alpha, curate.beta, curate.gamma) == (3, 3, 1)
    assert train.dev == "stsb_dev.tsv"


def test_one_encoder_stands_for_the_first_block(full):
    for options in (ReproduceOptions(), dataclasses.replace(full, encoder="my/encoder")):
        plans = planned("table-2", options)
        assert plans["bert MultiCSR (Flan-T5)"].reason == ""
        reason = plans["roberta MultiCSR (Flan-T5)"].reason
        assert reason == "the one encoder that is given stands for BERT base"
    assert plans["bert MultiCSR (Flan-T5)"].config.train.encoder == "my/encoder"


def test_rows_of_chatgpt_need_an_endpoint_at_full_scale(full):
    plan = planned("table-2", full)["bert MultiCSR (ChatGPT)"]
    assert (plan.config.llm.engine, plan.config.generate.omega) == ("openai", 0.0)
    without = planned("table-2", dataclasses.replace(full, endpoint=None))
    assert without["bert MultiCSR (ChatGPT)"].reason == "ChatGPT needs an endpoint; give --endpoint URL"
    assert without["bert MultiCSR (Flan-T5)"].reason == ""


def test_full_scale_without_data_states_what_it_needs():
    options = ReproduceOptions(scale="full")
    with pytest.raises(ConfigError, match=r"table-3: no row can run: .* --sentences FILE.* It needs .*sent0"):
        planned("table-3", options)
    with pytest.raises(
        ConfigError, match=r"table-9 has nothing to measure on; give --data FOLDER: .*SentEval"
    ):
        tasks_of(ENTRIES["table-9"], inputs_of(ENTRIES["table-9"], options))


def test_a_source_that_is_not_given_leaves_its_rows_empty():
    plans = planned("table-4", ReproduceOptions())
    assert plans["roberta MultiCSR, NLI premises"].reason == ""
    reason = plans["roberta MultiCSR, Wikipedia"].reason
    assert reason == "there are no sentences wikipedia; give --source wikipedia=FILE"


def test_labelled_triplets_of_the_demo_choose_no_checkpoint():
    entry = ENTRIES["table-11"]
    inputs = inputs_of(entry, ReproduceOptions())
    assert inputs.dev is None
    assert inputs.labelled.endswith("dev_triplets.tsv")
    plans = planned("table-11", ReproduceOptions())
    assert plans["bert-supervised MultiCSR (Flan-T5)"].config.train.dev is None


@pytest.mark.parametrize(
    ("path", "column"),
    [
        ("nli.csv", "sent0"),
        ("nli.tsv.gz", "sent0"),
        ("premises/*.jsonl", "sent0"),
        ("premises.parquet", "sent0"),
        ("premises", "sent0"),
        ("wiki1m_for_simcse.txt", None),
        ("wiki.txt.gz", None),
        ("enwiki.xml.bz2", None),
    ],
)
def test_the_column_is_that_of_every_file_with_columns(path, column, full):
    options = dataclasses.replace(full, sources={"premises": path, "wikipedia": "w.csv"}, column="sent0")
    read = planned("table-4", options)["roberta MultiCSR, NLI premises"].config.input
    assert (read.paths, read.column) == ([path], column)


def test_a_folder_that_is_called_as_text_has_a_column(full, tmp_path):
    folder = tmp_path / "sentences.txt"
    folder.mkdir()
    options = dataclasses.replace(full, sources={"premises": str(folder)}, column="sentence")
    assert planned("table-3", options)["roberta MultiCSR"].config.input.column == "sentence"


def test_each_source_has_its_own_column():
    options = ReproduceOptions(sources={"tagalog": "tl.tsv", "wikipedia": "w.csv"}, column="tl")
    plans = planned("table-4", options)
    assert plans["roberta MultiCSR, NLI premises"].config.input.column == "sentence"
    assert plans["roberta MultiCSR, Wikipedia"].config.input.column == "tl"
    assert planned("table-5", options)["multilingual MultiCSR"].config.input.column == "tl"


def test_p_has_the_pooling_of_its_own(full):
    mask = planned("table-5", full)["multilingual MultiCSR"].config.train.mask
    assert (mask.model.rpartition("/")[2], mask.pooling) == ("paraphrase-multilingual-MiniLM-L12-v2", None)
    assert planned("table-2", full)["bert MultiCSR (Flan-T5)"].config.train.mask.pooling == "cls"


def test_the_model_of_an_endpoint_may_be_named(full):
    models = [
        planned("table-2", dataclasses.replace(full, endpoint_model=name))["bert MultiCSR (ChatGPT)"]
        for name in (None, "gpt-4o-mini")
    ]
    assert [plan.config.llm.model for plan in models] == ["gpt-3.5-turbo", "gpt-4o-mini"]
    without = ReproduceOptions(endpoint_model="gpt-4o-mini")
    with pytest.raises(ConfigError, match=r"^--endpoint-model: there is no endpoint .* give --endpoint URL"):
        require_effects(ENTRIES["table-2"], without)


def test_overrides_hold_where_a_row_does_not_set_them():
    options = ReproduceOptions(overrides=["train.steps=7", "generate.omega=0.2"])
    plans = planned("table-3", options)
    assert {plan.config.train.steps for plan in plans.values()} == {7}
    omegas = {plan.row.name: plan.config.generate.omega for plan in plans.values()}
    assert (omegas["MultiCSR"], omegas["w/o stage 1"]) == (0.2, 0.0)


def test_a_wrong_setting_is_an_error():
    with pytest.raises(ConfigError, match=r"train\.stepz"):
        planned("table-3", ReproduceOptions(overrides=["train.stepz=7"]))


@pytest.mark.parametrize(
    ("name", "option", "given"),
    [
        ("table-3", "--source tagalog", {"sources": {"tagalog": "t.txt"}}),
        ("figure-4", "--sentences", {"sources": {"premises": "p.txt"}, "labelled": "l.tsv"}),
        ("table-3", "--column", {"column": "text"}),
        ("table-3", "--column", {"column": "text", "sources": {"premises": "p.txt"}}),
        ("figure-4", "--llm", {"llm": "my/llm"}),
        ("table-13", "--llm", {"llm": "my/llm"}),
        ("table-5", "--llm", {"llm": "my/llm", "scale": "full"}),
        ("figure-5", "--encoder", {"encoder": "my/encoder"}),
        ("figure-7", "--encoder", {"encoder": "my/encoder"}),
        ("table-12", "--encoder", {"encoder": "my/encoder"}),
        ("table-1", "--dev", {"dev": "d.tsv"}),
        ("table-1", "--seeds", {"seeds": 3}),
        ("table-12", "--seeds", {"seeds": 3}),
        ("table-13", "--seeds", {"seeds": 3}),
        ("figure-7", "--seeds", {"seeds": 3}),
        ("table-3", "--labelled", {"labelled": "l.tsv"}),
        ("table-3", "--endpoint", {"endpoint": "http://h/v1"}),
        ("table-3", "--data", {"data": ["sts/"]}),
        ("table-13", "--limit", {"limit": 9}),
        ("figure-5", "--dev", {"dev": "d.tsv"}),
    ],
)
def test_an_option_without_effect_is_rejected(name, option, given):
    with pytest.raises(ConfigError, match=f"^{option} has no effect on {name}; leave it out$"):
        require_effects(ENTRIES[name], ReproduceOptions(**given))


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)
def test_the_inputs_of_a_table_have_an_effect(entry, toy):
    require_effects(entry, toy(entry.name))
