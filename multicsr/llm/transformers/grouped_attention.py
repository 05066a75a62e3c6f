"""Attention of one new token where several heads of queries share keys and values.

transformers repeats keys and values for every head, which copies the whole cache in each step. The heads that
share them are queries of one attention here; the result is the same but for rounding.
"""

from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

_NAME = "multicsr_grouped"
"""Name of this attention in transformers."""


def group_attention(model: PreTrainedModel) -> None:
    """Let a model use this attention, if it uses torch's now."""
    if model.config._attn_implementation == "sdpa" and model._can_set_attn_implementation():
        AttentionInterface.register(_NAME, attend)
        AttentionMaskInterface.register(_NAME, sdpa_mask)
        model.set_attn_implementation(_NAME)


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **options: object,
) -> tuple[Tensor, None]:
    """Compute the attention of a layer, as an attention function of transformers.

    Args:
        module: the layer.
        query: [R, H, Q, D].
        key: [R, K, T, D], where H is a multiple of K.
        value: as `key`.
        attention_mask: what each query sees, [R, 1, Q, T]; None: everything, or what is not later.
        scaling: factor of the products of queries and keys; None: one by the square root of D.
        options: further arguments of transformers.

    Returns:
        [R, Q, H, D], and None for the weights.
    """
    num_rows, num_heads, num_queries, _ = query.shape
    num_groups = key.shape[1]
    of_each_head = attention_mask is not None and attention_mask.shape[1] != 1
    is_usual = not options.get("dropout") and options.get("position_bias") is None and not of_each_head
    if num_queries > 1 or num_groups == num_heads or not is_usual:
        attended, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **options
        )
        return attended, None
    grouped = query.reshape(num_rows, num_groups, num_heads // num_groups, -1)
    attended = nn.functional.scaled_dot_product_attention(
        grouped, key, value, attn_mask=attention_mask, scale=scaling
    )
    return attended.reshape(num_rows, 1, num_heads, -1), None
