"""Settings of the LLM."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from multicsr.config.section import Count, Section
from multicsr.messages.endpoint_address import check_address

_OF_ENDPOINTS = (
    *("batch", "concurrency", "timeout_s", "patience_s", "max_tokens", "max_cost"),
    *("price_per_million_prompt_tokens", "price_per_million_completion_tokens"),
)
"""Settings that have an effect with `engine: openai` only."""


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
    decoder-only models at scale; `openai` uses any OpenAI-compatible endpoint, and decodes pairs at those
    that offer them (`multicsr serve`); `fake` is deterministic and for tests."""
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
    batch: bool = False
    """Ask the endpoint through its batch API, which costs half at most providers and may take a day. All
    requests of a shard (`generate.rows_per_shard`) are one batch. A run that is started again follows the
    batches of the one before."""
    concurrency: Annotated[int, Field(ge=1, le=1024)] = 16
    """Largest number of concurrent requests of each actor (`generate.actors`) to an endpoint. An actor begins
    with few, sends more with every answer, and fewer while the endpoint is busy. With `batch`: number of
    shards whose batches an actor waits for at the same time."""
    timeout_s: Annotated[float, Field(gt=0, le=86_400)] = 300.0
    """Timeout of one request to an endpoint in seconds; after it the request is repeated."""
    patience_s: Annotated[float, Field(ge=0, le=86_400)] = 600.0
    """Time in seconds for which requests are repeated if the endpoint is busy, failing or unreachable. After
    it the job ends; answers received until then are kept."""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """Largest number of tokens, of prompts and answers together, that one run may cost at an endpoint. Each
    actor has an equal share. The run ends before a request that could exceed it; the next run goes on. Unset:
    no limit."""
    max_cost: Annotated[float, Field(gt=0)] | None = None
    """Largest cost of one run at an endpoint, in the currency of the two prices; as `max_tokens`."""
    price_per_million_prompt_tokens: Annotated[float, Field(ge=0)] | None = None
    """Price of a million tokens of prompts at the endpoint, for `max_cost` and the cost in the report."""
    price_per_million_completion_tokens: Annotated[float, Field(ge=0)] | None = None
    """Price of a million tokens that the endpoint writes."""
    vllm: VllmConfig = VllmConfig()
    """Settings of the `vllm` engine."""

    def with_share_of(self, actors: int) -> "LLMConfig":
        """Return the settings of one of some actors, which has an equal share of the budget."""
        tokens = None if self.max_tokens is None else self.max_tokens // actors
        cost = None if self.max_cost is None else self.max_cost / actors
        return self.model_copy(update={"max_tokens": tokens, "max_cost": cost})

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
        for name in _OF_ENDPOINTS:
            if self.engine != "openai" and name in self.model_fields_set:
                raise ValueError(f"{name} has no effect with engine: {self.engine}; it is for engine: openai")
        prices = (self.price_per_million_prompt_tokens, self.price_per_million_completion_tokens)
        if (prices[0] is None) != (prices[1] is None):
            raise ValueError(
                "price_per_million_prompt_tokens and price_per_million_completion_tokens need each other"
            )
        if self.max_cost is not None and not any(prices):
            raise ValueError(
                "max_cost needs price_per_million_prompt_tokens and price_per_million_completion_tokens"
            )
        return self

    @model_validator(mode="after")
    def _effects(self) -> "LLMConfig":
        if self.template_args and (self.engine == "fake" or self.chat_template is False):
            cause = "chat_template: false" if self.chat_template is False else "engine: fake"
            raise ValueError(f"template_args has no effect with {cause}")
        if self.engine == "openai" and "dtype" in self.model_fields_set:
            raise ValueError("dtype has no effect with engine: openai; the endpoint decides it")
        if self.engine != "vllm" and "vllm" in self.model_fields_set:
            raise ValueError(f"the section vllm has no effect with engine: {self.engine}")
        if self.engine == "vllm" and self.device != "auto":
            raise ValueError(
                "device has no effect with engine: vllm; the installed vLLM is for GPU or for CPU"
            )
        return self
