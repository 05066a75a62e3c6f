"""Prompt sets: what reaches the LLM, byte for byte."""

import re
from collections import Counter

import pytest
from pydantic import ValidationError

from multicsr.errors import ConfigError
from multicsr.prompts import PromptSet, load_prompts, prompts_for_workers, shipped_prompt_sets
from multicsr.rows import row_id
from tests.support.paths import ROOT


def test_syncse_pools_are_four_and_four():
    prompts = load_prompts("syncse")
    assert (len(prompts.entailment), len(prompts.contradiction)) == (4, 4)
    assert prompts.entailment[2].startswith("Create a sentence or phrase that is also true, assuming the")


def test_a_generation_prompt_byte_for_byte():
    prompts = load_prompts("syncse")
    assert prompts.generation("It rains.", "Do it.") == "Sentence: It rains.\nDo it.\nAnswer:"
    assert prompts.scoring("A.", "B.").endswith("(a) A. (b) B.\nScore:")


def test_reference_keeps_the_trailing_space_and_the_run_of_spaces():
    prompts = load_prompts("reference")
    assert prompts.pair("It rains.", "0" * 32, seed=1).entailment.endswith("with 'It rains.': ")
    assert "5.0:" + " " * 17 + "(a) A. (b) B." in prompts.scoring("A.", "B.")


def test_a_query_is_asked_for_and_scored_by_its_passage_byte_for_byte():
    prompts = load_prompts("retrieval")
    assert (len(prompts.entailment), len(prompts.contradiction)) == (4, 4)
    assert prompts.generation("It rains.", "Do it.") == "Passage: It rains.\nDo it.\nQuery:"
    assert prompts.scoring("It rains.", "is it wet").endswith("(a) It rains. (b) is it wet\nScore:")


def test_braces_in_a_premise_stay_as_they_are():
    prompts = load_prompts("syncse")
    assert "{hypothesis} {premise}" in prompts.scoring("{hypothesis} {premise}", "B.")
    assert "(b) {premise}" in prompts.scoring("A.", "{premise}")


def test_draws_depend_on_row_and_seed_alone_and_are_even():
    prompts = load_prompts("syncse")
    ids = [row_id(f"sentence {i}", "en") for i in range(4000)]
    drawn = [prompts.pair("x", i, seed=3)[2:4] for i in ids]
    assert drawn == [prompts.pair("another premise", i, seed=3)[2:4] for i in ids]
    assert drawn != [prompts.pair("x", i, seed=4)[2:4] for i in ids]
    counts = Counter(drawn)
    assert len(counts) == 16
    assert all(150 < count < 350 for count in counts.values())  # 250 expected, sd 15


def test_the_digests_follow_every_byte_of_their_part():
    prompts = load_prompts("syncse")
    for field in PromptSet.model_fields.keys() - {"about", "chat", "languages"}:
        value = getattr(prompts, field)
        other = 1.0 if isinstance(value, float) else f"{value} x"
        changed = prompts.model_copy(update={field: [*value, "x"] if isinstance(value, list) else other})
        is_for_scoring = field in ("score", "score_labels", "score_scale")
        assert (changed.writing_digest() == prompts.writing_digest()) == is_for_scoring, field
        assert (changed.scoring_digest() == prompts.scoring_digest()) != is_for_scoring, field
    assert prompts.writing_digest() == load_prompts("syncse").writing_digest()
    described, continued = (prompts.model_copy(update=change) for change in ({"about": "x"}, {"chat": False}))
    for digest in (PromptSet.writing_digest, PromptSet.scoring_digest):
        assert digest(described) == digest(prompts) != digest(continued)


def test_a_custom_file_is_read(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "name: mine\nlayout: '{instruction}: {premise}'\nentailment: [Same]\ncontradiction: [Opposite]\n"
        "score: '{premise} | {hypothesis}'\nscore_labels: [a, b, c, d, e, f]\n"
    )
    assert load_prompts(str(path)).pair("It rains.", "00", 0).contradiction == "Opposite: It rains."


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: x\n", "layout is missing"),
        ("{", "is not YAML"),
        ("- a", "expected keys such as `layout:`"),
        ("", "expected keys such as `layout:`"),
        ("name: x\nname: y\n", "name"),
        ("name: x\nlayuot: y\n", "unknown key 'layuot'; known keys: name, about, layout,"),
        ("name: x\nlanguages: {de: 3}\n", "languages.de: write keys with values"),
        ("name: x\nscore_labels: 4\n", "score_labels: write a list"),
        ("[" * 5000, "is not YAML"),
        (
            "name: x\nlayout: '{instruction}'\nentailment: [a]\ncontradiction: [b]\nscore: s\n"
            "score_labels: [a, b, c, d, e, f]\n",
            "every generation prompt needs {premise}",
        ),
        (
            "name: x\nlayout: '{premise} {instruction}'\nentailment: [a]\ncontradiction: [b]\n"
            "score: '{premise} {hypothesis}'\nscore_labels: [a, b, c, d, e, ' a']\n",
            "score_labels must differ by more than blanks",
        ),
    ],
)
def test_a_bad_file_is_one_line(tmp_path, text, message):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_prompts(str(path))
    assert any(message in line for line in caught.value.args)
    assert all(line.startswith(f"generate.prompts: {path}") for line in caught.value.args)
    assert "\n" not in "".join(caught.value.args)


def test_file_that_is_no_utf_8_is_named(tmp_path):
    path = tmp_path / "latin.yaml"
    path.write_bytes("name: café\n".encode("latin-1"))
    for read in (load_prompts, prompts_for_workers):
        with pytest.raises(ConfigError, match=rf"generate\.prompts: {path} is not UTF-8 \(byte 9\)"):
            read(str(path))


def test_norwegian_is_a_language(tmp_path):
    path = tmp_path / "norwegian.yaml"
    own = "languages:\n  no: {entailment: [Skriv om], contradiction: [Motsi]}\n"
    path.write_text((ROOT / "multicsr/prompts/syncse.yaml").read_text(encoding="utf-8") + own)
    prompts = load_prompts(str(path))
    assert [*prompts.languages] == ["no"]
    assert prompts.for_language("nb").name == "syncse:no"


@pytest.mark.parametrize(
    ("language", "name"),
    [("fil", "tl"), ("TGL", "tl"), ("deu", "de"), ("de_AT", "de"), ("zh-Hant-TW", "zh"), ("es-419", "es")],
)
def test_other_tags_of_a_language_get_its_prompts(language, name):
    assert load_prompts("fewshot").for_language(language).name == f"fewshot:{name}"


def test_other_languages_get_the_prompts_of_the_set():
    for language in ("en", "und", "nl", "tlh", "", "auto"):
        assert load_prompts("fewshot").for_language(language).name == "fewshot"


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ConfigError, match=", ".join(shipped_prompt_sets())):
        load_prompts("sincse")


def test_examples_of_fewshot_have_one_set_of_premises_and_contradict_in_different_ways():
    prompts = load_prompts("fewshot")
    examples = [
        re.findall(r"^Sentence: (.+)\n\w.*?: (.+)$", pool[0], re.M)
        for pool in (prompts.entailment, prompts.contradiction)
    ]
    premises, contradictions = zip(*examples[1], strict=True)
    assert premises == tuple(premise for premise, _ in examples[0])
    assert len(premises) == 5
    negated = [text for text in contradictions if re.search(r"\b(?:not?|nobody|never|none|no)\b", text, re.I)]
    assert 0 < len(negated) < len(contradictions) / 2


def with_languages(**languages: dict[str, object]) -> PromptSet:
    return PromptSet.model_validate({**load_prompts("syncse").model_dump(), "languages": languages})


GERMAN = {"entailment": ["Umschreibe den Satz."], "contradiction": ["Widersprich dem Satz.", "Verneine ihn."]}


def test_row_gets_the_prompts_of_its_language_and_otherwise_those_of_the_set():
    prompts = with_languages(de=GERMAN, **{"PT-br": {**GERMAN, "layout": "{premise} -> {instruction}"}})
    assert prompts.for_language("de-AT").entailment == ["Umschreibe den Satz."]
    assert prompts.for_language("DE").name == "syncse:de"
    brazilian = prompts.for_language("pt-BR")
    assert brazilian.pair("Chove.", "0" * 32, 1).entailment == "Chove. -> Umschreibe den Satz."
    assert (brazilian.score, brazilian.stop) == (prompts.score, prompts.stop)
    for language in ("en", "pt", "pt-PT", "dex", ""):
        assert prompts.for_language(language) is prompts
    assert [variant.name for variant in prompts.variants()] == ["syncse", "syncse:de", "syncse:pt-br"]


@pytest.mark.parametrize("tags", [("no", "nb"), ("nb", "no"), ("tl", "fil"), ("fil", "tl")])
def test_prompts_for_two_codes_of_a_language_are_both_used(tags):
    prompts = with_languages(**{tag: {**GERMAN, "entailment": [tag]} for tag in tags})
    for tag in tags:
        assert prompts.for_language(tag).entailment == [tag]
        assert prompts.for_language(f"{tag}-XX").name == f"syncse:{tag}"
    assert [variant.name for variant in prompts.variants()] == ["syncse", *(f"syncse:{tag}" for tag in tags)]


def test_prompts_of_languages_are_part_of_what_writes_and_not_of_what_scores():
    plain, german = load_prompts("syncse"), with_languages(de=GERMAN)
    other = with_languages(de={**GERMAN, "entailment": ["Umschreibe ihn."]})
    assert len({each.writing_digest() for each in (plain, german, other)}) == 3
    assert len({each.scoring_digest() for each in (plain, german, other)}) == 1
    assert with_languages().writing_digest() == plain.writing_digest()


def test_bad_prompts_of_a_language_name_it():
    layout = {**GERMAN, "layout": "{instruction}"}
    with pytest.raises(ValidationError, match=r"language de: .*every generation prompt needs \{premise\}"):
        with_languages(de=layout)
    with pytest.raises(ValidationError, match="a name has no colon"):
        PromptSet.model_validate({**load_prompts("syncse").model_dump(), "name": "my:set"})


def test_fewshot_has_the_same_five_examples_in_every_language():
    prompts = load_prompts("fewshot")
    assert {"de", "es", "fr", "id", "tl", "zh"} == prompts.languages.keys()
    for variant in prompts.variants():
        examples = [
            re.findall(r"^\w+[:\uff1a] ?(.+)\n(.+?)[:\uff1a] ?(.+)$", pool[0], re.M)
            for pool in (variant.entailment, variant.contradiction)
        ]
        assert [len(of_side) for of_side in examples] == [5, 5], variant.name
        assert [premise for premise, *_ in examples[0]] == [premise for premise, *_ in examples[1]]
        labels = {label for of_side in examples for _, label, _ in of_side}
        ends = {pool[0].rpartition("\n")[2][:-1] for pool in (variant.entailment, variant.contradiction)}
        assert labels == ends, variant.name
        assert len({text for of_side in examples for *_, text in of_side}) == 10
