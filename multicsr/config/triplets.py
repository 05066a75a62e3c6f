"""Settings of stages 1 and 2: contrastive generation, scoring, curation."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from multicsr.config.section import Count, Fraction, Score, Section


class GenerateConfig(Section):
    """Stage 1, contrastive generation (MultiCSR Sec. 3.1)."""

    prompts: str = "syncse"
    """Prompt set: a shipped one (`syncse`, `fewshot`, `reference`), a YAML file, or `auto`, which takes the
    shipped one that suits the LLM and says why."""
    omega: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Weight of the logits of the noisy instruction (MultiCSR Eq. 2); 0 is plain decoding. Stable in [0.2,
    0.4]."""
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
    max_rejected: Fraction = 0.5
    """Maximum fraction of rejected sentences; the job fails if it is exceeded."""

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
    """Stage 2, scoring by the LLM itself (MultiCSR Eq. 3)."""

    method: Literal["expected", "stated", "both"] = "expected"
    """`expected`: computed from label probabilities in one prefill; `stated`: the number in the model's
    text."""
    max_new_tokens: Count = 8
    """Maximum length in tokens of the reply to a scoring prompt; used by `stated` and `both`."""


class CurateConfig(Section):
    """Stage 2, self-curation: keep iff a >= alpha, b <= beta, a >= b + gamma (MultiCSR Eq. 4)."""

    rule: Literal["paper", "reference"] = "paper"
    """`paper` is Eq. 4. `reference` is the authors' code: it swaps inverted pairs, rejects rows whose lower
    score is above 4, and requires only a != b where the paper requires a >= b + gamma."""
    score: Literal["expected", "stated"] = "expected"
    """Score that is compared with the thresholds."""
    alpha: Score = 3.0
    """Minimum of a, the score of (premise, entailment)."""
    beta: Score = 3.0
    """Maximum of b, the score of (premise, contradiction)."""
    gamma: Score = 1.0
    """Minimum difference a - b."""
    keep_share: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the scored rows to keep at least. The thresholds are then quantiles of the scores, the
    strictest at one common level that keep so many rows; alpha, beta and gamma must be unset. For LLMs whose
    scores do not spread over the whole scale. Unset: the thresholds are those above."""

    @model_validator(mode="after")
    def _something_can_pass(self) -> "CurateConfig":
        if self.keep_share is not None:
            unused = [name for name in ("alpha", "beta", "gamma") if name in self.model_fields_set]
            if unused:
                raise ValueError(f"{unused[0]} has no effect with keep_share; leave one of them out")
            return self
        if self.rule == "reference" and "gamma" in self.model_fields_set:
            raise ValueError("gamma has no effect with rule: reference, which asks a != b")
        if self.score == "expected" and (self.alpha == 5 or self.beta == 0 or self.gamma == 5):
            raise ValueError(
                "expected scores lie strictly between 0 and 5: alpha 5, beta 0 or gamma 5 would keep nothing"
            )
        return self
