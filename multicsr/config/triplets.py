"""Settings of stages 1 and 2: contrastive generation, scoring, curation."""

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from multicsr.config.corpus import input_place
from multicsr.config.demonstrations import DemonstrationsConfig
from multicsr.config.extension_names import check_names, name_in, schema_of
from multicsr.config.section import Count, Fraction, Score, Section
from multicsr.extensions import ExtensionGroup

SCORERS = ExtensionGroup("multicsr.scorers", "scorer", ("llm_expected", "llm_stated", "encoder", "nli"))
"""Ways to score a pair of sentences."""
METHODS = replace(SCORERS, builtin=("llm_expected", "llm_stated", "both", "encoder", "nli"))
"""Values of `score.method`, of which `both` names two scorers."""
ScorerName = Annotated[str, name_in(SCORERS), schema_of(SCORERS)]
"""Name of a way to score a pair of sentences: built in, or a package's."""


class GenerateConfig(Section):
    """Stage 1, contrastive generation (MultiCSR Sec. 3.1)."""

    prompts: str = "syncse"
    """Prompt set: a shipped one (`multicsr prompts list`), a YAML file, or `auto`, which takes the
    shipped one that suits the LLM and reports why."""
    omega: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Weight of the logits of the noisy instruction (MultiCSR Eq. 2); 0 is plain decoding. Stable in [0.2,
    0.4]. Above 0, an endpoint must offer contrast, as `multicsr serve` does."""
    demonstrations: DemonstrationsConfig | None = None
    """Labelled triplets that are shown to the LLM (MultiCSR Appendix G); null: none."""
    max_new_tokens: Count = 48
    """Maximum length of a hypothesis in tokens."""
    min_new_tokens: Annotated[int, Field(ge=0)] = 0
    """Number of tokens before which the LLM may not end a hypothesis; a stop string of the prompt set may."""
    bad_words: list[str] = []
    """Words that no hypothesis may contain."""
    temperature: Annotated[float, Field(ge=0)] = 0.0
    """Sampling temperature; 0 is greedy decoding. Above 0, sampling is seeded per row."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Probability mass of nucleus sampling; requires a temperature above 0."""
    batch_size: Count = 64
    """Number of premises that an actor processes at once; each is four rows in the decoder. At an endpoint:
    the number of finished premises that are committed together."""
    rows_per_shard: Count = 2_000
    """Number of sentences in one shard, the unit of the LLM's work, of retry and of commit."""
    actors: Count = 1
    """Number of actors; each has its own copy of the model."""
    cpus_per_actor: Annotated[float, Field(ge=0)] = 1
    """Number of CPUs that Ray reserves for an actor, and of its threads; 0 if the GPU nodes of the cluster
    offer no CPU."""
    gpus_per_actor: Annotated[float, Field(ge=0)] = 0
    """Number of GPUs that Ray reserves for an actor."""
    nodes: dict[str, str] = {}
    """Ray labels of the nodes that may run actors, such as `{multicsr.io/role: generate}`; empty: any
    node."""
    reject_reasons: list[str] = []
    """Further reasons to reject a row for its hypotheses: rules of other packages, by the names of their
    entry points. They are asked in this order, after those that are built in."""
    max_rejected: Fraction = 0.5
    """Maximum fraction of rejected sentences; the job fails if it is exceeded."""

    @field_validator("reject_reasons")
    @classmethod
    def _reasons_of_packages(cls, names: list[str]) -> list[str]:
        from multicsr.config.reject_reasons import REJECT_REASONS  # with the rows, and so pyarrow

        return check_names(REJECT_REASONS, names)

    @model_validator(mode="after")
    def _nucleus(self) -> "GenerateConfig":
        if self.top_p < 1 and self.temperature == 0:
            raise ValueError("top_p has no effect at temperature 0; set generate.temperature above 0")
        if self.min_new_tokens > self.max_new_tokens:
            raise ValueError("min_new_tokens is above max_new_tokens")
        if any(not word.strip() for word in self.bad_words):
            raise ValueError("bad_words holds an empty word")
        if self.cpus_per_actor == 0 and self.gpus_per_actor == 0:
            raise ValueError("cpus_per_actor is 0, which is for actors with a GPU; set gpus_per_actor too")
        return self


class ScoreConfig(Section):
    """Stage 2, scoring of premise and hypothesis from 0 to 5, by the LLM itself (MultiCSR Eq. 3) or not."""

    method: Annotated[str, name_in(METHODS), schema_of(METHODS)] = "llm_expected"
    """`llm_expected`: computed from the LLM's label probabilities in one prefill; `llm_stated`: the number in
    its text; `both`: these two; `encoder`: the cosine of the two sentences under an encoder, 5 * max(cos, 0);
    `nli`: 5 * (P(entailment) + P(neutral) / 2) of a model for natural language inference. Or a scorer of
    another package, by the name of its entry point."""
    model: str | None = None
    """Model that scores. `nli` requires it: a directory or Hugging Face id of a sequence classifier with the
    labels entailment, neutral and contradiction. `encoder`: a sentence-transformers directory or id; unset:
    `train.mask.model`, without a mask `train.encoder`. A scorer of another package gets the text as it is.
    Otherwise another LLM for the same engine, at an endpoint a name; unset: `llm.model`."""
    trust_remote_code: bool = False
    """Run code that comes with `model`; for `encoder` and `nli`."""
    max_new_tokens: Count = 8
    """Maximum length in tokens of the reply to a scoring prompt; used by `llm_stated` and `both`."""
    forms: Literal["any", "reference"] = "any"
    """Replies that state a score, for `llm_stated` and `both`. `any`: those with a number that cannot mean
    anything else. `reference`: those that the authors' public code reads, a digit from 0 to 5 or `4.5`."""
    calibrate: str | None = None
    """TSV file of pairs with scores of people from 0 to 5 (score, sentence1, sentence2), a path or URI; at
    least 50 pairs. A map that never falls is fitted from scores to those of people, and the thresholds of
    `curate` apply to its values. Unset: scores are compared as they are."""

    @field_validator("method", mode="before")
    @classmethod
    def _method_of_old_name(cls, method: object) -> object:
        return _require_new_name(method)

    @field_validator("calibrate")
    @classmethod
    def _place_of_pairs(cls, calibrate: str | None) -> str | None:
        return None if calibrate is None else input_place(calibrate)

    @model_validator(mode="after")
    def _model_fits(self) -> "ScoreConfig":
        if self.method == "nli" and self.model is None:
            raise ValueError("method: nli needs model, a sequence classifier; set score.model")
        for name in ("max_new_tokens", "forms"):
            if not self.reads_numbers and name in self.model_fields_set:
                raise ValueError(f"{name} has no effect with method: {self.method}")
        if self.trust_remote_code and (not self.uses_encoder or self.model is None):
            raise ValueError("trust_remote_code has no effect without model and method: encoder or nli")
        return self

    @property
    def uses_llm(self) -> bool:
        """Return True if an LLM scores."""
        return self.method in ("llm_expected", "llm_stated", "both")

    @property
    def uses_encoder(self) -> bool:
        """Return True if an encoder or an NLI model scores. Else an LLM does, or a scorer of a package."""
        return self.method in ("encoder", "nli")

    @property
    def reads_labels(self) -> bool:
        """Return True if an LLM scores by the probabilities of the score labels."""
        return self.method in ("llm_expected", "both")

    @property
    def reads_numbers(self) -> bool:
        """Return True if an LLM scores by the number in the text of its reply."""
        return self.method in ("llm_stated", "both")


class CurateConfig(Section):
    """Stage 2, self-curation: keep iff a >= alpha, b <= beta, a >= b + gamma (MultiCSR Eq. 4)."""

    rule: Literal["paper", "reference"] = "paper"
    """`paper` is Eq. 4. `reference` is the authors' code: it swaps inverted pairs, rejects rows whose lower
    score is above 4, and requires only a != b where the paper requires a >= b + gamma."""
    score: ScorerName | None = None
    """Score that is compared with the thresholds; unset: the one that `score.method` makes, and of `both`
    `llm_expected`."""
    alpha: Score = 3.0
    """Minimum of a, the score of (premise, entailment)."""
    beta: Score = 3.0
    """Maximum of b, the score of (premise, contradiction)."""
    gamma: Annotated[float, Field(ge=-5, le=5)] = 1.0
    """Minimum difference a - b. Below 0, the contradiction may have the higher score; alpha 0, beta 5 and
    gamma -5 keep every row that has scores."""
    keep_share: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the scored rows to keep at least. The thresholds are then quantiles of the scores, the
    strictest at one common level that keep so many rows; alpha, beta and gamma must be unset. For LLMs whose
    scores do not spread over the whole scale. Unset: the thresholds are those above."""
    max_word_ratio: Annotated[float, Field(ge=1)] | None = None
    """Balance of words, so that no word shows the side of a hypothesis: the number of rows that have a word
    in the contradiction alone may be at most this multiple of those that have it in the entailment alone, and
    the other way round. Of the rows above it, a random part is rejected. Unset: words are not balanced."""

    @field_validator("score", mode="before")
    @classmethod
    def _score_of_old_name(cls, score: object) -> object:
        return _require_new_name(score)

    @model_validator(mode="after")
    def _thresholds_have_an_effect(self) -> "CurateConfig":
        if self.keep_share is not None:
            unused = [name for name in ("alpha", "beta", "gamma") if name in self.model_fields_set]
            if unused:
                raise ValueError(f"{unused[0]} has no effect with keep_share; leave one of them out")
        elif self.rule == "reference" and "gamma" in self.model_fields_set:
            raise ValueError("gamma has no effect with rule: reference, which asks a != b")
        return self


def _require_new_name(name: object) -> object:
    """Return the name of a scorer; raise ValueError if it is one that earlier versions used."""
    if name in ("expected", "stated"):
        raise ValueError(f"{name} is called llm_{name} now; write that")
    return name
