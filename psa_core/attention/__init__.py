"""Pyramid sparse attention on plain tensors."""

from .call import PSAAttention, attention_from_levels, pyramid_sparse_attention
from .steps import AttentionInfo

__all__ = ["AttentionInfo", "PSAAttention", "attention_from_levels", "pyramid_sparse_attention"]
