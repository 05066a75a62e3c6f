"""Every setting of every job: frozen, bounded, documented under each field.

`config_file.py` reads them. Light on purpose: importing this module imports neither torch nor ray.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Fraction = Annotated[float, Field(ge=0, le=1)]
Score = Annotated[float, Field(ge=0, le=5)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """Frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class InputConfig(Section):
    """Where the unlabelled sentences are."""

    paths: Annotated[list[str], Field(min_length=1)]
    """Files, directories, globs, or s3:// prefixes; `.gz`, `.bz2` and `.zst` are decompressed."""
    format: Literal["auto", "text", "csv", "tsv", "jsonl", "parquet", "wikipedia"] = "auto"
    """`auto` goes by the file's ending; `text` is one sentence (or document) a line; `wikipedia` is the XML
    export of any MediaWiki (`*-pages-articles*.xml`), a record for each article that is no redirect."""
    column: str | None = None
    """The column that holds the text; needed for every format but `text` and `wikipedia`."""
    documents: bool = False
    """Each record is a document to be split into sentences; `wikipedia` needs it."""


class IngestConfig(Section):
    """What a sentence must be like to enter."""

    language: str = "en"
    """Language tag of the corpus; part of every row's identity."""
    language_filter: bool = False
    """Reject sentences that are identified as another language than `language`."""
    min_words: Count = 3
    """Fewer words than this: rejected as too short."""
    max_words: Count = 64
    """More words than this: rejected as too long."""
    near_duplicates: bool = False
    """Reject near-duplicates, found by MinHash over word trigrams."""
    near_duplicate_similarity: Annotated[float, Field(gt=0, lt=1)] = 0.8
    """Jaccard similarity from which two sentences are near-duplicates; needs `near_duplicates`."""
    rows_per_file: Count = 1_000_000
    """Sentences in one file of a room, some 100 MB; a smaller corpus is one file."""
    max_rejected: Fraction = 0.95
    """Stop the job when more than this fraction of the records is rejected."""

    @model_validator(mode="after")
    def _words(self) -> "IngestConfig":
        if self.min_words > self.max_words:
            raise ValueError("min_words is above max_words: no sentence could pass")
        if not self.near_duplicates and "near_duplicate_similarity" in self.model_fields_set:
            raise ValueError("near_duplicate_similarity has no effect without near_duplicates: true")
        return self


class VllmConfig(Section):
    """How vLLM runs the LLM; the model itself is under `llm`."""

    max_model_len: Annotated[int, Field(ge=8)] | None = None
    """Context in tokens, prompt and hypothesis together; unset: the model's."""
    tokens_per_step: Annotated[int, Field(ge=8)] = 8_192
    """Most tokens computed in one step; longer prompts are read in pieces."""
    kv_cache_gib: Annotated[float, Field(gt=0)] | None = None
    """Memory for keys and values; unset: what `gpu_memory` leaves, on a CPU 1 GiB."""
    gpu_memory: Annotated[float, Field(gt=0, lt=1)] = 0.9
    """Fraction of the GPU's memory for weights, keys and values; without effect on a CPU."""
    prefix_caching: bool = True
    """Read what the prompts of a premise begin with only once."""
    eager: bool | None = None
    """No CUDA graphs and no compilation: starts faster, runs slower; unset: on a CPU."""
    tensor_parallel: Count = 1
    """GPUs that one model is spread over; `generate.gpus_per_actor` must be as many."""
    quantization: str | None = None
    """vLLM's name of the weights' format, such as `awq` or `fp8`; unset: as the model says."""
    lora: str | None = None
    """Directory of a LoRA adapter."""


class LLMConfig(Section):
    """The LLM that writes and scores the hypotheses."""

    engine: Literal["transformers", "vllm", "openai", "fake"] = "transformers"
    """`transformers` is the exact reference and runs any causal or encoder-decoder model; `vllm` runs
    decoder-only models at scale; `openai` is any OpenAI-compatible endpoint, without stage 1; `fake` is
    deterministic and for tests."""
    model: str = "tinylm"
    """`tinylm` (ships with the project), a directory, or a Hugging Face id."""
    revision: str | None = None
    """Revision of a Hugging Face id."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Weights and arithmetic."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes a GPU when the actor was given one."""
    chat_template: bool | None = None
    """Wrap prompts in the tokenizer's chat template; unset: when it has one."""
    base_url: str | None = None
    """Endpoint of the `openai` engine; the key comes from OPENAI_API_KEY."""
    vllm: VllmConfig = VllmConfig()
    """Settings of the `vllm` engine."""

    @model_validator(mode="after")
    def _endpoint(self) -> "LLMConfig":
        if (self.base_url is not None) != (self.engine == "openai"):
            raise ValueError("base_url belongs to engine: openai, which needs it")
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
    """A shipped prompt set (`syncse`, `reference`) or a YAML file."""
    omega: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Weight of the noisy instruction's logits in Eq. 2; 0 is plain decoding; stable in [0.2, 0.4]."""
    max_new_tokens: Count = 48
    """Longest hypothesis, in tokens."""
    min_new_tokens: Annotated[int, Field(ge=0)] = 0
    """Before so many tokens the LLM may not end a hypothesis; a stop string of the prompt set may."""
    bad_words: list[str] = []
    """Words that no hypothesis may contain."""
    temperature: Annotated[float, Field(ge=0)] = 0.0
    """0 is greedy; above, draws are seeded per row."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Nucleus of the draw; needs a temperature above 0."""
    batch_size: Count = 64
    """Premises an actor works on at once; each is four rows in the decoder."""
    rows_per_shard: Count = 2_000
    """Sentences in one shard: the unit of the LLM's work, of retry and of commit."""
    actors: Count = 1
    """Size of the actor pool, each with its own copy of the model."""
    cpus_per_actor: Annotated[float, Field(ge=0)] = 1
    """CPUs Ray reserves for an actor, and threads it computes with; 0 where the cluster's GPU nodes offer no
    CPU."""
    gpus_per_actor: Annotated[float, Field(ge=0)] = 0
    """GPUs Ray reserves for an actor."""
    nodes: dict[str, str] = {}
    """Ray labels of the nodes that actors may run on, such as `{multicsr.io/role: generate}`; empty: any."""
    max_rejected: Fraction = 0.5
    """Stop the job when more than this fraction of the sentences is rejected."""

    @model_validator(mode="after")
    def _nucleus(self) -> "GenerateConfig":
        if self.top_p < 1 and self.temperature == 0:
            raise ValueError("top_p has no effect at temperature 0; set generate.temperature above 0")
        if self.min_new_tokens > self.max_new_tokens:
            raise ValueError("min_new_tokens is above max_new_tokens")
        if any(not word.strip() for word in self.bad_words):
            raise ValueError("bad_words holds an empty word")
        if self.cpus_per_actor == 0 == self.gpus_per_actor:
            raise ValueError("cpus_per_actor is 0, which is for actors with a GPU; set gpus_per_actor too")
        return self


class ScoreConfig(Section):
    """Stage 2, the LLM's own scores (MultiCSR Eq. 3)."""

    method: Literal["expected", "stated", "both"] = "expected"
    """`expected`: from label probabilities, one prefill; `stated`: the number in the model's text."""
    max_new_tokens: Count = 8
    """Longest reply to a scoring prompt, in tokens; used by `stated` and `both`."""


class CurateConfig(Section):
    """Stage 2, self-curation: keep iff a >= alpha, b <= beta, a >= b + gamma (MultiCSR Eq. 4)."""

    rule: Literal["paper", "reference"] = "paper"
    """`reference` is the authors' code: swap inverted pairs, drop rows whose lower score is above 4,
    and ask only a != b where the paper asks a >= b + gamma."""
    score: Literal["expected", "stated"] = "expected"
    """Which score decides."""
    alpha: Score = 3.0
    """Least score of (premise, entailment)."""
    beta: Score = 3.0
    """Greatest score of (premise, contradiction)."""
    gamma: Score = 1.0
    """Least distance between the two."""

    @model_validator(mode="after")
    def _something_can_pass(self) -> "CurateConfig":
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
    """`all-MiniLM-L6-v2` (demo package), a sentence-transformers directory, or a Hugging Face id."""
    sigma: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Cosine under P from which another row's hypothesis is removed from the denominator."""
    prompt: str | None = None
    """Put before every sentence, for a P that wants one."""
    place: Literal["actor", "worker"] = "actor"
    """`actor`: P lives beside each worker and works a step ahead; `worker`: inside it, within the step."""
    cache_gib: Annotated[float, Field(ge=0)] = 4.0
    """Memory of a worker for P's vectors (fp16), so that a sentence is embedded once; what does not fit is
    embedded in every epoch."""


class LoraConfig(Section):
    """Low-rank adapters instead of all parameters; merged into the model when it is saved."""

    rank: Count = 16
    """Width of an adapter."""
    alpha: Annotated[float, Field(gt=0)] = 32.0
    """An adapter's output is scaled by alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Of an adapter's input."""
    targets: list[str] | None = None
    """Names of the linear layers that get one; unset: all of them."""


class DeepSpeedConfig(Section):
    """Train through DeepSpeed."""

    zero: Annotated[int, Field(ge=0, le=3)] = 1
    """ZeRO stage, what the workers split among them: 1 the optimizer's state, 2 gradients too, 3 parameters
    too."""
    offload: bool = False
    """Keep the optimizer's state in the CPU's memory and update there."""

    @model_validator(mode="after")
    def _something_to_offload(self) -> "DeepSpeedConfig":
        if self.offload and self.zero == 0:
            raise ValueError("offload has no effect with zero: 0; set zero to 1, 2 or 3")
        return self


class TrainConfig(Section):
    """Stage 3, in-batch training (MultiCSR Sec. 3.3, SimCSE's settings)."""

    encoder: str = "all-MiniLM-L6-v2"
    """Encoder G to start from: `all-MiniLM-L6-v2`, a directory, or a Hugging Face id."""
    layers: Annotated[int, Field(ge=1)] | None = None
    """Keep only the first so many transformer layers; unset keeps all."""
    pooling: Literal["cls", "mean", "first_last"] = "cls"
    """Sentence vector: the first token's, the mean of all, or the mean over first and last layer."""
    mlp_head: bool = True
    """SimCSE's dense + tanh layer on top, in training only."""
    lora: LoraConfig | None = None
    """null: all parameters are trained."""
    objective: Literal[
        "masked_infonce", "multicsr_reference", "simcse_unsup", "simcse_sup", "claif", "clhaif"
    ] = "masked_infonce"
    """`masked_infonce` is MultiCSR Eq. 7; `multicsr_reference` the loss of the authors' public code;
    `simcse_unsup` uses premises alone, dropout as augmentation; `simcse_sup` is Eq. 5; `claif` fits cosines
    to the LLM's scores, `clhaif` weighs triplets by them (Cheng et al. 2023)."""
    mask: MaskConfig | None = MaskConfig()
    """null: no mask, which makes masked_infonce supervised SimCSE (Eq. 5)."""
    temperature: Annotated[float, Field(gt=0)] = 0.05
    """tau of Eq. 5 and 7."""
    gather: Literal["with_gradient", "without_gradient"] = "with_gradient"
    """`without_gradient` is SimCSE's and the authors' convention: candidates of other workers are constants,
    and so the result depends on the number of workers."""
    epochs: Count = 3
    """Passes over the curated triplets."""
    steps: Count | None = None
    """Optimizer steps instead of `epochs`: as many passes as that takes, the last one cut short."""
    learning_rate: Annotated[float, Field(gt=0)] = 5e-5
    """Peak."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How the learning rate falls after the warm-up: to 0 after the last step, or not at all."""
    warmup: Fraction = 0.0
    """Fraction of the steps over which the learning rate rises."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """AdamW's."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradient norm above which gradients are scaled down."""
    global_batch: Annotated[int, Field(ge=2)] = 256
    """N of Eq. 7: triplets in one step over all workers together."""
    micro_batch: Count | None = None
    """Triplets that go through the encoder at once, each such chunk with a dropout of its own; unset: all of
    a worker's. Where every worker has whole chunks, dropout too is the same on any number of workers."""
    grad_cache: bool = False
    """Keep the activations of one micro-batch at a time and compute them twice: the same gradient, for a
    global batch that would not fit (GradCache)."""
    accumulate: Count = 1
    """Global batches whose gradients one optimizer step averages."""
    max_length: Annotated[int, Field(ge=4)] = 32
    """Tokens of a sentence; the rest is cut."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Arithmetic of the encoder; parameters and loss stay in float32. float16 needs `deepspeed`, which
    scales the loss."""
    deepspeed: DeepSpeedConfig | None = None
    """null: plain torch, every worker with a whole copy of the optimizer."""
    dev: str | None = None
    """TSV that picks the best checkpoint: (score, sentence1, sentence2) or (anchor, positive, negative);
    unset: the last checkpoint is kept."""
    evaluate_every: Count = 25
    """Steps between two dev evaluations; needs `dev`."""
    patience: Count | None = None
    """Stop after so many dev evaluations without a better one; needs `dev`; unset: never."""
    workers: Count = 1
    """Ray Train workers; the global batch is divided among them."""
    min_workers: Count | None = None
    """Start with as few as this when not all can be had; unset: wait for all."""
    cpus_per_worker: Annotated[float, Field(ge=0)] = 1
    """CPUs Ray reserves for a worker, and threads it computes with; 0 where the cluster's GPU nodes offer no
    CPU."""
    gpus_per_worker: Annotated[float, Field(ge=0)] = 0
    """GPUs Ray reserves for a worker."""
    nodes: dict[str, str] = {}
    """Ray labels of the nodes that workers may run on; empty: any."""
    checkpoint_every_s: Annotated[float, Field(ge=0)] = 60.0
    """Seconds between two checkpoints: what a lost machine costs at most."""
    max_restarts: Annotated[int, Field(ge=0)] = 5
    """How often lost workers are replaced before the job gives up."""
    tensorboard: bool = True
    """Write event files for TensorBoard beside the log."""
    mlflow: str | None = None
    """Tracking URI of an MLflow server that also gets the figures; needs the mlflow extra."""

    @model_validator(mode="after")
    def _consistent(self) -> "TrainConfig":
        if self.objective not in ("masked_infonce", "multicsr_reference") and self.mask is not None:
            raise ValueError(f"mask has no effect with objective: {self.objective}; set train.mask to null")
        if self.objective == "multicsr_reference" and self.mask is None:
            raise ValueError("objective: multicsr_reference needs a mask")
        if self.objective == "claif" and "temperature" in self.model_fields_set:
            raise ValueError("temperature has no effect with objective: claif")
        if self.objective == "claif" and "gather" in self.model_fields_set:
            raise ValueError("gather has no effect with objective: claif, which has no in-batch negatives")
        if self.steps is not None and "epochs" in self.model_fields_set:
            raise ValueError("epochs has no effect with steps; give one of the two")
        for name in ("evaluate_every", "patience"):
            if self.dev is None and name in self.model_fields_set and getattr(self, name) is not None:
                raise ValueError(f"{name} has no effect without dev")
        return self

    @model_validator(mode="after")
    def _work_can_be_divided(self) -> "TrainConfig":
        if self.cpus_per_worker == 0 == self.gpus_per_worker:
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
    """What the trained encoder is measured on."""

    data: list[str] = []
    """TSV files or directories of them; the kind of task follows from the columns."""
    baseline: bool = True
    """Also measure the encoder as it was before training."""
    batch_size: Count = 128
    """Sentences encoded at once."""


class RefreshConfig(Section):
    """What a night does with what changed."""

    retrain_share: Fraction = 0.02
    """Train when at least this share of the curated triplets differs from what the model was trained on."""
    start: Literal["scratch", "last"] = "scratch"
    """Train from `train.encoder`, or go on from the model of the current version."""
    tolerance: Annotated[float, Field(ge=0)] = 0.5
    """Points by which a metric of `evaluate.data` may fall; the model before stays when one falls further."""
    tolerances: dict[str, Annotated[float, Field(ge=0)]] = {}
    """The same for single tasks, by name."""
    price_per_gpu_hour: Annotated[float, Field(ge=0)] = 0.0
    """For the cost in the history, in whatever currency."""


class S3Config(Section):
    """How buckets are reached. Credentials are no setting: they come from the standard AWS chain."""

    endpoint: str | None = None
    """URL of a server that is not AWS, such as http://minio:9000; unset: AWS, or AWS_ENDPOINT_URL."""
    region: str | None = None
    """Unset: as the AWS chain says."""
    encryption: Literal["AES256", "aws:kms"] | None = None
    """Server-side encryption of what is written; unset: as the bucket says."""
    kms_key: str | None = None
    """Key of `aws:kms`; unset: the account's."""
    requester_pays: bool = False
    """The reader pays for requests to the bucket."""
    read_timeout_s: Annotated[float, Field(gt=0)] = 30.0
    """Silence of the server after which a request is made again."""

    @model_validator(mode="after")
    def _consistent(self) -> "S3Config":
        if self.kms_key is not None and self.encryption != "aws:kms":
            raise ValueError("kms_key has no effect without encryption: aws:kms")
        if self.endpoint is not None and not self.endpoint.startswith(("http://", "https://")):
            raise ValueError("endpoint begins with http:// or https://")
        return self


class Config(Section):
    """One run: sentences in, a measured encoder out."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """Name of the run, shown in progress, manifests and the report."""
    store: str
    """Where everything the run makes goes: a directory, a file:// URI, or s3://bucket/prefix."""
    s3: S3Config = S3Config()
    """How buckets are reached."""
    lease_s: Annotated[float, Field(ge=1)] = 60.0
    """Silence after which the job that holds the store counts as dead; another one may then take it over."""
    seed: int = 42
    """Draws prompts, samples, batches and dropout."""
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
