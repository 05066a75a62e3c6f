"""Settings that decide the results of the LLM: they are the key of the LLM cache and enter the fingerprint.

Adding a setting must not change the key by itself, because every row would have to be paid for again; include
one that decides the results only where it differs from its default.
"""

from pydantic import JsonValue

from multicsr.config import Config
from multicsr.errors import ConfigError
from multicsr.llm.label_tree import LABEL_SPELLINGS
from multicsr.models.llm_weights import digest_llm
from multicsr.models.resolve import digest_model, identify_weights
from multicsr.prompts import PromptSet, load_prompts
from multicsr.prompts.demonstrations import DEMONSTRATION_LAYOUT
from multicsr.stages.generate.hypothesis_rules import HYPOTHESIS_RULES
from multicsr.stages.generate.llm_cache import ADDED
from multicsr.stages.generate.retrieval.encoder import retriever_settings
from multicsr.stages.generate.retrieval.labelled import LabelledPremises, read_labelled_premises
from multicsr.stages.generate.rules_of_packages import deciding_rules
from multicsr.stages.score.by_package import deciding_package
from multicsr.stages.score.expected import EXPECTATION
from multicsr.stages.score.parse import HIGHEST, OTHER_SCALES, PARSER
from multicsr.stages.score.scorer import MODEL_SCORES, stored_name
from multicsr.storage.manifest import Manifest

_LLM = {"engine", "model", "revision", "dtype", "chat_template"}
_LLM_IF_SET = {"template_args"}
"""Settings of the LLM that are part of the key only where they differ from their default."""
_VLLM = {"max_model_len", "tensor_parallel", "quantization", "lora"}
_DECODING = {"omega", "max_new_tokens", "min_new_tokens", "bad_words", "temperature", "top_p"}
_SCORING = {"method", "max_new_tokens"}
"""Settings that decide what the LLM writes, by section."""
_SHOWN = {"count", "similarity"}
"""Settings of demonstrations that are part of the key where there are any. Files and encoder count by their
content."""
_SCORING_IF_SET = {"forms"}
"""Settings of scoring that are part of the key only where they differ from their default."""


def result_settings(config: Config, labelled: LabelledPremises | None = None) -> dict[str, JsonValue]:
    """Return the settings that decide the results of the LLM for given sentences: the key of the cache.

    Args:
        config: the configuration.
        labelled: the labelled premises that are shown; None: they are read, if there are any, with leaks.
    """
    return {"writing": writing_settings(config, labelled), "scoring": scoring_settings(config)}


def writing_settings(config: Config, labelled: LabelledPremises | None = None) -> dict[str, JsonValue]:
    """Return every setting that decides the hypotheses: equal settings give equal hypotheses (invariant 5).

    A local model is represented by a digest of its files, a Hugging Face id by its revision, labelled files
    by the triplets that may be shown.

    Args:
        config: the configuration.
        labelled: see `result_settings`.
    """
    settings: dict[str, JsonValue] = {
        "llm": {
            **config.llm.model_dump(mode="json", include={**dict.fromkeys(_LLM, True), "vllm": _VLLM}),
            **config.llm.model_dump(mode="json", include=_LLM_IF_SET, exclude_defaults=True),
        },
        "generate": config.generate.model_dump(mode="json", include=_DECODING),
        "prompts": load_prompts(config.generate.prompts).writing_digest(),
        "seed": config.seed,
    }
    if config.llm.loads_weights:
        settings["weights"] = digest_llm(config.llm)
    if config.llm.vllm.lora is not None:
        settings["lora"] = digest_model(config.llm.vllm.lora)
    if (shown := config.generate.demonstrations) is not None:
        labelled = labelled or read_labelled_premises(shown, config.ingest, None, drop_leaks=False)
        settings["demonstrations"] = {
            **shown.model_dump(mode="json", include=_SHOWN),
            "triplets": labelled.digest(),
            "encoder": retriever_settings(shown.retriever(config.train)),
            "layout": DEMONSTRATION_LAYOUT,
        }
    return settings


def scoring_settings(config: Config) -> dict[str, JsonValue]:
    """Return the settings that decide the scores of given hypotheses, besides the model that wrote them."""
    method = stored_name(config.score.method)
    added = deciding_rules(config.generate.reject_reasons)
    rules_of_texts: dict[str, JsonValue] = {
        "hypotheses": HYPOTHESIS_RULES,
        **({ADDED: [*added]} if added else {}),
    }
    if config.score.uses_encoder:
        name, setting = config.scoring_encoder
        pooled = {} if config.scoring_pooling is None else {"pooling": config.scoring_pooling}
        return {
            "score": {"method": method, "prompt": config.scoring_prompt, **pooled},
            "weights": identify_weights(name, setting),
            "rules": {**rules_of_texts, method: MODEL_SCORES},
        }
    if not config.score.uses_llm:
        return {"score": {"method": method, **deciding_package(config.score)}, "rules": rules_of_texts}
    rules: dict[str, JsonValue] = {**rules_of_texts, "stated": PARSER, "expected": EXPECTATION}
    is_exact = config.llm.loads_weights or (config.llm.engine == "openai" and config.generate.omega > 0)
    if is_exact and config.score.reads_labels:
        rules["labels"] = LABEL_SPELLINGS  # other scores stay valid: those of an endpoint were paid for
    prompts = load_prompts(config.generate.prompts)
    if config.score.reads_numbers and prompts.score_scale != HIGHEST:
        rules["scale"] = OTHER_SCALES
    settings: dict[str, JsonValue] = {
        "score": {
            **config.score.model_dump(mode="json", include=_SCORING),
            "method": method,
            **config.score.model_dump(mode="json", include=_SCORING_IF_SET, exclude_defaults=True),
        },
        "prompts": prompts.scoring_digest(),
        "rules": rules,
    }
    if (llm := config.scoring_llm) != config.llm:
        settings["llm"] = {"model": llm.model, "weights": digest_llm(llm) if llm.loads_weights else None}
    return settings


def max_demonstrations(scored: Manifest) -> int:
    """Return the maximum number of demonstrations in a prompt of these rows."""
    writing = scored.settings.get("writing")
    shown = writing.get("demonstrations") if isinstance(writing, dict) else None
    return int(str(shown["count"])) if isinstance(shown, dict) else 0


def prompts_of(scored: Manifest, name: str) -> PromptSet | None:
    """Return the prompt set of that name if the rows were written with the same prompts, or else None.

    Args:
        scored: manifest of the rows.
        name: name of the set in the rows, such as `fewshot`, or `fewshot:tl` for those of a language.
    """
    name, _, language = name.partition(":")
    try:
        prompts = load_prompts(name)
    except ConfigError:
        return None
    writing = scored.settings.get("writing")
    is_same = isinstance(writing, dict) and writing.get("prompts") == prompts.writing_digest()
    return prompts.for_language(language) if is_same else None
