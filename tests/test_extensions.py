"""Parts of other packages: found by name without an import, checked, counted in fingerprints, and run."""

import re
import sys
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from multicsr.cli.main import app
from multicsr.config import Config
from multicsr.config.evaluation import TASK_KINDS
from multicsr.config.packages import parts_of_training
from multicsr.config.training import NEEDS_MASK
from multicsr.config_file import build_config
from multicsr.errors import ConfigError, RunError
from multicsr.observability.progress import SilentProgress
from multicsr.pipeline import full_run
from multicsr.pipeline.preflight import find_problems
from multicsr.recipes import load_recipe, recipe_names
from multicsr.stages.evaluate import find_tasks, read_evaluation
from multicsr.stages.evaluate.kinds import KINDS
from multicsr.stages.evaluate.kinds.reader import FoundTask, UnusableFiles
from multicsr.stages.generate import writing
from multicsr.stages.generate.llm_cache import CacheKey
from multicsr.stages.generate.rules_of_packages import PackageRules
from multicsr.stages.report import write_report
from multicsr.stages.score.by_package import PackageScorer, deciding_package
from multicsr.stages.train import worker as train_worker
from multicsr.stages.train.fit import fit
from multicsr.stages.train.objectives.load import check_objective, load_objective
from multicsr.stages.train.objectives.losses import OBJECTIVES
from multicsr.storage.manifest import iter_rejects, iter_tables
from multicsr.storage.store import Store
from multicsr.storage.versions import Snapshot, current
from multicsr.tools.audit import audit
from multicsr.tools.explain import explain
from multicsr.tools.preview.advice import junk_share
from tests.support.acme_package import forget_acme, write_acme, write_distribution
from tests.support.jobs_here import jobs_here, write_inputs

BASE = {"name": "x", "store": "x", "input": {"paths": ["x"]}}
NAMING = {
    "multicsr.scorers": {"score": {"method": "word-overlap"}},
    "multicsr.objectives": {"train": {"objective": "word-overlap"}},
    "multicsr.reject_reasons": {"generate": {"reject_reasons": ["word-overlap"]}},
    "multicsr.tasks": {"evaluate": {"kinds": ["word-overlap"], "data": ["quiz.tsv"]}},
}
"""Groups of entry points -> settings that name `word-overlap` of the group."""
GROUPS = [*NAMING, "multicsr.recipes"]
VALUES = {
    "missing module": (
        "no_such_package:X",
        r"cannot be loaded: ModuleNotFoundError: No module named 'no_such",
    ),
    "missing object": ("string:NOTHING", r"cannot be loaded: AttributeError: .*NOTHING"),
    "failing import": ("broken_by_itself:X", r"cannot be loaded: RuntimeError: no licence found$"),
    "ending import": ("ending:X", r"cannot be loaded: SystemExit: no licence$"),
    "other object": (
        "string:digits",
        r"is no (function of \d arguments?|[\w.]+\.(Objective|Kind)|Python package, .*)$",
    ),
}


def settings(**sections: object) -> Config:
    return build_config(deepcopy({**BASE, **sections}), ())  # what is wrong is removed from the tree


def install(
    monkeypatch: pytest.MonkeyPatch, folder: Path, name: str, group: str, part: str, value: str
) -> None:
    write_distribution(folder / name, name, "2.5", {group: {part: value}})
    monkeypatch.syspath_prepend(folder / name)


def run(config: Config, **changes: dict[str, object]) -> Snapshot:
    config = Config.model_validate(config.model_dump(exclude_unset=True) | changes)
    with jobs_here():
        full_run.run(config, SilentProgress())
    snapshot = current(Store.of(config))
    assert audit(snapshot) == []
    return snapshot


@pytest.fixture
def config(acme, tmp_path, monkeypatch) -> Config:
    """The recipe of the package with tiny models, little data and one optimizer step."""
    monkeypatch.chdir(tmp_path)
    write_inputs(tmp_path)
    rows = [f"Who is number {n}?\tNumber {n} is here.\tNobody is there." for n in range(12)]
    Path("quiz.tsv").write_text("\n".join(["question\tright\twrong", *rows]) + "\n")
    tree = load_recipe("acme-margin").tree()
    tree |= {"store": "store", "llm": {"engine": "fake"}, "lease_s": 1}
    tree["input"] = {"paths": ["a.txt"]}
    tree["generate"]["max_rejected"] = 0.95
    tree["evaluate"] = {"data": ["quiz.tsv", "triplets.tsv"], "kinds": ["quiz"], "baseline": False}
    tree["train"] |= {"encoder": "encoder", "steps": 1, "global_batch": 8, "tensorboard": False}
    return build_config(tree, ())


def test_parts_of_a_package_run_to_an_encoder(config, tmp_path):
    """A new version scores and judges anew what was written, and trains again; the LLM writes nothing."""
    first = run(config)
    scored, model = first.manifest("scored"), first.manifest("model")
    rows = [row for table in iter_tables(first.store, scored) for row in table.to_pylist()]
    rejects = [row for table in iter_rejects(first.store, scored) for row in table.to_pylist()]
    assert {row["reason"] for row in rejects} >= {"much-longer"}
    too_long = next(row for row in rejects if row["reason"] == "much-longer")
    assert too_long["detail"].startswith(("entailment: ", "contradiction: "))
    assert too_long["detail"].endswith(" words, at most 12")
    assert rows
    assert all(row["entailment_model"] is not None and row["entailment_expected"] is None for row in rows)
    assert scored.settings["scoring"]["score"]["package"] == "acme-multicsr 1.0"
    assert scored.settings["scoring"]["rules"]["hypotheses of packages"] == [
        "much-longer of acme-multicsr 1.0"
    ]
    assert model.settings["train"]["objective_package"] == "acme-multicsr 1.0"
    kinds = {score.task: score.kind for score in read_evaluation(first).encoders[-1].main_scores()}
    assert kinds == {"quiz": "quiz", "triplets": "triplets"}
    assert any("much-longer" in words for _, words in explain(first, too_long["row_id"]).facts)
    write_report(first, tmp_path / "report.html")
    assert "word-overlap" in (tmp_path / "report.html").read_text()

    assert run(config).fingerprints == first.fingerprints
    forget_acme()
    write_acme(tmp_path / "later", "1.1")
    sys.path.insert(0, str(tmp_path / "later"))
    second = run(config)
    sys.path.remove(str(tmp_path / "later"))
    same = {name for name in first.fingerprints if first.fingerprints[name] == second.fingerprints[name]}
    assert same == {"sentences"}
    counters = second.manifest("scored").counters
    assert (counters["rows_written"], counters["rows_scored"]) == (0, len(rows))


def test_rules_of_packages_leave_scores_and_rows_of_others(config):
    """Taken out, the rows that the rule rejected are scored, and no other one again."""
    first = run(config)
    key = CacheKey.of(first.manifest("scored").settings)
    rejected = first.manifest("scored").rejected["much-longer"]
    without = run(config, generate={"reject_reasons": []})
    assert CacheKey.of(without.manifest("scored").settings).scores == key.scores
    assert "much-longer" not in without.manifest("scored").rejected
    assert without.manifest("scored").counters["rows_scored"] == rejected
    assert without.manifest("scored").counters["rows_written"] == 0


def test_names_are_found_without_an_import(acme):
    config = settings(
        score={"method": "word-overlap"},
        generate={"reject_reasons": ["much-longer"]},
        train={"objective": "margin", "mask": None},
        evaluate={"kinds": ["quiz"], "data": ["quiz.tsv"]},
    )
    done = CliRunner().invoke(app, ["recipes", "list"])
    assert done.output.splitlines()[-1].split() == [
        "acme-margin",
        *["of", "the", "package", "acme-multicsr", "1.0"],
    ]
    assert [line.split()[0] for line in done.output.splitlines()] == [*recipe_names(), "acme-margin"]
    assert config.deciding_score == "word-overlap"
    assert not [name for name in sys.modules if name.startswith("acme_multicsr")]


def test_recipe_of_a_package_is_shown_and_copied_like_others(acme, tmp_path):
    shown = CliRunner().invoke(app, ["recipes", "show", "acme-margin"]).output
    assert shown.startswith(
        "Recipe acme-margin: Triplets kept for their words, trained with a margin\n"
        "Of the package acme-multicsr 1.0\n"
    )
    done = CliRunner().invoke(app, ["recipes", "copy", "acme-margin", str(tmp_path / "mine.yaml")])
    assert done.exit_code == 0, done.output
    assert "# of this package, too" in (tmp_path / "mine.yaml").read_text()


@pytest.mark.parametrize(
    ("sections", "problem"),
    [
        (
            {"score": {"method": "word-overlp"}},
            "score.method: write 'llm_expected', 'llm_stated', 'both', 'encoder', 'nli' or 'word-overlap' "
            "(acme-multicsr 1.0); did you mean 'word-overlap'? (given: \"word-overlp\")",
        ),
        (
            {"curate": {"score": "encodr"}},
            "curate.score: write 'llm_expected', 'llm_stated', 'encoder', 'nli' or 'word-overlap' "
            "(acme-multicsr 1.0); did you mean 'encoder'? (given: \"encodr\")",
        ),
        (
            {"generate": {"reject_reasons": ["much-shorter"]}},
            "generate.reject_reasons: write 'much-longer' (acme-multicsr 1.0); did you mean 'much-longer'? "
            '(given: ["much-shorter"])',
        ),
        (
            {"generate": {"reject_reasons": ["meta talk"]}},
            "generate.reject_reasons: reject reason 'meta talk' is built in and always in effect; "
            'leave it out (given: ["meta talk"])',
        ),
        (
            {"evaluate": {"kinds": ["quiz", "quiz"]}},
            'evaluate.kinds: quiz is named twice (given: ["quiz", "quiz"])',
        ),
        ({"evaluate": {"kinds": ["quiz"]}}, "evaluate: kinds has no effect without evaluate.data"),
    ],
)
def test_unknown_names_are_one_line(acme, sections, problem):
    with pytest.raises(ConfigError) as caught:
        settings(**sections)
    assert str(caught.value) == problem


def test_a_name_whose_package_is_elsewhere_is_one_line(acme):
    """On a worker, which gets a configuration that was read on another machine, and on the command line."""
    with pytest.raises(ConfigError, match=r"^no scorer 'shape' on this machine; write 'llm_expected', .*\)$"):
        PackageScorer(settings().score.model_copy(update={"method": "shape"}))
    arguments = ["evaluate", "all-MiniLM-L6-v2", "--data", str(acme), "--kind"]
    done = CliRunner().invoke(app, [*arguments, "quizz"])
    assert done.output == (
        "error: no kind of tasks 'quizz' on this machine; write 'quiz' (acme-multicsr 1.0); "
        "did you mean 'quiz'?\n"
    )
    done = CliRunner().invoke(app, [*arguments, "sts"])
    assert done.output == "error: kind of tasks 'sts' is built in and always in effect; leave it out\n"
    done = CliRunner().invoke(app, ["evaluate", "all-MiniLM-L6-v2", "--task", "STS12", "--kind", "quiz"])
    assert done.output == "error: --kind has no effect without --data\n"


def test_unknown_recipe_names_those_of_packages(acme):
    with pytest.raises(ConfigError, match=r"^no recipe 'acme-marg'; did you mean acme-margin"):
        load_recipe("acme-marg")


@pytest.mark.parametrize("group", GROUPS)
def test_two_packages_with_one_name_are_an_error(group, tmp_path, monkeypatch):
    for name in ("bmce", "acme"):
        install(monkeypatch, tmp_path, name, group, "word-overlap", "nowhere:X")
    with pytest.raises(
        ConfigError, match=r"acme 2\.5 and bmce 2\.5 have a [a-z ]+ of the same name, 'word-overlap'; rename"
    ) as caught:
        load_recipe("word-overlap") if group == "multicsr.recipes" else settings(**NAMING[group])
    assert "\n" not in str(caught.value)


def test_recipes_with_one_name_leave_others(tmp_path, monkeypatch):
    for name in ("bmce", "acme"):
        install(monkeypatch, tmp_path, name, "multicsr.recipes", "gist-b", "nowhere")
    assert load_recipe("gist").name == "gist"
    with pytest.raises(ConfigError, match=r"^no recipe 'gist-c'; did you mean gist"):
        load_recipe("gist-c")
    lines = CliRunner().invoke(app, ["recipes", "list"]).output.splitlines()
    assert [line.split()[0] for line in lines] == [*recipe_names(), "gist-b"]
    assert " not usable: acme 2.5 and bmce 2.5 have a recipe of the same name" in lines[-1]


@pytest.mark.parametrize(
    ("group", "name", "sections"),
    [
        ("multicsr.scorers", "encoder", {"score": {"method": "encoder"}}),
        ("multicsr.objectives", "gist", {"train": {"objective": "gist"}}),
        ("multicsr.reject_reasons", "too short", {"generate": {"reject_reasons": ["too short"]}}),
        ("multicsr.tasks", "sts", {"evaluate": {"kinds": ["sts"]}}),
        ("multicsr.recipes", "claif", None),
    ],
)
def test_a_name_that_is_built_in_is_an_error(group, name, sections, tmp_path, monkeypatch):
    install(monkeypatch, tmp_path, "acme", group, name, "nowhere:X")
    with pytest.raises(
        ConfigError, match=rf"multicsr and acme 2\.5 have a [a-z ]+ of the same name, '{name}'"
    ):
        load_recipe(name) if sections is None else settings(**sections)
    settings()  # a configuration that does not name it works


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("group", GROUPS)
def test_a_part_that_cannot_be_used_is_one_line(group, value, tmp_path, monkeypatch):
    """Before the first stage, and so in `multicsr check`."""
    monkeypatch.chdir(tmp_path)
    Path("quiz.tsv").write_text("question\tright\twrong\na\tb\tc\n")
    (tmp_path / "acme").mkdir()
    (tmp_path / "acme/broken_by_itself.py").write_text("raise RuntimeError('no\\nlicence found')\n")
    (tmp_path / "acme/ending.py").write_text("raise SystemExit('no licence')\n")
    install(monkeypatch, tmp_path, "acme", group, "word-overlap", VALUES[value][0])
    if group == "multicsr.recipes":
        with pytest.raises(ConfigError) as caught:
            load_recipe("word-overlap")
        found = [str(caught.value)]
    else:
        config = settings(llm={"engine": "fake"}, **NAMING[group])
        found = [str(each) for each in find_problems(["generate", "train", "evaluate"], config)]
    lines = [line for line in found if "word-overlap" in line]
    assert len(lines) == 1, found
    assert "\n" not in lines[0]
    assert f"'word-overlap' of the package acme 2.5 ({VALUES[value][0]})" in lines[0]
    assert re.search(VALUES[value][1], lines[0]), lines[0]


def test_a_broken_recipe_is_one_line(tmp_path, monkeypatch):
    install(monkeypatch, tmp_path, "acme", "multicsr.recipes", "mine", "acme_recipes")
    folder = tmp_path / "acme/acme_recipes"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    facts = "title: x\nsource: [y]\n---\n"
    for text, problem in {
        "title: one document\n": "a recipe has two documents",
        "titel: x\n---\nname: x\n": "cannot be read: 3 validation errors",
        f"{facts}name: x\nstore: y\ninput: {{paths: [z]}}\ntrain: {{encodr: x}}\n": "unknown key",
        f"{facts}- x\n": "it is no configuration: it holds no sections",
    }.items():
        (folder / "mine.yaml").write_text(text)
        with pytest.raises(
            ConfigError, match=rf"^recipe 'mine' of the package acme 2\.5 \(acme_recipes\):? {problem}"
        ):
            load_recipe("mine")


@pytest.mark.parametrize(
    ("returned", "problem"),
    [
        ([1.0], "returned 1 scores for 2 pairs"),
        ([1.0, 5.0001], "returned 5.0001 for 'c' and 'd{80}'; scores are from 0 to 5$"),
        ([-1, 0], r"returned -1.0 for"),
        ([None, 0], "raised TypeError: float"),
        (None, "raised TypeError: 'NoneType'"),
    ],
)
def test_scores_off_the_scale_end_the_run(returned, problem, acme, monkeypatch):
    scorer = PackageScorer(settings(score={"method": "word-overlap"}).score)
    monkeypatch.setattr(scorer, "_score", lambda pairs: returned)
    with pytest.raises(RunError, match=f"scorer 'word-overlap' of the package acme-multicsr 1.0 .*{problem}"):
        scorer.score([("a", "b"), ("c", "d" * 99)], ["1", "2"])


def test_scores_are_rounded_before_they_are_compared_with_the_scale(acme, monkeypatch):
    scorer = PackageScorer(settings(score={"method": "word-overlap"}).score)
    monkeypatch.setattr(scorer, "_score", lambda pairs: [5.0000005, -1e-8])
    assert [str(each.value) for each in scorer.score([("a", "b")] * 2, ["1", "2"])] == ["5.0", "0.0"]


def test_model_of_a_scorer_may_be_any_text(acme, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "words.txt").write_text("a")
    for model in ("x" * 5000, "~no-such-user/x", "a\0b"):
        score = settings(score={"method": "word-overlap"}).score.model_copy(update={"model": model})
        assert deciding_package(score) == {"package": "acme-multicsr 1.0", "model": model}
    digest = deciding_package(score.model_copy(update={"model": "words.txt"}))["model"]
    assert digest != "words.txt"


def test_a_rule_that_returns_no_text_ends_the_run(acme, monkeypatch):
    rules = PackageRules(["much-longer"])
    monkeypatch.setattr(rules, "_rules", [(extension, lambda *_: True) for extension, _ in rules._rules])
    with pytest.raises(RunError, match="returned True; a rule returns a text or None"):
        rules.rejection("a", "en", {"entailment": "b"})


def test_a_rule_that_raises_ends_the_run_with_its_name(acme, monkeypatch):
    rules = PackageRules(["much-longer"])
    monkeypatch.setattr(rules, "_rules", [(extension, lambda *_: 1 / 0) for extension, _ in rules._rules])
    with pytest.raises(
        RunError, match=r"^reject reason 'much-longer' of the package .* raised ZeroDivisionError: division"
    ):
        rules.rejection("a", "en", {"entailment": "b"})


def test_a_worker_with_another_version_ends_before_its_work(acme, tmp_path, monkeypatch):
    """The cache key and the fingerprint have the version of the driver."""
    config = settings(
        score={"method": "word-overlap"},
        generate={"reject_reasons": ["much-longer"]},
        train={"objective": "margin", "mask": None},
    )
    sent = []
    monkeypatch.setattr(writing, "map_items", lambda name, make, todo, pool: sent.append(make))
    monkeypatch.setattr(writing, "TripletStage", lambda config: "stage")
    writing.write_shards(config, Store.open(str(tmp_path / "store")), CacheKey("", ""), [], None)
    (objective,) = parts_of_training(config.train)
    assert callable(sent[0]())
    forget_acme()
    write_acme(tmp_path / "later", "1.1")
    monkeypatch.syspath_prepend(tmp_path / "later")
    with pytest.raises(ConfigError) as caught:
        sent[0]()
    assert str(caught.value) == (
        "scorer 'word-overlap' comes from acme-multicsr 1.1 on this worker and from acme-multicsr 1.0 where "
        "the job was started; install the same version on all machines"
    )
    with pytest.raises(
        ConfigError, match=r"^objective 'margin' comes from acme-multicsr 1\.1 on this worker"
    ):
        train_worker._train({"config": config, "store": None, "packages": [objective]}, SilentProgress())


@pytest.mark.parametrize("text", ["[a]\nno equals sign\n", "[multicsr.scorers]\n\udcff = \udcfe\n"])
def test_damaged_metadata_of_another_package_are_named_and_leave_the_rest(text, acme, tmp_path, monkeypatch):
    install(monkeypatch, tmp_path, "bmce", "multicsr.scorers", "x", "nowhere:X")
    broken = tmp_path / "bmce/bmce-2.5.dist-info/entry_points.txt"
    broken.write_bytes(text.encode("utf-8", "surrogateescape"))
    assert settings(score={"method": "word-overlap"}).score.method == "word-overlap"
    assert settings(score={"method": "encoder"}).score.method == "encoder"
    with pytest.raises(ConfigError, match=r"the entry points of bmce in .* cannot be read: [TU]"):
        settings(score={"method": "word-overlp"})


@pytest.mark.parametrize(
    ("train", "problem"),
    [
        ({}, "train.mask has no effect with train.objective: margin; set it to null"),
        ({"mask": None}, None),
        (
            {"mask": None, "extra_triplets": ["human.tsv"]},
            "train.extra_triplets: train.objective: margin does not take rows with weights or without a hard "
            "negative (Objective.takes_labelled); leave them out",
        ),
    ],
)
def test_settings_without_effect_on_an_objective_of_a_package(train, problem, acme):
    config = settings(train={"objective": "margin", **train})
    if problem is None:
        check_objective(config.train)
        return
    with pytest.raises(ConfigError) as caught:
        check_objective(config.train)
    assert str(caught.value) == problem


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"sentences": ("text", "a")}, r"reads the columns \('text', 'a'\); a training reads \('text',\) or"),
        ({"loss": lambda: None}, "has as `loss` no function of 1 argument$"),
        ({"keep": lambda cosines: cosines}, "has as `keep` no function of 3 arguments$"),
        ({"needs_mask": True}, "needs a mask and has no `keep`, its function$"),
    ],
)
def test_an_objective_that_cannot_be_trained_with_is_one_line(changes, problem, acme, monkeypatch):
    from acme_multicsr import training

    monkeypatch.setattr(training, "MARGIN", replace(training.MARGIN, **changes))
    with pytest.raises(
        ConfigError, match=f"^objective 'margin' of the package acme-multicsr 1.0 .*{problem}"
    ):
        load_objective("margin")


def test_need_of_a_mask_is_stated_and_not_inferred(acme, monkeypatch):
    from acme_multicsr import training

    keep = OBJECTIVES["gist"].keep
    config = settings(train={"objective": "margin", "mask": None}).train
    monkeypatch.setattr(training, "MARGIN", replace(training.MARGIN, keep=keep, compares_same=True))
    check_objective(config)
    monkeypatch.setattr(training, "MARGIN", replace(training.MARGIN, keep=keep, needs_mask=True))
    with pytest.raises(ConfigError, match=r"^train\.objective: margin needs a mask; set train\.mask$"):
        check_objective(config)
    with pytest.raises(ConfigError, match=r"^train\.objective: margin needs a mask"):
        fit(config, pa.table({}), seed=0, out=Path("nowhere"))
    assert {name for name, each in OBJECTIVES.items() if each.needs_mask} == {*NEEDS_MASK}


@pytest.mark.parametrize(
    ("loss", "problem"),
    [
        (
            lambda inputs: inputs.missing,
            "raised AttributeError: 'NoneType' object has no attribute 'missing'",
        ),
        (lambda inputs: 1.0, "returned 1.0, which is no tensor"),
    ],
)
def test_a_loss_that_fails_names_its_package(loss, problem, acme, monkeypatch):
    from acme_multicsr import training

    monkeypatch.setattr(training, "MARGIN", replace(training.MARGIN, loss=loss))
    with pytest.raises(RunError, match=f"^objective 'margin' of the package acme-multicsr 1.0 .*{problem}$"):
        load_objective("margin").loss(None)


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        (lambda file: 1 / 0, "raised ZeroDivisionError: division by zero"),
        (lambda file: file, r"found DataFile\(.*; a kind finds FoundTask or UnusableFiles"),
        (lambda file: FoundTask(None, []), "found a task in no files, which were not offered to it"),
        (lambda file: UnusableFiles([None], ""), "found a task in None, which were not offered to it"),
    ],
)
def test_a_kind_that_fails_names_its_package(found, problem, acme, tmp_path, monkeypatch):
    from acme_multicsr import measuring

    (tmp_path / "quiz.tsv").write_text("question\tright\twrong\na\tb\tc\n")
    kind = replace(measuring.QUIZ, find=lambda files: [found(file) for file in files])
    monkeypatch.setattr(measuring, "QUIZ", kind)
    with pytest.raises(
        RunError, match=f"^kind of tasks 'quiz' of the package acme-multicsr 1.0 .* {problem}$"
    ):
        find_tasks([tmp_path / "quiz.tsv"], kinds=["quiz"])


def test_a_file_of_the_package_without_rows_is_invalid(acme, tmp_path):
    (tmp_path / "quiz.tsv").write_text("question\tright\twrong\n")
    with pytest.raises(ConfigError, match=r"quiz\.tsv has no rows$"):
        find_tasks([tmp_path / "quiz.tsv"], kinds=["quiz"])


def test_rows_that_a_rule_of_a_package_rejects_are_junk():
    stages = [SimpleNamespace(artifact="scored", rows_in=10, rejected=[("much-longer", 3), ("list", 2)])]
    config = SimpleNamespace(generate=SimpleNamespace(reject_reasons=["much-longer"]))
    preview = SimpleNamespace(config=config, report=SimpleNamespace(stages=stages))
    assert junk_share(preview) == 0.5


def test_version_of_a_package_counts_in_the_digest_of_its_tasks(acme, tmp_path, monkeypatch):
    (tmp_path / "quiz.tsv").write_text("question\tright\twrong\na\tb\tc\n")
    digests = [find_tasks([tmp_path / "quiz.tsv"], kinds=["quiz"]).digests]
    forget_acme()
    write_acme(tmp_path / "later", "1.1")
    monkeypatch.syspath_prepend(tmp_path / "later")
    digests.append(find_tasks([tmp_path / "quiz.tsv"], kinds=["quiz"]).digests)
    assert digests[0].keys() == digests[1].keys() == {"quiz"}
    assert digests[0] != digests[1]
    with pytest.raises(ConfigError, match="no kind of task has its columns"):
        find_tasks([tmp_path / "quiz.tsv"])


def test_kinds_of_the_configuration_are_those_that_are_built_in():
    assert {*TASK_KINDS.builtin} == {kind.name for kind in KINDS}
