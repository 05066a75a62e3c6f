"""Tables 1 to 5: those of the paper's main text."""

from multicsr.tools.methods import Method
from multicsr.tools.reproduce.columns import STS, STS_DEV, TATOEBA
from multicsr.tools.reproduce.paper import Origin, PaperEntry, PaperNumber, PaperRow

NO_MASK: dict[str, object] = {"train.mask": None}
"""Setting without stage 3."""
NO_CONTRAST: dict[str, object] = {"generate.omega": 0.0}
"""Setting without stage 1."""
UNSUPERVISED: dict[str, object] = {"train.objective": "simcse_unsup", "train.mask": None}
"""Settings of unsupervised SimCSE, which is trained on premises alone."""
SIMCSE_NOTE = (
    "SimCSE is trained at MultiCSR's learning rate, epochs and batch (5e-5, 3 and 256 at full scale). Its "
    "own are 1 epoch with 3e-5 and 64 (BERT base) or 1e-5 and 512 (RoBERTa base), as in the recipe "
    "simcse-unsup."
)
"""Statement of the tables that have a row of unsupervised SimCSE."""
_NO_TRAINING = "its training is not part of this package"
_RAISES = "from 76.25% and 76.57% to 80.93% and 81.62%"
_SIMCSE = {"bert": PaperNumber(76.25, _RAISES), "roberta": PaperNumber(76.57, _RAISES)}
NLI_DATA = (
    "the premises of SimCSE's NLI triplets (nli_for_simcse.csv of princeton-nlp/datasets-for-simcse on the "
    "Hugging Face hub, column sent0, without repetitions)"
)
STS_DATA = (
    "the test pairs of STS12 to STS16, STS-B and SICK-R of SentEval's archive, as TSV with score, sentence1, "
    "sentence2 (mteb/sts12-sts to sts16-sts and stsbenchmark-sts on the hub have the same pairs; of SICK-R "
    "take the 4,927 of SICK_test_annotated.txt, because mteb/sickr-sts has all 9,927)"
)
DEV_DATA = "the development set of STS-B (mteb/stsbenchmark-sts on the hub), as TSV with score, sentences"


def mainstream(encoder: str, *, published: bool = True) -> tuple[PaperRow, ...]:
    """Return the rows of a block of Table 2 that this package can run: baselines, then MultiCSR.

    Args:
        encoder: key of `BACKBONES`.
        published: add the number of the paper's text for unsupervised SimCSE.
    """
    numbers = {"Avg.": _SIMCSE[encoder]} if published else {}
    return (
        PaperRow("before training (not in the paper)", {}, Origin.NONE, Method.UNTRAINED, encoder),
        PaperRow("whitening", {}, Origin.PREMISES, Method.WHITENING, encoder),
        PaperRow("SimCSE, unsupervised", UNSUPERVISED, Origin.PREMISES, encoder=encoder, numbers=numbers),
        PaperRow("SynCSE (ChatGPT)", NO_CONTRAST | NO_MASK, Origin.SCORED, encoder=encoder, llm="ChatGPT"),
        PaperRow("MultiCSR (Flan-T5)", encoder=encoder),
        PaperRow("MultiCSR (ChatGPT)", NO_CONTRAST, encoder=encoder, llm="ChatGPT"),
    )


def _others(encoder: str, *names: str) -> tuple[PaperRow, ...]:
    return tuple(PaperRow(name, encoder=encoder, missing=_NO_TRAINING) for name in names)


TABLE_1 = PaperEntry(
    name="table-1",
    title="LLMs that measure similarity, without and with examples",
    shows="Even ChatGPT with examples measures similarity worse than encoders trained by contrast.",
    data=STS_DATA,
    cost="18,850 pairs, scored twice by each LLM: 0.7 to 1.5 hours of one A100 with Flan-T5-XL (estimate)",
    columns=STS,
    rows=(
        PaperRow("SimCSE (BERT), published", {}, Origin.NONE, Method.UNTRAINED, "simcse-bert"),
        PaperRow("SimCSE (RoBERTa), published", {}, Origin.NONE, Method.UNTRAINED, "simcse-roberta"),
        PaperRow("Flan-T5-XL, no examples", {"generate.prompts": "syncse"}, Origin.NONE, scores_pairs=True),
        PaperRow("Flan-T5-XL, examples", {"generate.prompts": "fewshot"}, Origin.NONE, scores_pairs=True),
        PaperRow(
            "ChatGPT, no examples",
            {"generate.prompts": "syncse", "generate.omega": 0.0},
            Origin.NONE,
            llm="ChatGPT",
            scores_pairs=True,
        ),
        PaperRow(
            "ChatGPT, examples",
            {"generate.prompts": "fewshot", "generate.omega": 0.0},
            Origin.NONE,
            llm="ChatGPT",
            scores_pairs=True,
        ),
    ),
    notes=(
        "The paper's examples are not in its text; those of the prompt set `fewshot` stand here.",
        "At small scale the encoder that is given stands in the row of SimCSE, without a training.",
    ),
)

TABLE_2 = PaperEntry(
    name="table-2",
    title="STS: MultiCSR and earlier methods",
    shows="MultiCSR with Flan-T5 exceeds SynCSE with ChatGPT on RoBERTa base; ChatGPT adds to it.",
    data=f"{NLI_DATA}; {STS_DATA}; {DEV_DATA}",
    cost=(
        "1 to 2 days of one A100 for 0.28M premises (estimate), then 0.4 hours of a V100 a training (the "
        "paper: 0.36 hours for 0.19M triplets)"
    ),
    columns=STS,
    rows=(
        *mainstream("bert"),
        *_others("bert", "ConSERT", "DiffCSE", "PromptBERT", "InfoCSE", "RankEncoder", "RankCSE"),
        *mainstream("roberta"),
        *_others("roberta", "DiffCSE", "PromptRoBERTa", "InfoCSE", "RankEncoder", "RankCSE"),
    ),
    notes=(
        SIMCSE_NOTE,
        "SimCSE is trained on the premises of MultiCSR. The paper's 76.25 and 76.57 are of the published "
        "encoders, which were trained on a million sentences of Wikipedia.",
        "The paper's text gives averages of MultiCSR for BERT and RoBERTa base, and not with which LLM.",
    ),
    stated=(PaperNumber(80.93, _RAISES), PaperNumber(81.62, _RAISES)),
)

TABLE_3 = PaperEntry(
    name="table-3",
    title="Ablation of the three stages",
    shows="Every stage helps; raw generations alone make a poor encoder.",
    data=f"{NLI_DATA}; {DEV_DATA}",
    cost="twice the generation of Table 2, as omega 0 is written too; 9 trainings of 0.4 hours (estimate)",
    columns=(STS_DEV,),
    on_dev=True,
    rows=(
        PaperRow("SimCSE, unsupervised", UNSUPERVISED, Origin.PREMISES),
        PaperRow("MultiCSR"),
        PaperRow("w/o stage 1", NO_CONTRAST),
        PaperRow("w/o stage 2", origin=Origin.SCORED),
        PaperRow("w/o stage 3", NO_MASK),
        PaperRow("w/o stage 1&2", NO_CONTRAST, Origin.SCORED),
        PaperRow("w/o stage 1&3", NO_CONTRAST | NO_MASK),
        PaperRow("w/o stage 2&3", NO_MASK, Origin.SCORED),
        PaperRow("w/o stage 1&2&3", NO_CONTRAST | NO_MASK, Origin.SCORED),
    ),
    notes=(SIMCSE_NOTE,),
)

_WIKIPEDIA = (
    "wiki1m_for_simcse.txt (princeton-nlp/datasets-for-simcse on the hub), as --source wikipedia=FILE"
)

TABLE_4 = PaperEntry(
    name="table-4",
    title="Data sources: premises of NLI and sentences of Wikipedia",
    shows="MultiCSR helps on both; short statements of NLI make better triplets than sentences of Wikipedia.",
    data=f"{NLI_DATA}; {_WIKIPEDIA}; {DEV_DATA}",
    cost="5 to 8 days of one A100 for 1.28M sentences (estimate), and 4 trainings",
    columns=(STS_DEV,),
    on_dev=True,
    rows=(
        PaperRow("SimCSE, NLI premises", UNSUPERVISED, Origin.PREMISES),
        PaperRow("MultiCSR, NLI premises"),
        PaperRow("SimCSE, Wikipedia", UNSUPERVISED, Origin.PREMISES, source="wikipedia"),
        PaperRow("MultiCSR, Wikipedia", source="wikipedia"),
    ),
    notes=(SIMCSE_NOTE,),
    stated=(
        PaperNumber(0.28, "the number of sentences for NLI is 0.28M"),
        PaperNumber(1.0, "much smaller than 1.00M of Wikipedia samples"),
        PaperNumber(0.19, "only 0.19M"),
    ),
)

_TAGALOG: dict[str, object] = {"ingest.language": "tl"}

TABLE_5 = PaperEntry(
    name="table-5",
    title="Tagalog: 1,167 sentences, search of translations",
    shows="What an LLM writes helps a language with little data, and stage 2 helps further.",
    data=(
        "1,167 Tagalog sentences of TED2020 (opus.nlpl.eu), as --source tagalog=FILE; 1,000 translations of "
        "Tatoeba (tgl-eng of LASER, or mteb/tatoeba-bitext-mining on the hub), as TSV, a language a column"
    ),
    cost="minutes of one GPU",
    columns=TATOEBA,
    sample=1167,
    rows=(
        PaperRow(
            "before training (not in the paper)",
            _TAGALOG,
            Origin.NONE,
            Method.UNTRAINED,
            "multilingual",
            source="tagalog",
        ),
        PaperRow(
            "SimCSE",
            _TAGALOG | NO_CONTRAST | UNSUPERVISED,
            Origin.PREMISES,
            encoder="multilingual",
            llm="ChatGPT",
            source="tagalog",
        ),
        PaperRow(
            "ChatGPT",
            _TAGALOG | NO_CONTRAST,
            Origin.SCORED,
            encoder="multilingual",
            llm="ChatGPT",
            source="tagalog",
        ),
        PaperRow(
            "MultiCSR",
            _TAGALOG | NO_CONTRAST,
            encoder="multilingual",
            llm="ChatGPT",
            source="tagalog",
        ),
    ),
    notes=(
        SIMCSE_NOTE,
        "Of a larger file 1,167 sentences are drawn by the seed 42.",
        "The paper names neither the encoder nor P; multilingual BERT and a multilingual MiniLM stand here.",
    ),
    stated=(PaperNumber(1167, "with 1167"), PaperNumber(1000, "with 1000")),
)
