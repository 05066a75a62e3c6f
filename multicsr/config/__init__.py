"""All settings of all jobs. They are immutable, have bounds, and are documented under each field.

`config_file.py` reads them. This package imports neither torch nor ray, so that importing it is fast.
"""

from typing import Annotated

from pydantic import Field, model_validator

from multicsr.config.buckets import S3Config
from multicsr.config.corpus import IngestConfig, InputConfig, Redaction
from multicsr.config.evaluation import EvaluateConfig, RefreshConfig
from multicsr.config.llm import LLMConfig, VllmConfig
from multicsr.config.section import Section
from multicsr.config.training import DeepSpeedConfig, LoraConfig, MaskConfig, TrainConfig
from multicsr.config.triplets import CurateConfig, GenerateConfig, ScoreConfig

__all__ = [
    "Config",
    "Count",
    "CurateConfig",
    "DeepSpeedConfig",
    "EvaluateConfig",
    "Fraction",
    "GenerateConfig",
    "IngestConfig",
    "InputConfig",
    "LLMConfig",
    "LoraConfig",
    "MaskConfig",
    "Redaction",
    "RefreshConfig",
    "S3Config",
    "ScoreConfig",
    "Section",
    "TrainConfig",
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

    @model_validator(mode="after")
    def _sections_agree(self) -> "Config":
        if self.score.method not in ("both", self.curate.score):
            raise ValueError(
                f"curate.score is {self.curate.score}, which score.method {self.score.method} does not make"
            )
        if self.llm.engine == "openai" and self.generate.omega > 0:
            raise ValueError("generate.omega needs logits, which an endpoint has not: set it to 0")
        if self.llm.engine == "openai" and (self.generate.min_new_tokens or self.generate.bad_words):
            raise ValueError("generate.min_new_tokens and generate.bad_words have no effect at an endpoint")
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
