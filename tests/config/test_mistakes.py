"""Every mistake in the words of the user, with the nearest full key: none of pydantic's words is left."""

import re

import pytest
import yaml

from multicsr.config import Config
from multicsr.config_file import load_with_mistakes

TOP = {"name": "a", "store": "s", "input": {"paths": ["a.txt"]}}
PYDANTIC = re.compile(
    r"Input should|valid (?:dictionary|integer|number|string|list|boolean)|instance of|should (?:match|have)"
    r"|unable to|validation error|\bdict\b|\bNone\b|\bTrue\b|\bFalse\b"
)
MISTAKES = [
    (
        "generate: 3",
        'generate: is a section; write settings below it, such as `generate: {prompts: "syncse"}`',
    ),
    ("generate:", "generate: is a section; write settings below it"),
    ("input: {paths: a.txt}", 'input.paths: write a list, such as [a.txt] (given: "a.txt")'),
    ("input: {paths: []}", "input.paths: the list is empty"),
    ("train: {lora: {targets: []}}", "train.lora.targets: the list is empty"),
    (
        "train: {extra_triplets: [{path: a.tsv, columns: [1]}]}",
        "train.extra_triplets.0.columns: the list must have 2 items or more",
    ),
    ("input: {paths: [a.txt, 1]}", "input.paths: item 2: write text, in quotation marks"),
    ("input: {paths: [a], format: txt}", "'wikipedia'; did you mean 'text'?"),
    ("name: a b", "name: write letters, digits, '.', '_' and '-'"),
    ("store: ''", "store: must not be empty"),
    ("seed: x", 'seed: write a whole number (given: "x")'),
    ("seed: 1.5", "seed: write a whole number (given: 1.5)"),
    ("seed: -1", "seed: must be at least 0 (given: -1)"),
    ("seed: true", "seed: write a number (given: true)"),
    ("generate: {omega: 0.3x}", "generate.omega: write a number"),
    ("generate: {omega: 2}", "generate.omega: must be below 1 (given: 2)"),
    ("generate: {omega: .nan}", "generate.omega: write a finite number"),
    ("generate: {nodes: 3}", "generate.nodes: write names with values"),
    ("generate: {nodes: {a: 1}}", "generate.nodes.a: write text"),
    ("train: {mask: true}", "train.mask: is a section; write settings below it, such as `mask: {model:"),
    ("train: {mask: {sigma: 0}}", "train.mask.sigma: must be above 0"),
    ("train: {tensorboard: maybe}", "train.tensorboard: write true or false"),
    ("train: {epochs: 2.5}", "train.epochs: write a whole number"),
    (
        "llm: {template_args: {a: [1]}}",
        "llm.template_args.a: write text, a number, true or false (given: [1])",
    ),
    ("llm: {engine: gpt}", "llm.engine: write 'transformers', 'vllm', 'openai' or 'fake' (given: \"gpt\")"),
    ("curate: {alpha: null}", "curate.alpha: write a number (given: null)"),
    ("omega: 0.2", "unknown key 'omega'; did you mean 'generate.omega'?"),
    ("alpha: 3", "unknown key 'alpha'; did you mean 'curate.alpha' or"),
    ("trian: {}", "unknown key 'trian'; did you mean 'train'?"),
    ("learningrate: 1", "unknown key 'learningrate'; did you mean 'train.learning_rate'?"),
    ("train: {sigma: 0.5}", "unknown key 'train.sigma'; did you mean 'train.mask.sigma'?"),
    ("train: {mask: {sgma: 0.5}}", "unknown key 'train.mask.sgma'; did you mean 'train.mask.sigma'?"),
    ("generate.omega: 0.2", "unknown key 'generate.omega'; write omega below `generate:`"),
    ("qqq: 1", "unknown key 'qqq'; known keys there: name, store,"),
    ("refresh: {qqq: 1}", "known keys below refresh: retrain_share,"),
]


@pytest.mark.parametrize(("mistake", "line"), MISTAKES, ids=[mistake for mistake, _ in MISTAKES])
def test_mistake_is_one_line_in_the_words_of_the_user(tmp_path, mistake, line):
    path = tmp_path / "a.yaml"
    path.write_text(
        yaml.safe_dump({k: v for k, v in TOP.items() if not mistake.startswith(f"{k}:")}) + mistake
    )
    _, found = load_with_mistakes(path)
    assert len(found) == 1, found
    assert line in found[0]
    assert not PYDANTIC.search(found[0])
    assert found[0].startswith(f"{path}:{len(path.read_text().splitlines())}: "), "the line of the mistake"


def test_mistake_of_set_names_set(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(yaml.safe_dump(TOP))
    _, found = load_with_mistakes(path, ["omega=0.2", "generate.alpha=1", "x"])
    assert found == [
        "--set 'x': write section.key=value",
        "--set: unknown key 'generate.alpha'; did you mean 'curate.alpha' or 'train.lora.alpha'?",
        "--set: unknown key 'omega'; did you mean 'generate.omega'?",
    ]


def test_the_name_alone_has_a_pattern():
    """Its words are those for every pattern."""
    patterns = re.findall(r"'pattern': '([^']*)'", str(Config.model_json_schema()))
    assert len(patterns) == 1
