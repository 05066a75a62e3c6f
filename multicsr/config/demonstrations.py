"""Settings of the demonstrations in the prompts of stage 1 (MultiCSR Appendix G)."""

from typing import Annotated, NamedTuple

from pydantic import Field, field_validator, model_validator

from multicsr.config.section import Count, Section
from multicsr.config.training import PoolingMode, TrainConfig, TripletFile, as_triplet_files


class Retriever(NamedTuple):
    """The encoder P by which labelled premises are found."""

    model: str
    setting: str
    """Setting that names the model."""
    prompt: str | None
    pooling: PoolingMode | None
    trust_remote_code: bool


class DemonstrationsConfig(Section):
    """Labelled triplets that are shown to the LLM, those nearest to the premise (MultiCSR Appendix G)."""

    triplets: Annotated[list[TripletFile], Field(min_length=1)]
    """Labelled triplets: a file, or a list of files, each a path or a path with `columns` and `header`, as in
    `train.extra_triplets`. Rows without a negative or with a text above `ingest.max_words` are not used.
    The texts must be in the language of the corpus."""
    count: Count = 5
    """Maximum number L of demonstrations in a prompt."""
    similarity: Annotated[float, Field(ge=-1, le=1)] = 0.8
    """Minimum cosine lambda of a labelled premise with the premise under P. A prompt has fewer
    demonstrations, or none, if fewer labelled premises reach it."""
    encoder: str | None = None
    """Encoder P: `all-MiniLM-L6-v2`, a sentence-transformers directory, or a Hugging Face id. Unset: that of
    `train.mask` with its pooling and prompt, without a mask `train.encoder`."""
    pooling: PoolingMode | None = None
    """Sentence vector of `encoder`, as `train.mask.pooling` is that of the mask model."""
    trust_remote_code: bool = False
    """Run code that comes with `encoder`."""

    @field_validator("triplets", mode="before")
    @classmethod
    def _paths_are_files(cls, files: object) -> object:
        return as_triplet_files(files)

    @model_validator(mode="after")
    def _settings_have_an_effect(self) -> "DemonstrationsConfig":
        if any("weight" in file.model_fields_set for file in self.triplets):
            raise ValueError("weight has no effect on triplets that are shown in prompts; leave it out")
        if self.encoder is None:
            for name in ("pooling", "trust_remote_code"):
                if getattr(self, name):
                    raise ValueError(f"{name} has no effect without encoder; set it at train.mask")
        return self

    def retriever(self, train: TrainConfig) -> Retriever:
        """Return the encoder P: the one that is set here, or else that of the training's mask."""
        if self.encoder is not None:
            setting = "generate.demonstrations.encoder"
            return Retriever(self.encoder, setting, None, self.pooling, self.trust_remote_code)
        if train.mask is not None:
            mask = train.mask
            return Retriever(
                mask.model, "train.mask.model", mask.prompt, mask.pooling, mask.trust_remote_code
            )
        return Retriever(train.encoder, "train.encoder", train.prompt, train.pooling, train.trust_remote_code)
