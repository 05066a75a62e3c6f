"""Figures 4 to 7 of the paper, as rows: each one is a point of a line, or a histogram."""

from collections.abc import Iterator

from multicsr.tools.reproduce.appendix_tables import LABELLED_DATA
from multicsr.tools.reproduce.columns import STS_DEV
from multicsr.tools.reproduce.main_tables import DEV_DATA, NLI_DATA, NO_MASK
from multicsr.tools.reproduce.paper import Measure, Origin, PaperColumn, PaperEntry, PaperNumber, PaperRow

_COPIES = (0, 10, 100, 1_000)
_OMEGAS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
_SIGMAS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
MASK_SIMILARITY = 0.7
"""Cosine for which the paper states the share of Figure 7."""
ABOVE = PaperColumn(f"above {MASK_SIMILARITY:g}, %")
"""Column of Figure 7."""


def _duplicates() -> Iterator[PaperRow]:
    for line, settings in (("with stage 3", {}), ("without stage 3", NO_MASK)):
        for copies in _COPIES:
            yield PaperRow(
                f"{line}, {copies:,} copies",
                settings,
                Origin.LABELLED,
                encoder="roberta-supervised",
                copies=copies,
                line=line,
                x=float(copies),
            )


FIGURE_4 = PaperEntry(
    name="figure-4",
    title="Copies of one pair in the training data, with and without stage 3",
    shows="Where many rows are nearly the same, training without the mask loses much.",
    data=f"10,000 of {LABELLED_DATA}; {DEV_DATA}",
    cost="8 trainings of minutes of one GPU",
    columns=(STS_DEV,),
    on_dev=True,
    rows=tuple(_duplicates()),
    x_label="copies",
    notes=(
        "Copies differ by a number at their end: equal sentences never share a batch, whatever the mask.",
        "The paper's numbers of copies are in a picture.",
    ),
)

FIGURE_5 = PaperEntry(
    name="figure-5",
    title="Weight omega of the noisy instruction",
    shows="Generation is best and stable for omega from 0.2 to about 0.4, and soon worse above.",
    data=f"100 of {NLI_DATA}",
    cost="minutes of one A100 for 100 premises",
    columns=(
        PaperColumn("a > b, %"),
        PaperColumn("kept, %"),
        PaperColumn("rejected as written, %"),
        PaperColumn("mean a"),
        PaperColumn("mean b"),
    ),
    measure=Measure.CURATION,
    sample=100,
    rows=tuple(
        PaperRow(f"omega {omega:g}", {"generate.omega": omega}, line="omega", x=omega) for omega in _OMEGAS
    ),
    x_label="omega",
    notes=(
        "The paper's is a human judgement; here the LLM's own scores and the rules for hypotheses judge.",
        "A chart (.svg) has the columns in percent alone; the mean scores are in the table.",
        "The paper also has negative omega, which the configuration rejects.",
    ),
    stated=(
        PaperNumber(0.4, "excessively positive values (above 0.4)"),
        PaperNumber(0.2, "stabilizes between 0.2"),
    ),
)

FIGURE_6 = PaperEntry(
    name="figure-6",
    title="Threshold sigma of the mask",
    shows="The mask helps; too low a threshold masks what is worth learning from.",
    data=f"{NLI_DATA}; {DEV_DATA}",
    cost="the generation of Table 2 once, and 7 trainings of 0.4 hours of a V100 (see Table 2)",
    columns=(STS_DEV,),
    on_dev=True,
    rows=(
        PaperRow("no mask", NO_MASK),
        *(
            PaperRow(f"sigma {sigma:g}", {"train.mask.sigma": sigma}, line="sigma", x=sigma)
            for sigma in _SIGMAS
        ),
    ),
    x_label="sigma",
    stated=(PaperNumber(0.9, "we set the mask indicator threshold to be 0.9"),),
)

FIGURE_7 = PaperEntry(
    name="figure-7",
    title="Cosines under P between the rows of a batch of 256",
    shows="Many sentences of a batch are similar to a premise of another row, so that a mask is needed.",
    data=f"{LABELLED_DATA}; {NLI_DATA}",
    cost="the generation of Table 2; then seconds",
    columns=(ABOVE,),
    measure=Measure.MASK,
    rows=(
        PaperRow(
            "labelled and generated",
            origin=Origin.LABELLED_AND_CURATED,
            encoder="roberta-supervised",
            numbers={
                ABOVE.name: PaperNumber(18.6, "more than 18.6% sentences inside a batch having a similarity")
            },
        ),
    ),
    x_label="cosine",
)
