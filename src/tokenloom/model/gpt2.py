"""GPT-2 as published, and as the book builds it: learned positions, pre-LayerNorm, GELU.

Sources: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners"; the book, chapter 4. The modules
bear the names of OpenAI's checkpoints, so that weights move between the two by name.
"""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tokenloom.config import ModelConfig
from tokenloom.model.attention import KVCache, attend
from tokenloom.model.dropout import Dropout
from tokenloom.model.head import head_loss

# B batch, T tokens, C width (n_embd), H heads, D size of a head, V vocabulary.


class Attention(nn.Module):
    """Multi-head causal self-attention with one projection for queries, keys and values."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        C = config.n_embd
        self.n_head = config.n_head
        self.dropout = config.dropout
        self.c_attn = _linear(C, 3 * C, bias=config.qkv_bias)
        self.c_proj = _linear(C, C)

    def forward(self, x: Tensor, cache: KVCache | None, layer: int) -> Tensor:
        q, k, v = self.c_attn(x).chunk(3, dim=-1)  # each (B, T, C)
        q, k, v = (y.unflatten(-1, (self.n_head, -1)).transpose(1, 2) for y in (q, k, v))  # each (B, H, T, D)
        y = attend(q, k, v, cache=cache, layer=layer, dropout=self.dropout if self.training else 0.0)
        return self.c_proj(y)  # (B, T, C)


class MLP(nn.Module):
    """Two layers with a GELU (its tanh form) between them, four times as wide as the stream."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        C = config.n_embd
        self.c_fc = _linear(C, 4 * C)
        self.c_proj = _linear(4 * C, C)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(F.gelu(self.c_fc(x), approximate="tanh"))  # (B, T, C)


class Block(nn.Module):
    """Attention, then the MLP, each on a normalised copy of the stream and added back to it."""

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


class GPT2(nn.Module):
    """GPT-2: ids (B, T) -> logits (B, T, V).

    Weights are drawn from `generator`, or from torch's default one. With `config.init == "book"` they are, draw for
    draw, those of the book's classes under the same seed. Raises `ConfigError` if `config.vocab_size` is not set.
    """

    def __init__(self, config: ModelConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        V, C = config.vocabulary, config.n_embd
        self.wte = _embedding(V, C)
        self.wpe = _embedding(config.block_size, C)
        self.drop = Dropout(config.dropout)
        self.h = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        # Recompute the activations of each block in the backward pass (arXiv:1604.06174). A flag instead of torch's
        # checkpoint_wrapper, which adds a prefix to the parameter names by which optimizer state is saved.
        self.activation_checkpointing = False
        self.ln_f = nn.LayerNorm(C)
        self.lm_head = _linear(C, V, bias=False)
        if config.tie_embeddings:
            self.lm_head.weight = self.wte.weight
        if not self.wte.weight.is_meta:
            {"gpt2": _init_weights_as_gpt2, "book": _init_weights_as_book}[config.init](self, generator)

    def forward(self, ids: Tensor, cache: KVCache | None = None) -> Tensor:
        """Logits (B, T, V) of the token after each of ids (B, T); with a cache, ids are the tokens not yet seen."""
        return self.lm_head(self.hidden(ids, cache))

    def loss(self, ids: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
        """Cross-entropy in nats of targets (B, T) after ids (B, T); targets of -100 do not count.

        `reduction` "mean" and "sum" give a scalar, "none" gives (B·T,).
        """
        return head_loss(self.hidden(ids), self.lm_head.weight, targets, reduction=reduction)

    def hidden(self, ids: Tensor, cache: KVCache | None = None) -> Tensor:
        """The stream after the last block, normalised: (B, T, C)."""
        T = ids.shape[1]
        assert self.config.block_size >= T, f"{T} tokens do not fit a context of {self.config.block_size}"
        positions = torch.arange(T, device=ids.device) if cache is None else cache.positions(T)
        x = self.drop(self.wte(ids) + self.wpe(positions))  # (B, T, C)
        for layer, block in enumerate(self.h):
            if self.activation_checkpointing:
                x = checkpoint(block, x, cache, layer, use_reentrant=False)
            else:
                x = block(x, cache, layer)
        if cache is not None:
            cache.advance(ids)
        return self.ln_f(x)

    def new_cache(self, batch_size: int) -> KVCache:
        return KVCache(self.config, batch_size, self.wte.weight.device, self.wte.weight.dtype)


# Weights are drawn in one place, below: the layers are made empty, for drawing here too would move the random stream.


def _linear(inputs: int, outputs: int, bias: bool = True) -> nn.Linear:
    return nn.Linear(inputs, outputs, bias=bias, device="meta").to_empty(device=torch.get_default_device())


def _embedding(rows: int, width: int) -> nn.Embedding:
    return nn.Embedding.from_pretrained(torch.empty(rows, width), freeze=False)


def _init_weights_as_gpt2(model: GPT2, generator: torch.Generator | None) -> None:
    """Normal with deviation 0.02; projections into the stream smaller, for their sum grows with the depth."""
    into_stream = 0.02 / math.sqrt(2 * model.config.n_layer)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        elif parameter.ndim == 2:
            deviation = into_stream if name.endswith("c_proj.weight") else 0.02
            nn.init.normal_(parameter, std=deviation, generator=generator)


def _init_weights_as_book(model: GPT2, generator: torch.Generator | None) -> None:
    """torch's defaults in the order in which the book's constructors draw them (chapter 4)."""
    C = model.config.n_embd
    nn.init.normal_(model.wte.weight, generator=generator)
    nn.init.normal_(model.wpe.weight, generator=generator)
    for block in cast("list[Block]", model.h):
        qkv = block.attn.c_attn
        for i in range(3):  # the book has three layers here, each drawn whole before the next
            rows = slice(i * C, (i + 1) * C)
            _init_linear(qkv.weight[rows], None if qkv.bias is None else qkv.bias[rows], generator)
        for linear in (block.attn.c_proj, block.mlp.c_fc, block.mlp.c_proj):
            _init_linear(linear.weight, linear.bias, generator)
    if not model.config.tie_embeddings:
        _init_linear(model.lm_head.weight, None, generator)


def _init_linear(weight: Tensor, bias: Tensor | None, generator: torch.Generator | None) -> None:
    """The default initialisation of nn.Linear."""
    with torch.no_grad():
        nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=generator)
        if bias is not None:
            bound = 1 / math.sqrt(weight.shape[1])
            nn.init.uniform_(bias, -bound, bound, generator=generator)
