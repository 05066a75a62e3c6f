"""All settings of all jobs. They are immutable, have bounds, and are documented under each field.

`config_file.py` reads them. This package imports neither torch nor ray, so that importing it is fast.
"""

from typing import Annotated

from pydantic import Field, model_validator

from multicsr.config.buckets import S3Config
from multicsr.config.card import CardConfig
from multicsr.config.corpus import IngestConfig, InputConfig, Redaction
from multicsr.config.demonstrations import DemonstrationsConfig, Retriever
from multicsr.config.evaluation import EvaluateConfig, RefreshConfig
from multicsr.config.llm import LLMConfig, VllmConfig
from multicsr.config.section import Section
from multicsr.config.training import (
    DeepSpeedConfig,
    LoraConfig,
    MaskConfig,
    PoolingMode,
    TrainConfig,
    TripletFile,
)
from multicsr.config.triplets import CurateConfig, GenerateConfig, ScoreConfig, ScorerName

__all__ = [
    "CardConfig",
    "Config",
    "Count",
    "CurateConfig",
    "DeepSpeedConfig",
    "DemonstrationsConfig",
    "EvaluateConfig",
    "Fraction",
    "GenerateConfig",
    "IngestConfig",
    "InputConfig",
    "LLMConfig",
    "LoraConfig",
    "MaskConfig",
    "PoolingMode",
    "Redaction",
    "RefreshConfig",
    "Retriever",
    "S3Config",
    "ScoreConfig",
    "ScorerName",
    "Section",
    "TrainConfig",
    "TripletFile",
    "VllmConfig",
]


class Config(Section):
    """The configuration of one run, from sentences to an evaluated encoder."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """Name of the run, shown in progress, manifests and the report."""
    store: Annotated[str, Field(min_length=1)]
    """Store for everything the run makes: a directory, a file:// URI, or s3://bucket/prefix."""
    s3: S3Config = S3Config()
    """Access to buckets."""
    lease_s: Annotated[float, Field(ge=1, le=86_400)] = 60.0
    """Seconds without a heartbeat after which a job counts as dead and another one may take over the
    store."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 42
    """Seed of the choice of prompts, of sampling, batches and dropout."""
    input: InputConfig
    ingest: IngestConfig = IngestConfig()
    llm: LLMConfig = LLMConfig()
    generate: GenerateConfig = GenerateConfig()
    score: ScoreConfig = ScoreConfig()
    curate: CurateConfig = CurateConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    refresh: RefreshConfig = RefreshConfig()
    card: CardConfig = CardConfig()

    @model_validator(mode="after")
    def _sections_agree(self) -> "Config":
        if self.llm.batch and self.generate.omega > 0:
            raise ValueError(
                "generate.omega above 0 needs an endpoint that offers contrast, and no batch API does: "
                "set it to 0, or llm.batch to false"
            )
        if self.llm.engine == "openai" and (self.generate.min_new_tokens or self.generate.bad_words):
            raise ValueError("generate.min_new_tokens and generate.bad_words have no effect at an endpoint")
        if self.llm.batch and "batch_size" in self.generate.model_fields_set:
            raise ValueError("generate.batch_size has no effect with llm.batch: a batch is a whole shard")
        if "s3" in self.model_fields_set and not any(
            place.startswith("s3://") for place in (self.store, *self.input.paths)
        ):
            raise ValueError("s3 has no effect: neither store nor input.paths is in a bucket")
        parallel, gpus = self.llm.vllm.tensor_parallel, self.generate.gpus_per_actor
        if parallel > 1 and gpus not in (0, parallel):
            raise ValueError(
                f"generate.gpus_per_actor is {gpus:g}, llm.vllm.tensor_parallel {parallel}: make them equal"
            )
        return self

    @model_validator(mode="after")
    def _leaks_agree(self) -> "Config":
        if self.evaluate.drop_leaks and not self.evaluate.data and self.train.dev is None:
            raise ValueError("evaluate.drop_leaks has no effect without evaluate.data or train.dev")
        return self

    @model_validator(mode="after")
    def _something_chooses(self) -> "Config":
        for name in ("merge", "keep"):
            if getattr(self.train, name) and self.train.dev is None and not self.evaluate.held_out:
                raise ValueError(f"train.{name} has no effect without train.dev or evaluate.held_out")
        return self

    @model_validator(mode="after")
    def _scores_agree(self) -> "Config":
        made, rule = self.score.method, self.curate
        possible = ("llm_expected", "llm_stated") if made == "both" else (made,)
        if self.deciding_score not in possible:
            raise ValueError(f"curate.score is {rule.score}, which score.method {made} does not make")
        is_open = self.deciding_score == "llm_expected" and self.score.calibrate is None
        if is_open and rule.keep_share is None and (rule.alpha == 5 or rule.beta == 0 or rule.gamma == 5):
            raise ValueError(
                "llm_expected scores lie strictly between 0 and 5: curate.alpha 5, curate.beta 0 or "
                "curate.gamma 5 would keep nothing"
            )
        if self.score.model is not None and self.score.uses_llm and self.llm.engine == "fake":
            raise ValueError("score.model has no effect with llm.engine: fake")
        limits = [name for name in ("max_tokens", "max_cost") if getattr(self.llm, name) is not None]
        for setting in ("model", "calibrate"):
            if limits and self.score.uses_llm and getattr(self.score, setting) is not None:
                raise ValueError(
                    f"llm.{limits[0]} counts what one LLM writes and scores for the corpus; it cannot "
                    f"limit the requests of score.{setting}, so leave one of the two out"
                )
        if self.scoring_llm != self.llm and self.llm.engine == "vllm":
            raise ValueError(
                "score.model names another LLM, but vLLM runs one model in an actor; score with the LLM that "
                "writes, set score.method to encoder or nli, or set llm.engine to transformers"
            )
        return self

    @model_validator(mode="after")
    def _sentences_need_no_llm(self) -> "Config":
        if self.train.rows == "sentences":
            for name in ("llm", "generate", "score", "curate"):
                if name in self.model_fields_set:
                    raise ValueError(f"{name} has no effect with train.rows: sentences, which asks no LLM")
            if self.evaluate.held_out:
                raise ValueError("evaluate.held_out holds out triplets, and train.rows: sentences has none")
        return self

    @property
    def deciding_score(self) -> ScorerName:
        """Return the name of the scorer whose scores are compared with the thresholds."""
        if self.curate.score is not None:
            return self.curate.score
        return "llm_expected" if self.score.method == "both" else self.score.method

    @property
    def scoring_llm(self) -> LLMConfig:
        """Return the settings of the LLM that scores, if one does: those of the LLM that writes, or others.

        Revision and adapter belong to the LLM that writes.
        """
        if not self.score.uses_llm or self.score.model in (None, self.llm.model):
            return self.llm
        vllm = self.llm.vllm.model_copy(update={"lora": None})
        return self.llm.model_copy(update={"model": self.score.model, "revision": None, "vllm": vllm})

    @property
    def writer_reads_labels(self) -> bool:
        """Return True if the LLM that writes also scores by the probabilities of the score labels."""
        return self.score.reads_labels and self.scoring_llm == self.llm

    @property
    def scoring_encoder(self) -> tuple[str, str]:
        """Return the name of the model that scores by `encoder` or `nli`, and the setting that names it."""
        if self.score.model is not None:
            return self.score.model, "score.model"
        if self.train.mask is not None:
            return self.train.mask.model, "train.mask.model"
        return self.train.encoder, "train.encoder"

    @property
    def scoring_prompt(self) -> str | None:
        """Return the text that is put before sentences if the mask model or the encoder to train scores."""
        if self.score.model is not None:
            return None
        return self.train.prompt if self.train.mask is None else self.train.mask.prompt

    @property
    def scoring_pooling(self) -> PoolingMode | None:
        """Return the pooling of the encoder that scores, if it is the mask model with another one."""
        is_mask_model = self.score.method == "encoder" and self.score.model is None
        return self.train.mask.pooling if is_mask_model and self.train.mask is not None else None

    @property
    def scorer_runs_code(self) -> bool:
        """Return True if code that comes with the model that scores by `encoder` or `nli` may be run."""
        if self.score.model is not None:
            return self.score.trust_remote_code
        return (self.train if self.train.mask is None else self.train.mask).trust_remote_code
