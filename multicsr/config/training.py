"""Settings of stage 3, the training of the encoder."""

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from multicsr.config.corpus import input_place
from multicsr.config.extension_names import name_in, schema_of
from multicsr.config.section import Count, Fraction, Section
from multicsr.extensions import ExtensionGroup

MASKED_OBJECTIVES = ("masked_infonce", "multicsr_reference", "gist")
"""Built-in objectives that have a mask."""
NEEDS_MASK = ("multicsr_reference", "gist")
"""Built-in objectives that cannot do without a mask."""
OBJECTIVE_NAMES = ExtensionGroup(
    "multicsr.objectives",
    "objective",
    ("masked_infonce", "multicsr_reference", "simcse_unsup", "simcse_sup", "gist", "claif", "clhaif"),
)
"""Values of `train.objective`."""
PoolingMode = Literal["cls", "mean", "first_last", "last_token"]
"""Names of poolings that may replace an encoder's own."""


class MaskConfig(Section):
    """Stage 3, the frozen encoder P that finds false negatives (MultiCSR Eq. 6)."""

    model: str = "all-MiniLM-L6-v2"
    """Model P: `all-MiniLM-L6-v2` (demo package), a sentence-transformers directory, or a Hugging Face id."""
    sigma: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Cosine under P from which the hypothesis of another row is removed from the denominator. At 1 only
    equal texts are removed."""
    pooling: PoolingMode | None = None
    """Sentence vector of P, as `train.pooling` is that of the encoder; unset: P's own modules, and the mean
    of all tokens without modules.json."""
    prompt: str | None = None
    """Text that is put before every sentence, for models that need a prompt; unset: the model's default
    prompt, if it has one."""
    trust_remote_code: bool = False
    """Run code that comes with the model."""
    place: Literal["actor", "worker"] = "actor"
    """`actor`: P runs in an actor beside each worker, one step ahead; `worker`: inside the worker, in the
    step."""
    cache_gib: Annotated[float, Field(ge=0)] = 4.0
    """Memory in GiB of a worker's cache of P's vectors (fp16). A cached sentence is embedded only once;
    sentences that do not fit are embedded in every epoch."""


class LoraConfig(Section):
    """Training of low-rank adapters instead of all parameters; saving the model merges them into it."""

    rank: Count = 16
    """Rank of an adapter."""
    alpha: Annotated[float, Field(gt=0)] = 32.0
    """Scale: the output of an adapter is multiplied by alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout probability of the input of an adapter."""
    targets: Annotated[list[str], Field(min_length=1)] | None = None
    """Names of the linear layers that get an adapter; unset: all."""


class DeepSpeedConfig(Section):
    """Training with DeepSpeed."""

    zero: Annotated[int, Field(ge=0, le=3)] = 1
    """ZeRO stage, which decides what is partitioned among the workers: 1 the optimizer's state, 2 also the
    gradients, 3 also the parameters."""
    offload: bool = False
    """Keep the optimizer's state in CPU memory and run the update on the CPU."""

    @model_validator(mode="after")
    def _something_to_offload(self) -> "DeepSpeedConfig":
        if self.offload and self.zero == 0:
            raise ValueError("offload has no effect with zero: 0; set zero to 1, 2 or 3")
        return self


class TripletFile(Section):
    """A file of labelled triplets of one's own, which are trained on or shown to the LLM."""

    path: Annotated[str, Field(min_length=1)]
    """TSV (without quotes), CSV, JSONL or Parquet file, a path or URI; it may end in `.gz`, `.bz2`, `.xz` or
    `.zst`."""
    weight: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """Weight of a row of the file in training: the loss of a batch is the mean over its anchors, weighted. A
    curated row has the weight 1."""
    columns: Annotated[list[str], Field(min_length=2)] | None = None
    """Columns of the anchor, the positive and any number of negatives, in this order: names, or numbers from
    1. Unset: known names (anchor, positive, negative; sent0, sent1, hard_neg; query, pos, neg and others);
    with `header: false`, all columns in their order."""
    header: bool = True
    """True if a CSV or TSV file begins with a line of column names; false if with the first row."""

    @field_validator("path")
    @classmethod
    def _place(cls, path: str) -> str:
        return input_place(path)

    @field_validator("columns", mode="before")
    @classmethod
    def _numbers(cls, columns: object) -> object:
        if not isinstance(columns, list):
            return columns
        return [str(column) if type(column) is int else column for column in columns]

    @model_validator(mode="after")
    def _columns_agree(self) -> "TripletFile":
        columns = self.columns or []
        if len(set(columns)) < len(columns):
            raise ValueError("columns names a column twice")
        wrong = [column for column in columns if not re.fullmatch("[1-9][0-9]{0,5}", column)]
        if not self.header and wrong:
            raise ValueError(f"header: false needs numbers from 1 as columns, not {wrong[0]}")
        return self


def as_triplet_files(files: object) -> object:
    """Return a path, or a list of them, as a list of files; what is neither stays as it is."""
    files = [files] if isinstance(files, (str, dict)) else files
    if not isinstance(files, list):
        return files
    return [{"path": file} if isinstance(file, str) else file for file in files]


class TrainConfig(Section):
    """Stage 3, in-batch training (MultiCSR Sec. 3.3)."""

    encoder: str = "all-MiniLM-L6-v2"
    """Initial encoder G: `all-MiniLM-L6-v2`, a directory, or a Hugging Face id."""
    layers: Annotated[int, Field(ge=1)] | None = None
    """Number of transformer layers to keep, from the first; unset: all."""
    pooling: PoolingMode | None = None
    """Sentence vector, instead of the encoder's own pooling: that of the first token (`cls`), the mean of all
    tokens, the mean over first and last layer, or that of the last token. Unset: the encoder's own modules;
    without modules.json the mean, and the last token of a causal language model. What follows the pooling,
    such as Dense or Normalize, stays."""
    prompt: str | None = None
    """Text that is put before every sentence in training and in its evaluations; unset: the encoder's default
    prompt, if it has one. It is not saved: the trained encoder keeps the prompts of its original."""
    trust_remote_code: bool = False
    """Run code that comes with the encoder."""
    mlp_head: bool = False
    """Add the dense + tanh layer of SimCSE on top, in training only."""
    lora: LoraConfig | None = None
    """Low-rank adapters; null: all parameters are trained."""
    rows: Literal["curated", "sentences"] = "curated"
    """Artifact whose rows are trained on: `curated`, the triplets that curation kept, or `sentences`, all
    sentences of the corpus, for `objective: simcse_unsup`, which reads premises alone. A run then leaves out
    generation and curation, and asks no LLM."""
    objective: Annotated[str, name_in(OBJECTIVE_NAMES), schema_of(OBJECTIVE_NAMES)] = "masked_infonce"
    """Loss function: `masked_infonce` is MultiCSR Eq. 7; `multicsr_reference` is the loss of the authors'
    public code; `simcse_unsup` uses only premises, with dropout as augmentation; `simcse_sup` is Eq. 5;
    `gist` is that of GISTEmbed (Solatorio 2024), in which P removes what it finds nearer than the positive;
    `claif` fits cosines to the LLM's scores, `clhaif` weights triplets by them (Cheng et al. 2023). Or an
    objective of another package, by the name of its entry point."""
    mask: MaskConfig | None = MaskConfig()
    """Mask of false negatives; null: no mask, so that masked_infonce equals supervised SimCSE (Eq. 5)."""
    extra_triplets: list[TripletFile] = []
    """Labelled triplets of one's own beside the curated ones (MultiCSR Appendix G): a file, or a list of
    files, each a path or a path with `weight`, `columns` and `header`. A row may have no negative, or
    several. The mask applies to them as to all rows."""
    temperature: Annotated[float, Field(gt=0)] = 0.05
    """Temperature tau in Eq. 5 and 7."""
    label_smoothing: Fraction = 0.0
    """Part s of the smoothing of labels with `objective: claif`: a label y from 0 to 1 becomes (1 - s) y +
    s / 2."""
    random_pairs: Annotated[int, Field(ge=0)] = 0
    """Number of pairs of a premise with hypotheses of other rows that `objective: claif` adds with the label
    0."""
    matryoshka: list[Count] = []
    """Widths, smaller than the encoder's, at which shortened vectors shall be good too: the loss is the mean
    of those at the full width and at each of these (Matryoshka, Kusupati et al. 2022)."""
    epochs: Count = 3
    """Number of passes over the triplets. Unset: 1 for an encoder that is trained already (a directory or hub
    id with modules.json), 3 for any other."""
    steps: Count | None = None
    """Number of optimizer steps, instead of `epochs`; the last pass over the triplets may be incomplete."""
    learning_rate: Annotated[float, Field(gt=0)] = 5e-5
    """Peak learning rate. Unset: 2e-5 for an encoder that is trained already, 5e-5 for any other."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """Course of the learning rate after the warm-up: a decrease to 0 after the last step, or `constant`."""
    warmup: Fraction = 0.0
    """Fraction of the steps in which the learning rate rises: step s of W, counted from 1, has s/W of the
    peak. (The schedules of transformers count from 0, so that their first step has the rate 0.)"""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Weight decay of AdamW."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Maximum gradient norm; larger gradients are scaled down to it."""
    global_batch: Annotated[int, Field(ge=2)] = 256
    """Number N of triplets in one batch of all workers together (Eq. 7)."""
    micro_batch: Count | None = None
    """Number of triplets that the encoder processes at once; unset: all of a worker's. Each micro-batch has
    its own dropout seed. If every worker has only whole micro-batches, dropout does not depend on the number
    of workers."""
    grad_cache: bool = False
    """Keep the activations of only one micro-batch at a time and compute them twice (GradCache). The gradient
    is the same, and the global batch need not fit into memory."""
    accumulate: Count = 1
    """Number of global batches whose gradients are averaged in one optimizer step."""
    max_length: Annotated[int, Field(ge=4)] | None = None
    """Maximum length of a sentence in tokens, in training only; the rest is truncated. Unset: that of the
    encoder. The trained encoder takes as many tokens as the one it was made from."""
    gradient_checkpointing: bool = False
    """Keep only the input of each layer in memory and compute the layer again in the backward pass. The
    gradient is the same; long texts need less memory, and a step more time."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Data type of the encoder's computation; parameters and loss stay in float32. float16 requires
    `deepspeed`, which scales the loss."""
    deepspeed: DeepSpeedConfig | None = None
    """DeepSpeed; null: plain torch, where every worker has a complete copy of the optimizer's state."""
    dev: str | None = None
    """TSV file on which the best checkpoint is selected, a path or URI: (score, sentence1, sentence2) or
    (anchor, positive, negative). It also chooses among merges (`merge`). Unset: the last checkpoint is kept,
    and half of `evaluate.held_out` chooses among merges, if there is any."""
    merge: list[Annotated[float, Field(gt=0, lt=1)]] | None = None
    """Shares of trained parameters in merges with the encoder as it was. They are candidates beside the
    trained encoder (1) and the encoder as it was (0), and `dev` chooses; `[]`: the trained encoder is kept.
    Without `dev`, half of the triplets of `evaluate.held_out` chooses. Unset: `[0.25, 0.5, 0.75]` with either
    of them and an encoder that is trained already, else `[]`."""
    keep: list[str] = []
    """Labelled files or directories, as in `evaluate.data`, of what the encoder was good at before: a
    candidate that loses more than `keep_tolerance` on one of these tasks is not chosen. Requires merges."""
    keep_tolerance: Annotated[float, Field(ge=0)] = 0.5
    """Points (of 100) that a candidate may lose on a task of `keep`; requires `keep`."""
    evaluate_every: Count = 25
    """Number of steps between two dev evaluations; requires `dev`."""
    patience: Count | None = None
    """Number of dev evaluations without improvement after which training stops; requires `dev`. Unset:
    never."""
    workers: Count = 1
    """Number of Ray Train workers; the global batch is divided among them."""
    min_workers: Count | None = None
    """Minimum number of workers to start with if not all are available; unset: wait for all."""
    cpus_per_worker: Annotated[float, Field(ge=0)] = 1
    """Number of CPUs that Ray reserves for a worker, and of its threads; 0 if the GPU nodes of the cluster
    offer no CPU."""
    gpus_per_worker: Annotated[float, Field(ge=0)] = 0
    """Number of GPUs that Ray reserves for a worker."""
    nodes: dict[str, str] = {}
    """Ray labels of the nodes that may run workers; empty: any node."""
    checkpoint_every_s: Annotated[float, Field(ge=0)] = 60.0
    """Seconds between two checkpoints: the maximum of training time that a lost machine costs."""
    max_restarts: Annotated[int, Field(ge=0)] = 5
    """Number of times that lost workers are replaced before the job fails."""
    tensorboard: bool = True
    """Write event files for TensorBoard beside the log."""
    mlflow: str | None = None
    """Tracking URI of an MLflow server that also receives the metrics; requires the extra `mlflow`."""

    @field_validator("extra_triplets", mode="before")
    @classmethod
    def _paths_are_files(cls, files: object) -> object:
        return as_triplet_files(files)

    @field_validator("dev")
    @classmethod
    def _place_of_dev(cls, dev: str | None) -> str | None:
        return None if dev is None else input_place(dev)

    @field_validator("keep")
    @classmethod
    def _places_of_keep(cls, keep: list[str]) -> list[str]:
        return [input_place(path) for path in keep]

    @field_validator("merge")
    @classmethod
    def _rising(cls, merge: list[float] | None) -> list[float] | None:
        return merge and sorted(set(merge))  # the order has no effect

    @model_validator(mode="after")
    def _consistent(self) -> "TrainConfig":
        is_builtin = self.objective in OBJECTIVE_NAMES.builtin  # a package's is looked at when it is loaded
        if is_builtin and self.objective not in MASKED_OBJECTIVES and self.mask is not None:
            raise ValueError(f"mask has no effect with objective: {self.objective}; set train.mask to null")
        if self.objective in NEEDS_MASK and self.mask is None:
            raise ValueError(f"objective: {self.objective} needs a mask")
        if self.objective == "gist" and self.mask is not None and "sigma" in self.mask.model_fields_set:
            raise ValueError("mask.sigma has no effect with objective: gist; leave it out")
        if self.objective == "claif" and "temperature" in self.model_fields_set:
            raise ValueError("temperature has no effect with objective: claif")
        if self.objective == "multicsr_reference" and self.mask is not None and self.mask.sigma == 1:
            raise ValueError("mask.sigma 1 masks nothing with objective: multicsr_reference; set it below 1")
        if self.steps is not None and "epochs" in self.model_fields_set:
            raise ValueError("epochs has no effect with steps; give one of the two")
        if len({*self.matryoshka}) < len(self.matryoshka):
            raise ValueError("matryoshka names a width twice")
        return self

    @model_validator(mode="after")
    def _fits_objective(self) -> "TrainConfig":
        if self.rows == "sentences" and self.objective != "simcse_unsup":
            raise ValueError(
                f"rows: sentences gives premises alone, and objective: {self.objective} reads triplets; set "
                "objective to simcse_unsup"
            )
        for name in ("label_smoothing", "random_pairs"):
            if self.objective != "claif" and name in self.model_fields_set:
                raise ValueError(f"{name} has no effect with objective: {self.objective}; it is for claif")
        if self.random_pairs >= self.global_batch:
            raise ValueError("random_pairs is not below global_batch: a row would be paired with itself")
        return self

    @model_validator(mode="after")
    def _dev_has_an_effect(self) -> "TrainConfig":
        for name in ("evaluate_every", "patience"):
            if self.dev is None and name in self.model_fields_set and getattr(self, name) not in (None, []):
                raise ValueError(f"{name} has no effect without dev")
        if self.keep and self.merge == []:
            raise ValueError("keep has no effect with merge: [], which leaves no choice")
        if not self.keep and "keep_tolerance" in self.model_fields_set:
            raise ValueError("keep_tolerance has no effect without keep")
        return self

    @model_validator(mode="after")
    def _extra_triplets_have_an_effect(self) -> "TrainConfig":
        if self.extra_triplets and self.objective in ("claif", "clhaif"):
            raise ValueError(
                f"extra_triplets: objective: {self.objective} trains on scores, which labelled triplets lack"
            )
        if self.extra_triplets and self.objective == "simcse_unsup":
            raise ValueError(
                "extra_triplets has no effect with objective: simcse_unsup, which reads premises"
            )
        seen: set[tuple[str, str]] = set()
        for file in self.extra_triplets:
            if (place := (file.path, str(file.columns))) in seen:
                raise ValueError(f"extra_triplets names {file.path} twice")
            seen.add(place)
        return self

    @model_validator(mode="after")
    def _work_can_be_divided(self) -> "TrainConfig":
        if self.cpus_per_worker == 0 and self.gpus_per_worker == 0:
            raise ValueError("cpus_per_worker is 0, which is for workers with a GPU; set gpus_per_worker too")
        if self.workers > self.global_batch:
            raise ValueError("workers is above global_batch: a worker would have no triplet")
        if self.min_workers is not None and self.min_workers > self.workers:
            raise ValueError("min_workers is above workers")
        if self.micro_batch is not None and self.micro_batch > self.global_batch:
            raise ValueError("micro_batch is above global_batch")
        if self.grad_cache and self.micro_batch is None:
            raise ValueError("grad_cache needs micro_batch: the triplets whose activations fit")
        if self.dtype == "float16" and self.deepspeed is None:
            raise ValueError("dtype: float16 needs loss scaling; set train.deepspeed, or take bfloat16")
        if self.dtype != "float32" and self.deepspeed is not None and self.deepspeed.zero == 0:
            raise ValueError(f"dtype: {self.dtype} needs train.deepspeed.zero 1, 2 or 3, not 0")
        return self
