"""Write the page of the paper's tables and figures: command, settings, data and cost of each."""

from collections.abc import Iterator

from markdown_text import page, table

from multicsr.tools.reproduce.paper import BACKBONES, WRITING, PaperEntry
from multicsr.tools.reproduce.plan import RowPlan, plan_rows
from multicsr.tools.reproduce.registry import ENTRIES, runs
from multicsr.tools.reproduce.scale import ReproduceOptions, inputs_of

_INPUTS = ReproduceOptions(
    scale="full",
    sources={name: f"{name}.txt" for name in ("premises", "wikipedia", "tagalog")},
    data=["tasks/"],
    dev="stsb_dev.tsv",
    labelled="nli.tsv",
    endpoint="https://endpoint/v1",
)
"""Inputs with which every row can run at full scale."""
_INTRODUCTION = (
    "Every table and figure of the paper (Wang et al., NAACL 2024, arXiv 2310.10962) is a "
    "command, `multicsr reproduce NAME`. `multicsr reproduce --list` prints the names.",
    "- `--scale small`, the default, takes the settings of the demo, its 3,323 captions and its "
    "test triplets, the small LM that ships, and two layers of all-MiniLM-L6-v2, with 40 steps "
    "for every training. `--llm`, `--encoder`, `--sentences`, `--data`, `--dev` and `--labelled` "
    "put others in their place. The figures of small scale show that a table runs and in which "
    "direction its rows differ; they are no reproduction of the paper's numbers.\n"
    "- `--scale full` takes the recipe [multicsr-paper](../how-to/recipes.md) for BERT base and "
    "RoBERTa base, Flan-T5-XL, and the files that you name. `--encoder` runs the first block "
    "alone with another encoder. `--set` changes a setting of all rows that do not set it "
    "themselves.",
    "Each row has the settings by which it differs from the row above, and the first one those by "
    "which it differs from the base. Rows whose LLM writes with equal settings share what it "
    "writes, and equal triplets with equal settings are trained on once. All of it is kept in the "
    "store (`--store`), so that a command that was interrupted goes on. Every row is trained "
    "`--seeds` times (3), and its figure is the mean.",
    "The paper's numbers stand in columns of their own, and only those that its text holds: most "
    "of its tables are pictures in the source that was read. A column that was not measured is "
    "empty. `--out` writes JSON, CSV, Markdown, LaTeX, and SVG of a figure.",
    "The rows of ChatGPT need `--endpoint URL` at full scale, and `--endpoint-model` where its model is not "
    "gpt-3.5-turbo. At small scale the given LLM stands "
    "for it, without stage 1, because the paper had no logits of ChatGPT.",
    "Two limits hold for all tables. Those that are measured on STS-B dev choose the checkpoint on the same "
    "file, as the paper does. And leaks are not looked for: texts of the training data may stand in the data "
    "that are measured (`multicsr run` [looks for them](../how-to/own-evaluation.md)). At small scale the "
    "tables of labelled triplets train on the demo's development set; 44 of its hypotheses, and no premise, "
    "stand in the test set too.",
)
"""Paragraphs before the first table."""


def paper_page() -> str:
    """Return the page of the paper's tables and figures."""
    return page("The paper's tables and figures", *_INTRODUCTION, _overview(), *_file_names(), *_sections())


def _overview() -> str:
    lines = [(f"[{name}](#{name})", entry.title, runs(entry), entry.cost) for name, entry in ENTRIES.items()]
    return table(("name", "title", "here", "cost at full scale"), lines)


def _file_names() -> Iterator[str]:
    yield "## Names of labelled files"
    yield (
        "A file that `--data` or `--dev` names, or finds in a folder, belongs to a column by its name "
        "without ending, in small letters and without punctuation: `STS-B_dev.tsv` is `stsbdev`. The name of "
        "the folder stands before `test`, `dev` and `validation`: `sts12/test.tsv` is `sts12test`. A search "
        "task of BEIR has the name of its folder. To CQADupStack belong all tasks whose name, or that of a "
        "folder, begins so (`cqadupstack/android`). Other files are columns of their own, and part of no "
        "mean."
    )
    columns = dict.fromkeys(
        column for entry in ENTRIES.values() for column in entry.columns if column.tasks and not column.mean
    )
    yield table(("column", "names"), [(each.name, ", ".join(each.tasks)) for each in columns])


def _sections() -> Iterator[str]:
    for name, entry in ENTRIES.items():
        yield f"## {name}"
        yield f"{entry.title}. {entry.shows}"
        yield table(("", ""), [*_facts(entry)])
        yield table(("row", "differs from the row above by", "paper"), [*_rows(entry)])
        if entry.notes:
            yield "\n".join(f"- {note}" for note in entry.notes)


def _facts(entry: PaperEntry) -> Iterator[tuple[str, str]]:
    yield "small", f"`multicsr reproduce {entry.name}`"
    yield "full", f"`multicsr reproduce {entry.name} --scale full{_options(entry)}`"
    yield "columns", "; ".join(column.name for column in entry.columns)
    yield "data", entry.data
    yield "cost", entry.cost
    if entry.sample:
        yield "sample", f"{entry.sample:,} sentences, drawn by the seed 42 (`--limit` lowers it)"
    if entry.stated:
        yield "the paper's text", "; ".join(f"{each.value:g} (“{each.quote}”)" for each in entry.stated)


def _options(entry: PaperEntry) -> str:
    """Return the options of the inputs that a table needs at full scale."""
    sources = dict.fromkeys(row.source for row in entry.runnable() if row.origin in WRITING)
    words = ["--sentences premises.txt"] if "premises" in sources else []
    words += [f"--source {name}={name}.txt" for name in sources if name in ("wikipedia", "tagalog")]
    if entry.measure == "tasks":
        words += ["--dev stsb_dev.tsv"] if entry.trains or entry.on_dev else []
        words += [] if entry.on_dev else ["--data tasks/"]
    words += ["--labelled nli.tsv"] if entry.needs_labelled else []
    words += ["--endpoint https://endpoint/v1"] if any(row.llm == "ChatGPT" for row in entry.rows) else []
    return "".join(f" {word}" for word in words)


def _rows(entry: PaperEntry) -> Iterator[tuple[str, str, str]]:
    group = ""
    for plan in plan_rows(entry, _INPUTS, inputs_of(entry, _INPUTS)):
        title = BACKBONES[plan.row.encoder].title
        if title != group:
            group = title
            yield f"**{group}**", "", ""
        yield plan.row.name, _differences(plan), _numbers(plan)


def _differences(plan: RowPlan) -> str:
    if plan.reason:
        return f"cannot run: {plan.reason}"
    return "; ".join(f"`{change}`" for change in plan.changes)


def _numbers(plan: RowPlan) -> str:
    return "; ".join(f"{column} {number.value:g}" for column, number in plan.row.numbers.items())
