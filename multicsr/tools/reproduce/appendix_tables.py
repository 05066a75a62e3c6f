"""Tables 6 to 13: those of the paper's appendices."""

from collections.abc import Iterator

from multicsr.tools.reproduce.columns import BEIR, STS, STS_DEV, TRANSFER
from multicsr.tools.reproduce.main_tables import (
    DEV_DATA,
    NLI_DATA,
    NO_CONTRAST,
    NO_MASK,
    SIMCSE_NOTE,
    STS_DATA,
    UNSUPERVISED,
    mainstream,
)
from multicsr.tools.reproduce.paper import Measure, Origin, PaperColumn, PaperEntry, PaperNumber, PaperRow

LABELLED_DATA = (
    "the triplets of SimCSE's nli_for_simcse.csv (princeton-nlp/datasets-for-simcse on the hub), as "
    "TSV with anchor, positive, negative, as --labelled FILE"
)


def _backbones() -> Iterator[PaperRow]:
    for encoder in ("bert", "roberta"):
        yield PaperRow("SimCSE", UNSUPERVISED, Origin.PREMISES, encoder=encoder)
        yield PaperRow("SimCSE + MultiCSR", encoder=encoder)
        for name, missing in (
            ("PromptBERT", "a template with the vector of its [MASK] token, which no setting gives"),
            ("InfoCSE", "an auxiliary network that reconstructs masked words"),
            ("RankEncoder", "a teacher's ranks of a corpus as a target"),
            ("RankCSE", "a loss of ranks with two teachers"),
        ):
            yield PaperRow(f"{name}, without and with MultiCSR", encoder=encoder, missing=missing)


TABLE_6 = PaperEntry(
    name="table-6",
    title="Other methods of training, without and with MultiCSR",
    shows="MultiCSR helps every method of training, not SimCSE alone.",
    data=f"{NLI_DATA}; {STS_DATA}; {DEV_DATA}",
    cost="that of Table 2",
    columns=STS,
    rows=tuple(_backbones()),
    notes=("Only the rows of SimCSE can run; each other one names what is missing.", SIMCSE_NOTE),
)


def _thresholds() -> Iterator[PaperRow]:
    for alpha, beta, gamma in (
        *((3, 3, 1), (2, 3, 1), (4, 3, 1), (5, 3, 1)),
        *((3, 0, 1), (3, 1, 1), (3, 2, 1)),
        *((3, 3, 0), (3, 3, 2), (3, 3, 3)),
        *((4, 2, 1), (5, 0, 1)),
    ):
        yield PaperRow(
            f"alpha {alpha}, beta {beta}, gamma {gamma}",
            {"curate.alpha": float(alpha), "curate.beta": float(beta), "curate.gamma": float(gamma)},
        )


TABLE_7 = PaperEntry(
    name="table-7",
    title="Thresholds alpha, beta and gamma of stage 2",
    shows="Extreme thresholds (alpha 5, beta 0) are worse: hard positives and negatives matter.",
    data=f"{NLI_DATA}; {DEV_DATA}",
    cost="the generation of Table 2 once; a row costs one training, 0.4 hours of a V100 (see Table 2)",
    columns=(STS_DEV,),
    on_dev=True,
    settings={"score.method": "llm_stated"},
    rows=tuple(_thresholds()),
    notes=(
        "The paper's grid is a picture; this one varies each threshold about 3, 3, 1 and has both extremes.",
        "The score is the number that the LLM writes, which alone may reach 5 or 0.",
    ),
)

TABLE_8 = PaperEntry(
    name="table-8",
    title="BEIR: search without data of the domain",
    shows="MultiCSR improves SimCSE on search too.",
    data=f"{NLI_DATA}; {DEV_DATA}; the 15 public sets of BEIR (BeIR on the hub), each in a folder",
    cost="that of Table 2, and 10 to 20 hours of one A100 to encode the documents for each row (estimate)",
    columns=BEIR,
    rows=tuple(
        row
        for encoder in ("bert", "roberta")
        for row in (
            PaperRow("SimCSE", UNSUPERVISED, Origin.PREMISES, encoder=encoder),
            PaperRow("MultiCSR", encoder=encoder),
        )
    ),
    notes=(SIMCSE_NOTE,),
)

TABLE_9 = PaperEntry(
    name="table-9",
    title="Transfer: a classifier on the vectors",
    shows="MultiCSR is best on RoBERTa base and comparable on BERT base.",
    data=f"{NLI_DATA}; {DEV_DATA}; MR, CR, SUBJ, MPQA, SST-2, TREC and MRPC of SentEval's archive, as TSV",
    cost="that of Table 2",
    columns=TRANSFER,
    rows=(*mainstream("bert", published=False), *mainstream("roberta", published=False)),
    notes=(SIMCSE_NOTE,),
)


def _demonstrations() -> Iterator[PaperRow]:
    for encoder, values in (("bert", (84.62, 84.71, 84.55)), ("roberta", (85.72, 86.01, 85.83))):
        for shown, value in zip(((3, 0.6), (5, 0.8), None), values, strict=True):
            count, similarity = shown or (0, 0.0)
            name = f"L {count}, lambda {similarity:g}" if shown else "no demonstrations"
            quote = f"{count} {similarity} {value}" if shown else f"--{value}"
            yield PaperRow(
                name,
                origin=Origin.LABELLED_AND_CURATED,
                encoder=f"{encoder}-supervised",
                demonstrations=shown,
                numbers={STS_DEV.name: PaperNumber(value, quote)},
            )


TABLE_10 = PaperEntry(
    name="table-10",
    title="Demonstrations: their number L and least similarity lambda",
    shows="Labelled examples near the premise in the prompt help a little; they cost time.",
    data=f"{NLI_DATA}; {LABELLED_DATA}; {DEV_DATA}",
    cost="that of Table 2 for every L and lambda, with longer prompts",
    columns=(STS_DEV,),
    on_dev=True,
    rows=tuple(_demonstrations()),
    notes=(
        "The demonstrations come from the triplets of --labelled and are found by the P of the row's mask.",
        "The paper states no order of them; here the nearest is the first, and ties are broken by id.",
    ),
)


def _supervised() -> Iterator[PaperRow]:
    for encoder in ("bert-supervised", "roberta-supervised"):
        yield PaperRow("SimCSE, supervised", NO_MASK, Origin.LABELLED, encoder=encoder)
        yield PaperRow("MultiCSR (Flan-T5)", {}, Origin.LABELLED_AND_CURATED, encoder=encoder)
        yield PaperRow(
            "MultiCSR (ChatGPT)", NO_CONTRAST, Origin.LABELLED_AND_CURATED, encoder=encoder, llm="ChatGPT"
        )


TABLE_11 = PaperEntry(
    name="table-11",
    title="Supervised: generated triplets beside labelled ones",
    shows="Generated and labelled triplets are trained on together; the mask makes that safe.",
    data=f"{LABELLED_DATA}; {NLI_DATA}; {STS_DATA}; {DEV_DATA}",
    cost="that of Table 2, and trainings of about twice the length",
    columns=STS,
    rows=tuple(_supervised()),
)

_LINES_12 = (
    ("One of our number will carry out your instructions minutely.", 4.5, 0.0),
    ("He turned and smiled at Vrenna.", 5.0, 0.0),
    ("How do we fix this?", 5.0, 1.0),
    ("The economy could be still better.", 4.0, 0.0),
)
PREMISES_12 = tuple(premise for premise, _, _ in _LINES_12)
"""Premises of Table 12."""
HYPOTHESES_12 = {
    "stage 1": (
        (
            "A member of my team will execute your orders with immense precision.",
            "We have no one free at the moment so you have to take action yourself.",
        ),
        ("He turned back and smiled at Vrenna.", "He turned and walked away."),
        ("How can we fix this?", "Let\u2019s not worry about fixing this."),
        ("The economy is not at its best possible state.", "The economy could be worse."),
    ),
    "w/o stage 1": (
        ("", ""),
        ("", ""),
        ("", "We can\u2019t figure out how to fix this."),
        ("The economy is not good.", ""),
    ),
}
"""Hypotheses of Table 12 by row: entailment and contradiction of each premise; empty: the paper has none."""
_SCORES_12 = {
    "stage 1": (("4.5", "0.0"), ("5.0", "0.0"), ("5.0", "1.0"), ("4.0", "0.0")),
    "w/o stage 1": (("", ""), ("", ""), ("", "4.0"), ("0.0", "")),
}


def _example_columns() -> Iterator[PaperColumn]:
    for number in range(1, len(PREMISES_12) + 1):
        yield PaperColumn(f"a of premise {number}")
        yield PaperColumn(f"b of premise {number}")


def _example_numbers(row: str) -> dict[str, PaperNumber]:
    numbers = {}
    for number, (hypotheses, scores) in enumerate(zip(HYPOTHESES_12[row], _SCORES_12[row], strict=True), 1):
        for side, text, score in zip("ab", hypotheses, scores, strict=True):
            if score:
                numbers[f"{side} of premise {number}"] = PaperNumber(float(score), f"{text}{score}")
    return numbers


TABLE_12 = PaperEntry(
    name="table-12",
    title="Examples: what the LLM writes with and without stage 1",
    shows="Without stage 1 hypotheses contradict their instruction; stage 2 rejects such triplets.",
    data="nothing: the four premises are in the paper",
    cost="seconds of one GPU",
    columns=tuple(_example_columns()),
    measure=Measure.EXAMPLES,
    rows=(
        PaperRow("stage 1", origin=Origin.SCORED, source="examples", numbers=_example_numbers("stage 1")),
        PaperRow(
            "w/o stage 1",
            NO_CONTRAST,
            Origin.SCORED,
            source="examples",
            numbers=_example_numbers("w/o stage 1"),
        ),
    ),
    notes=("The paper shows a hypothesis of `w/o stage 1` only where stage 2 would reject it.",),
)


def _costs() -> Iterator[PaperRow]:
    for batch in (32, 64, 128, 256):
        yield PaperRow(
            f"SimCSE, unsupervised, batch {batch}",
            UNSUPERVISED | {"train.global_batch": batch},
            Origin.PREMISES,
            encoder="bert",
            source="examples",
        )
        yield PaperRow(
            f"MultiCSR, batch {batch}", {"train.global_batch": batch}, encoder="bert", source="examples"
        )


_HOURS = (
    PaperNumber(0.98, "it takes 0.98h"),
    PaperNumber(0.36, "it only takes 0.36h"),
    PaperNumber(0.19, "only 0.19M"),
)

TABLE_13 = PaperEntry(
    name="table-13",
    title="Time and memory of stage 3",
    shows="The mask costs little; curated triplets are fewer, so that a training is shorter.",
    data="nothing: 10,000 copies of one triplet",
    cost="half an hour of one GPU",
    columns=(PaperColumn("s per 10,000 rows"), PaperColumn("GPU memory, GiB")),
    measure=Measure.COST,
    settings={"train.mask.cache_gib": 0.0, "train.dev": None},
    rows=tuple(_costs()),
    notes=(
        "Copies differ by a number at their end, because equal sentences never share a batch here, and P's "
        "vectors are not kept between epochs, so that its work counts.",
        "The text has hours of whole trainings with batch 64 on a V100, which belong to no row.",
        "Memory is measured on a GPU only.",
    ),
    stated=_HOURS,
)
