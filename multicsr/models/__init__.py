"""Pretrained models: lookup, loading, pooling, and the model card of a trained one."""
