"""The tiny model's tokenizer and text encoder, in the form that ``WanPipeline`` asks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from .vocabulary import SIZE, SLOTS, TEXT_DIM, indices, read_prompt


class Tokens(NamedTuple):
    """Numbers of words and a mask of ones, both ``[prompts, tokens]``."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor


class Encoded(NamedTuple):
    """Embeddings ``[prompts, tokens, 64]``."""

    last_hidden_state: torch.Tensor


class PromptTokenizer:
    """A prompt's eight words, again and again until the sequence is full.

    Cross-attention to several copies of each word is the same as to one, whatever their number.
    """

    def __call__(self, prompts: Sequence[str], *, max_length: int, **_options: object) -> Tokens:
        """Tokens of prompts; other options that tokenizers take change nothing.

        Raises:
            ConfigError: a prompt has a word that the model does not know.
        """
        copies = max(1, max_length // len(SLOTS))
        numbers = torch.tensor([indices(read_prompt(prompt)) * copies for prompt in prompts])
        return Tokens(numbers, torch.ones_like(numbers))


class PromptEncoder(torch.nn.Module):
    """One number that is not zero for every word: there is nothing to learn."""

    def __init__(self) -> None:
        super().__init__()
        self.table: torch.Tensor
        self.register_buffer("table", SIZE * torch.eye(TEXT_DIM))

    @property
    def dtype(self) -> torch.dtype:
        """Of the embeddings."""
        return self.table.dtype

    @property
    def device(self) -> torch.device:
        """Of the embeddings."""
        return self.table.device

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> Encoded:
        """Embeddings of tokens."""
        return Encoded(self.table[input_ids])
