"""GPT-2 as published, and as the book builds it: learned positions, pre-LayerNorm, GELU.

Sources: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners"; the book, chapter 4. Modules are
named as in OpenAI's checkpoints, so that weights are matched by name.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn

from tokenloom.config import ModelConfig
from tokenloom.model.attention import attend
from tokenloom.model.dropout import Dropout
from tokenloom.model.kv_cache import KVCache
from tokenloom.model.language_model import GPT
from tokenloom.model.layers import embedding, linear

# B batch, T tokens, C width (n_embd), H heads, D size of a head, V vocabulary.


class Attention(nn.Module):
    """Multi-head causal self-attention with one projection for queries, keys and values."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        C = config.n_embd
        self.n_head = config.n_head
        self.dropout = config.dropout
        self.c_attn = linear(C, 3 * C, bias=config.qkv_bias)
        self.c_proj = linear(C, C)

    def forward(self, x: Tensor, cache: KVCache | None, layer: int) -> Tensor:
        q, k, v = self.project(x, cache)
        y = attend(q, k, v, cache=cache, layer=layer, dropout=self.dropout if self.training else 0.0)
        return self.c_proj(y)  # (B, T, C)

    def project(self, x: Tensor, cache: KVCache | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of every head, each (B, H, T, D)."""
        qkv = self.c_attn(x)  # (B, T, 3·C)
        if cache is not None:
            qkv = qkv.to(cache.dtype)  # once, instead of each of the three
        q, k, v = qkv.chunk(3, dim=-1)  # each (B, T, C)
        q, k, v = (y.unflatten(-1, (self.n_head, -1)).transpose(1, 2) for y in (q, k, v))
        return q, k, v


class MLP(nn.Module):
    """Two layers with a GELU between them, four times as wide as the residual stream."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        C = config.n_embd
        self.c_fc = linear(C, 4 * C)
        self.gelu = nn.GELU(approximate="tanh" if config.gelu == "tanh" else "none")
        self.c_proj = linear(4 * C, C)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(self.gelu(self.c_fc(x)))  # (B, T, C)


class Block(nn.Module):
    """Attention, then the MLP; each reads the normalized residual stream and adds its output to it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd)
        self.attn = Attention(config)
        self.ln_2 = nn.LayerNorm(config.n_embd)
        self.mlp = MLP(config)
        self.drop = Dropout(config.dropout)

    def forward(self, x: Tensor, cache: KVCache | None, layer: int) -> Tensor:
        x = x + self.drop(self.attn(self.ln_1(x), cache, layer))
        return x + self.drop(self.mlp(self.ln_2(x)))  # (B, T, C)


class GPT2(GPT):
    """GPT-2: ids (B, T) -> logits (B, T, V).

    Weights are initialized from `generator`, or from torch's default generator. With `config.init == "book"` they are
    identical to those of the book's classes under the same seed. Raises `ConfigError` if `config.vocab_size` is None.
    """

    def __init__(self, config: ModelConfig, generator: torch.Generator | None = None) -> None:
        super().__init__(config)
        V, C = config.vocabulary, config.n_embd
        self.wte = embedding(V, C)
        self.wpe = embedding(config.block_size, C)
        self.drop = Dropout(config.dropout)
        self.h = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.ln_f = nn.LayerNorm(C)
        self.lm_head = linear(C, V, bias=False)
        if config.tie_embeddings:
            self.lm_head.weight = self.wte.weight
        if not self.wte.weight.is_meta:
            self.init_weights(generator)

    def forward(self, ids: Tensor, cache: KVCache | None = None) -> Tensor:
        """Logits (B, T, V) of the token after each of ids (B, T); with a cache, ids continue its first B rows."""
        return self.lm_head(self.hidden(ids, cache))

    def hidden(self, ids: Tensor, cache: KVCache | None = None) -> Tensor:
        """The residual stream after the last block, normalized: (B, T, C)."""
        x = self.drop(self.wte(ids) + self.wpe(self._positions(ids, cache)))  # (B, T, C)
        for layer, block in enumerate(self.h):
            # Without a cache the layer is not used, and a constant lets all blocks share one compiled function.
            x = self._run_block(block, x, cache, 0 if cache is None else layer)
        if cache is not None:
            cache.advance(*ids.shape)
        return self.ln_f(x)

    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """The initial weights that `config.init` selects."""
        {"gpt2": _init_gpt2_weights, "book": _init_book_weights}[self.config.init](self, generator)


def _init_gpt2_weights(model: GPT2, generator: torch.Generator | None) -> None:
    """Normal with std 0.02; smaller for projections into the residual stream, to which every block adds."""
    residual_std = 0.02 / math.sqrt(2 * model.config.n_layer)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        elif parameter.ndim == 2:
            std = residual_std if name.endswith("c_proj.weight") else 0.02
            nn.init.normal_(parameter, std=std, generator=generator)


def _init_book_weights(model: GPT2, generator: torch.Generator | None) -> None:
    """torch's default initialization, in the order in which the book's classes create their layers (chapter 4)."""
    C = model.config.n_embd
    nn.init.normal_(model.wte.weight, generator=generator)
    nn.init.normal_(model.wpe.weight, generator=generator)
    for block in cast("Iterable[Block]", model.h):
        qkv = block.attn.c_attn
        for i in range(3):  # three separate layers in the book
            rows = slice(i * C, (i + 1) * C)
            _init_linear(qkv.weight[rows], qkv.bias[rows] if model.config.qkv_bias else None, generator)
        for layer in (block.attn.c_proj, block.mlp.c_fc, block.mlp.c_proj):
            _init_linear(layer.weight, layer.bias, generator)
    if not model.config.tie_embeddings:
        _init_linear(model.lm_head.weight, None, generator)


def _init_linear(weight: Tensor, bias: Tensor | None, generator: torch.Generator | None) -> None:
    """The default initialization of nn.Linear."""
    with torch.no_grad():
        nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=generator)
        if bias is not None:
            bound = 1 / math.sqrt(weight.shape[1])
            nn.init.uniform_(bias, -bound, bound, generator=generator)
