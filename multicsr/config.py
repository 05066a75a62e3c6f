"""All settings of all jobs. They are immutable, have bounds, and are documented under each field.

`config_file.py` reads them. This module imports neither torch nor ray, so that importing it is fast.
"""

import re
from typing import Annotated, Literal
from urllib.parse import unquote

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from multicsr.messages.endpoint_address import check_address

Fraction = Annotated[float, Field(ge=0, le=1)]
Score = Annotated[float, Field(ge=0, le=5)]
Count = Annotated[int, Field(ge=1, lt=2**31)]


class Section(BaseModel):
    """A section of the settings. It is immutable, and an unknown key or an infinite number is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


def _input_place(path: str) -> str:
    """Return the location of an input as a path or s3:// URI.

    Raises:
        ValueError: it cannot be read.
    """
    if path == "-":
        raise ValueError("standard input cannot be read by several workers; write it to a file and name that")
    scheme, separator, rest = path.partition("://")
    match scheme.lower() if separator else "":
        case "":
            return path
        case "s3" | "s3a" | "s3n":
            return f"s3://{rest}"
        case "file" if rest.removeprefix("localhost").startswith("/"):
            return unquote(rest.removeprefix("localhost"))
        case "file":
            raise ValueError(f"{path} names another machine; write file:///absolute/path")
    raise ValueError(f"cannot read {path}; copy it to a directory or to a bucket (s3://bucket/prefix)")


class InputConfig(Section):
    """Location and format of the unlabelled sentences."""

    paths: Annotated[list[str], Field(min_length=1)]
    """Files, directories, s3:// prefixes or globs of either, also as `s3a://` and `file://` URIs. Files that
    end in `.gz`, `.bz2`, `.xz` or `.zst` are decompressed. Names below a directory that begin with `.` or `_`
    are ignored."""
    format: Literal["auto", "text", "csv", "tsv", "jsonl", "parquet", "tmx", "wikipedia"] = "auto"
    """`auto` chooses by the ending of the file name; `text` has one sentence (or document) per line, and a
    file that ends in the code of `ingest.language` (`TED2020.en-tl.tl`) is text; `tmx` is a translation
    memory, of which the segments in `ingest.language` are read;
    `wikipedia` is the XML export of any MediaWiki (`*-pages-articles*.xml`), with one record for each article
    that is not a redirect."""
    column: str | None = None
    """Column that contains the text: its name or, with `header: false`, its number from 1. Required by every
    format except `text`, `tmx` and `wikipedia`."""
    header: bool = True
    """True if CSV and TSV files begin with a line of column names; false if with the first record."""
    documents: bool = False
    """Treat each record as a document and split it into sentences; `wikipedia` requires it."""

    @field_validator("paths")
    @classmethod
    def _places(cls, paths: list[str]) -> list[str]:
        return [_input_place(path) for path in paths]

    @field_validator("column", mode="before")
    @classmethod
    def _number(cls, column: object) -> object:
        return str(column) if type(column) is int else column

    @model_validator(mode="after")
    def _numbered(self) -> "InputConfig":
        if not self.header and not re.fullmatch("[1-9][0-9]{0,5}", self.column or ""):
            raise ValueError(
                "header: false requires the number of the column with the text, from 1, as column"
            )
        return self


class IngestConfig(Section):
    """Filters of the sentences, applied when they are read."""

    language: str = "en"
    """Language tag of the corpus; it is part of the id of every row. `no` means `nb`."""
    language_filter: bool = False
    """Reject sentences whose detected language is not `language`."""
    min_words: Count = 3
    """Minimum number of words; shorter sentences are rejected. In scripts without blanks two characters of
    Chinese or Japanese count as a word, five of Thai, Lao, Tibetan, Burmese or Khmer."""
    max_words: Count = 64
    """Maximum number of words; longer sentences are rejected."""
    near_duplicates: bool = False
    """Reject near-duplicates, which are found by MinHash over word trigrams; in scripts without blanks, over
    trigrams of characters."""
    near_duplicate_similarity: Annotated[float, Field(gt=0, lt=1)] = 0.8
    """Minimum Jaccard similarity of near-duplicates; requires `near_duplicates`."""
    rows_per_file: Count = 1_000_000
    """Maximum number of sentences in one file of an artifact, about 100 MB."""
    max_rejected: Fraction = 0.95
    """Maximum fraction of rejected records; the job fails if it is exceeded."""

    @field_validator("language")
    @classmethod
    def _bokmal(cls, language: str) -> str:
        return re.sub(r"^no(?=-|$)", "nb", language)

    @model_validator(mode="after")
    def _words(self) -> "IngestConfig":
        if self.min_words > self.max_words:
            raise ValueError("min_words is above max_words: no sentence could pass")
        if not self.near_duplicates and "near_duplicate_similarity" in self.model_fields_set:
            raise ValueError("near_duplicate_similarity has no effect without near_duplicates: true")
        return self


class VllmConfig(Section):
    """Settings of the `vllm` engine; the model itself is set in `llm`."""

    max_model_len: Annotated[int, Field(ge=8)] | None = None
    """Length of the context in tokens, for prompt and hypothesis together; unset: that of the model."""
    tokens_per_step: Annotated[int, Field(ge=8)] = 8_192
    """Maximum number of tokens computed in one step; longer prompts are processed in several steps."""
    kv_cache_gib: Annotated[float, Field(gt=0)] | None = None
    """Memory of the KV cache in GiB; unset: the rest of `gpu_memory`, or 1 GiB on a CPU."""
    gpu_memory: Annotated[float, Field(gt=0, lt=1)] = 0.9
    """Fraction of the GPU's memory for weights and KV cache; no effect on a CPU."""
    prefix_caching: bool = True
    """Compute the common beginning of the prompts of a premise only once."""
    eager: bool | None = None
    """Use neither CUDA graphs nor compilation: it starts faster and runs slower. Unset: true on a CPU
    only."""
    tensor_parallel: Count = 1
    """Number of GPUs that one model is split over; `generate.gpus_per_actor` must be the same number."""
    quantization: str | None = None
    """Format of the weights as vLLM names it, such as `awq` or `fp8`; unset: that of the model's
    configuration."""
    lora: str | None = None
    """Directory of a LoRA adapter."""


class LLMConfig(Section):
    """The LLM that writes and scores the hypotheses."""

    engine: Literal["transformers", "vllm", "openai", "fake"] = "transformers"
    """`transformers` is the exact reference and runs any causal or encoder-decoder model; `vllm` runs
    decoder-only models at scale; `openai` uses any OpenAI-compatible endpoint, without stage 1; `fake` is
    deterministic and for tests."""
    model: str = "tinylm"
    """`tinylm` (ships with the project), a directory, a Hugging Face id, or a GGUF file or the directory that
    holds it. A GGUF model is converted once, into `$HF_HOME/multicsr/gguf`."""
    revision: str | None = None
    """Revision of a Hugging Face id."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Data type of the weights and of the computation."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of the model; `auto` uses a GPU if Ray assigned one to the actor."""
    chat_template: bool | None = None
    """Apply the tokenizer's chat template to prompts; unset: if it has one."""
    template_args: dict[str, bool | int | float | str] = {}
    """Variables of the chat template, such as `{enable_thinking: false}` for Qwen3. An endpoint gets them as
    `chat_template_kwargs`, which vLLM's server knows and others may reject."""
    base_url: str | None = None
    """URL of the endpoint of the `openai` engine, such as https://host/v1. It is not part of the fingerprint,
    so existing outputs stay valid if the endpoint moves. The key is read from OPENAI_API_KEY."""
    concurrency: Annotated[int, Field(ge=1, le=1024)] = 16
    """Number of concurrent requests of each actor (`generate.actors`) to an endpoint."""
    timeout_s: Annotated[float, Field(gt=0, le=86_400)] = 300.0
    """Timeout of one request to an endpoint in seconds; after it the request is repeated."""
    patience_s: Annotated[float, Field(ge=0, le=86_400)] = 600.0
    """Time in seconds for which requests are repeated if the endpoint is busy, failing or unreachable. After
    it the job ends; answers received until then are kept."""
    vllm: VllmConfig = VllmConfig()
    """Settings of the `vllm` engine."""

    @property
    def loads_weights(self) -> bool:
        """Return True if the engine loads the weights and the tokenizer of `model` itself."""
        return self.engine in ("transformers", "vllm")

    @model_validator(mode="after")
    def _endpoint(self) -> "LLMConfig":
        if (self.base_url is not None) != (self.engine == "openai"):
            raise ValueError("base_url belongs to engine: openai, which needs it")
        if self.base_url is not None:
            check_address(self.base_url)
        for name in ("concurrency", "timeout_s", "patience_s"):
            if self.engine != "openai" and name in self.model_fields_set:
                raise ValueError(f"{name} has no effect with engine: {self.engine}; it is for engine: openai")
        if self.template_args and (self.engine == "fake" or self.chat_template is False):
            cause = "chat_template: false" if self.chat_template is False else "engine: fake"
            raise ValueError(f"template_args has no effect with {cause}")
        if self.engine != "vllm" and "vllm" in self.model_fields_set:
            raise ValueError(f"the section vllm has no effect with engine: {self.engine}")
        if self.engine == "vllm" and self.device != "auto":
            raise ValueError(
                "device has no effect with engine: vllm; the installed vLLM is for GPU or for CPU"
            )
        return self


class GenerateConfig(Section):
    """Stage 1, contrastive generation (MultiCSR Sec. 3.1)."""

    prompts: str = "syncse"
    """Prompt set: a shipped one (`syncse`, `reference`) or a YAML file."""
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


class MaskConfig(Section):
    """Stage 3, the frozen encoder P that finds false negatives (MultiCSR Eq. 6)."""

    model: str = "all-MiniLM-L6-v2"
    """Model P: `all-MiniLM-L6-v2` (demo package), a sentence-transformers directory, or a Hugging Face id."""
    sigma: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Cosine under P from which the hypothesis of another row is removed from the denominator. At 1 only
    equal texts are removed."""
    prompt: str | None = None
    """Text that is put before every sentence, for models that need a prompt."""
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
    targets: list[str] | None = None
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


class TrainConfig(Section):
    """Stage 3, in-batch training (MultiCSR Sec. 3.3, with the settings of SimCSE)."""

    encoder: str = "all-MiniLM-L6-v2"
    """Initial encoder G: `all-MiniLM-L6-v2`, a directory, or a Hugging Face id."""
    layers: Annotated[int, Field(ge=1)] | None = None
    """Number of transformer layers to keep, from the first; unset: all."""
    pooling: Literal["cls", "mean", "first_last"] = "cls"
    """Sentence vector: that of the first token, the mean of all tokens, or the mean over first and last
    layer."""
    mlp_head: bool = True
    """Add the dense + tanh layer of SimCSE on top, in training only."""
    lora: LoraConfig | None = None
    """Low-rank adapters; null: all parameters are trained."""
    objective: Literal[
        "masked_infonce", "multicsr_reference", "simcse_unsup", "simcse_sup", "claif", "clhaif"
    ] = "masked_infonce"
    """Loss function: `masked_infonce` is MultiCSR Eq. 7; `multicsr_reference` is the loss of the authors'
    public code; `simcse_unsup` uses only premises, with dropout as augmentation; `simcse_sup` is Eq. 5;
    `claif` fits cosines to the LLM's scores, `clhaif` weights triplets by them (Cheng et al. 2023)."""
    mask: MaskConfig | None = MaskConfig()
    """Mask of false negatives; null: no mask, so that masked_infonce equals supervised SimCSE (Eq. 5)."""
    temperature: Annotated[float, Field(gt=0)] = 0.05
    """Temperature tau in Eq. 5 and 7."""
    epochs: Count = 3
    """Number of passes over the curated triplets."""
    steps: Count | None = None
    """Number of optimizer steps, instead of `epochs`; the last pass over the triplets may be incomplete."""
    learning_rate: Annotated[float, Field(gt=0)] = 5e-5
    """Peak learning rate."""
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
    max_length: Annotated[int, Field(ge=4)] = 32
    """Maximum length of a sentence in tokens; the rest is truncated."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Data type of the encoder's computation; parameters and loss stay in float32. float16 requires
    `deepspeed`, which scales the loss."""
    deepspeed: DeepSpeedConfig | None = None
    """DeepSpeed; null: plain torch, where every worker has a complete copy of the optimizer's state."""
    dev: str | None = None
    """TSV file on which the best checkpoint is selected, a path or URI: (score, sentence1, sentence2) or
    (anchor, positive, negative); unset: the last checkpoint is kept."""
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

    @field_validator("dev")
    @classmethod
    def _place_of_dev(cls, dev: str | None) -> str | None:
        return None if dev is None else _input_place(dev)

    @model_validator(mode="after")
    def _consistent(self) -> "TrainConfig":
        if self.objective not in ("masked_infonce", "multicsr_reference") and self.mask is not None:
            raise ValueError(f"mask has no effect with objective: {self.objective}; set train.mask to null")
        if self.objective == "multicsr_reference" and self.mask is None:
            raise ValueError("objective: multicsr_reference needs a mask")
        if self.objective == "claif" and "temperature" in self.model_fields_set:
            raise ValueError("temperature has no effect with objective: claif")
        if self.objective == "multicsr_reference" and self.mask is not None and self.mask.sigma == 1:
            raise ValueError("mask.sigma 1 masks nothing with objective: multicsr_reference; set it below 1")
        if self.steps is not None and "epochs" in self.model_fields_set:
            raise ValueError("epochs has no effect with steps; give one of the two")
        for name in ("evaluate_every", "patience"):
            if self.dev is None and name in self.model_fields_set and getattr(self, name) is not None:
                raise ValueError(f"{name} has no effect without dev")
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
        return self


class EvaluateConfig(Section):
    """Settings of the evaluation of the trained encoder."""

    data: list[str] = []
    """TSV files, by path or URI, or directories of them; the columns decide the kind of task."""
    baseline: bool = True
    """Also measure the encoder before training."""
    batch_size: Count = 128
    """Number of sentences encoded at once."""

    @field_validator("data")
    @classmethod
    def _places(cls, data: list[str]) -> list[str]:
        return [_input_place(path) for path in data]


class RefreshConfig(Section):
    """Settings of the incremental refresh."""

    retrain_share: Fraction = 0.02
    """Fraction of curated triplets that must differ from those the model was trained on, to train again."""
    start: Literal["scratch", "last"] = "scratch"
    """Initial encoder: `scratch` is `train.encoder`, `last` the model of the current version."""
    tolerance: Annotated[float, Field(ge=0)] = 0.5
    """Points by which a metric of `evaluate.data` may fall. If one falls more, the previous model stays
    current."""
    tolerances: dict[str, Annotated[float, Field(ge=0)]] = {}
    """Tolerances of single tasks, by name; they replace `tolerance`."""
    best_of: Count = 10
    """Number of previous versions with whose best metrics a new model is compared, so that small losses do
    not add up over many runs; 1: only the current version."""
    max_removed: Fraction = 0.2
    """Maximum fraction of sentences that may be gone from the source; the run fails if it is exceeded, for
    example because a file is missing. If it is intended, run once with `--set refresh.max_removed=1`."""
    price_per_gpu_hour: Annotated[float, Field(ge=0)] = 0.0
    """Price of one GPU hour in any currency, for the cost in the refresh log."""


class S3Config(Section):
    """Access to buckets. Credentials are not a setting: they come from the standard AWS chain."""

    endpoint: str | None = None
    """URL of a server other than AWS, such as http://minio:9000; unset: AWS, or AWS_ENDPOINT_URL."""
    region: str | None = None
    """Region; unset: that of the AWS chain."""
    encryption: Literal["AES256", "aws:kms"] | None = None
    """Server-side encryption of written objects; unset: the default of the bucket."""
    kms_key: str | None = None
    """Key for `aws:kms`; unset: the key of the account."""
    requester_pays: bool = False
    """Pay for requests to the bucket instead of its owner."""
    read_timeout_s: Annotated[float, Field(gt=0)] = 30.0
    """Seconds without data from the server after which a request is repeated."""

    @model_validator(mode="after")
    def _consistent(self) -> "S3Config":
        if self.kms_key is not None and self.encryption != "aws:kms":
            raise ValueError("kms_key has no effect without encryption: aws:kms")
        if self.endpoint is not None and not self.endpoint.startswith(("http://", "https://")):
            raise ValueError("endpoint begins with http:// or https://")
        if self.endpoint is not None and ({"@", "?", "#"} & {*self.endpoint}):
            raise ValueError(
                "endpoint is a plain URL such as http://minio:9000; credentials belong into "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or the machine's role"
            )
        return self


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
