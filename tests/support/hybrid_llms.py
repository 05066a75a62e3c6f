"""Small random decoders that mix attention with linear attention, state spaces or convolutions."""

import torch
import transformers

_SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
    "pad_token_id": 0,
}
_TWO = {"num_hidden_layers": 2, "layer_types": ["linear_attention", "full_attention"]}
_DELTA = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "head_dim": 8,
}
_MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 16, "mamba_d_conv": 4, "mamba_expand": 2}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}

HYBRIDS = {
    "Qwen3NextForCausalLM": (
        "Qwen3NextConfig",
        _TWO | _DELTA | _EXPERTS | {"shared_expert_intermediate_size": 32},
    ),
    "Qwen3_5ForCausalLM": ("Qwen3_5TextConfig", _TWO | _DELTA),
    "Lfm2ForCausalLM": ("Lfm2Config", {"num_hidden_layers": 2, "layer_types": ["conv", "full_attention"]}),
    "JambaForCausalLM": (
        "JambaConfig",
        {"num_hidden_layers": 2, "attn_layer_period": 2, "attn_layer_offset": 1, "use_mamba_kernels": False}
        | {"num_experts": 2, "num_experts_per_tok": 1, "mamba_d_state": 8, "mamba_dt_rank": 4},
    ),
    "GraniteMoeHybridForCausalLM": (
        "GraniteMoeHybridConfig",
        _MAMBA
        | {"num_hidden_layers": 2, "layer_types": ["mamba", "attention"], "num_local_experts": 2}
        | {"num_experts_per_tok": 1, "shared_intermediate_size": 32},
    ),
    "FalconH1ForCausalLM": (
        "FalconH1Config",
        _MAMBA | {"num_hidden_layers": 2, "mamba_d_ssm": 64, "head_dim": 8, "mamba_n_groups": 1},
    ),
    "BambaForCausalLM": ("BambaConfig", _MAMBA | {"num_hidden_layers": 2, "attn_layer_indices": [1]}),
    "Zamba2ForCausalLM": (
        "Zamba2Config",
        {"num_hidden_layers": 2, "layers_block_type": ["mamba", "hybrid"], "mamba_d_state": 16}
        | {
            "mamba_expand": 2,
            "mamba_headdim": 8,
            "n_mamba_heads": 8,
            "mamba_ngroups": 1,
            "attention_head_dim": 16,
        },
    ),
    "OlmoHybridForCausalLM": (
        "OlmoHybridConfig",
        _TWO | {"linear_num_key_heads": 2, "linear_num_value_heads": 2},
    ),
    "InklingForCausalLM": (
        "InklingTextConfig",
        {"num_hidden_layers": 2, "layer_types": ["hybrid_sliding", "hybrid"], "sliding_window_size": 24}
        | {"head_dim": 8, "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
    ),
}
"""Configuration class and its arguments, by architecture."""


def make_hybrid(architecture: str) -> transformers.PreTrainedModel:
    """A small random model of this architecture."""
    name, settings = HYBRIDS[architecture]
    torch.manual_seed(5)
    model = getattr(transformers, architecture)(getattr(transformers, name)(**_SIZES | settings))
    model.generation_config.eos_token_id = list(range(1, 64, 9))
    return model.eval()
