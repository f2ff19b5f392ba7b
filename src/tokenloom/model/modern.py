"""A modern small GPT: rotary positions, RMSNorm, ReLU², bigram and value embeddings, skip connections to the input.

Sources: rotary positions arXiv:2104.09864; RMSNorm arXiv:1910.07467; query and key normalization arXiv:2010.04245;
ReLU² arXiv:2109.08668; logit softcap arXiv:2408.00118; bigram embeddings, value embeddings and the skip connections
from the embedding to every block: the GPT speedruns modded-nanogpt and nanochat.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokenloom.config import ModelConfig
from tokenloom.model.attention import KVCache, attend
from tokenloom.model.dropout import Dropout
from tokenloom.model.head import apply_softcap
from tokenloom.model.language_model import GPT
from tokenloom.model.layers import embedding, linear

# B batch, T tokens, C width (n_embd), H query heads, G key and value heads, D size of a head, V vocabulary.

ROTARY_BASE = 10_000.0
PAIR_PRIME = 1_000_003  # spreads consecutive ids over the bigram table


class Rotary(nn.Module):
    """Angles of rotary positions: with them, the product of a query and a key depends on their distance alone."""

    cos: Tensor
    sin: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        # On the CPU even if the model is on "meta": these buffers are not saved, so no checkpoint would fill them.
        frequencies = ROTARY_BASE ** -torch.linspace(0, 1, config.head_dim // 2, device="cpu")
        angles = torch.outer(torch.arange(config.block_size, device="cpu"), frequencies)  # (block_size, D/2)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine (…, 1, T, D/2) for positions (…, T)."""
        return self.cos[positions].unsqueeze(-3), self.sin[positions].unsqueeze(-3)


class Attention(nn.Module):
    """Causal self-attention with normalized, rotated queries and keys."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        C, D = config.n_embd, config.head_dim
        self.n_head, self.kv_heads, self.dropout = config.n_head, config.kv_heads, config.dropout
        self.c_q = linear(C, C, bias=False)
        self.c_k = linear(C, self.kv_heads * D, bias=False)
        self.c_v = linear(C, self.kv_heads * D, bias=False)
        self.c_proj = linear(C, C, bias=False)

    def forward(
        self,
        x: Tensor,
        angles: tuple[Tensor, Tensor],
        value_embedding: Tensor | None,
        cache: KVCache | None,
        layer: int,
    ) -> Tensor:
        q = self.c_q(x).unflatten(-1, (self.n_head, -1)).transpose(1, 2)  # (B, H, T, D)
        k = self.c_k(x).unflatten(-1, (self.kv_heads, -1)).transpose(1, 2)  # (B, G, T, D)
        v = self.c_v(x) if value_embedding is None else self.c_v(x) + value_embedding
        v = v.unflatten(-1, (self.kv_heads, -1)).transpose(1, 2)  # (B, G, T, D)
        q, k = _rotate(_norm(q), angles), _rotate(_norm(k), angles)
        y = attend(q, k, v, cache=cache, layer=layer, dropout=self.dropout if self.training else 0.0)
        return self.c_proj(y)  # (B, T, C)


class MLP(nn.Module):
    """Two layers with a squared ReLU between them, four times as wide as the residual stream."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        C = config.n_embd
        self.c_fc = linear(C, 4 * C, bias=False)
        self.c_proj = linear(4 * C, C, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(F.relu(self.c_fc(x)).square())  # (B, T, C)


class Block(nn.Module):
    """A weighted sum of the residual stream and the embedding, then attention and the MLP, each added to it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.empty(2))  # weights of the residual stream x and of the embedding x0
        self.attn = Attention(config)
        self.mlp = MLP(config)
        self.drop = Dropout(config.dropout)

    def forward(
        self,
        x: Tensor,
        x0: Tensor,
        angles: tuple[Tensor, Tensor],
        value_embedding: Tensor | None,
        cache: KVCache | None,
        layer: int,
    ) -> Tensor:
        x = self.mix[0] * x + self.mix[1] * x0
        x = x + self.drop(self.attn(_norm(x), angles, value_embedding, cache, layer))
        return x + self.drop(self.mlp(_norm(x)))  # (B, T, C)


class Modern(GPT):
    """The modern family: ids (B, T) -> logits (B, T, V).

    Weights are initialized from `generator`, or from torch's default generator. Raises `ConfigError` if
    `config.vocab_size` is None.
    """

    def __init__(self, config: ModelConfig, generator: torch.Generator | None = None) -> None:
        super().__init__(config)
        self.softcap = config.softcap
        V, C = config.vocabulary, config.n_embd
        self.wte = embedding(V, C)
        self.pairs = None if config.bigram_buckets is None else embedding(config.bigram_buckets, C)
        self.values = nn.ModuleDict(
            {str(i): embedding(V, config.kv_heads * config.head_dim) for i in _layers_with_values(config)}
        )
        self.rotary = Rotary(config)
        self.drop = Dropout(config.dropout)
        self.h = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.lm_head = linear(C, V, bias=False)
        if config.tie_embeddings:
            self.lm_head.weight = self.wte.weight
        if not self.wte.weight.is_meta:
            self.init_weights(generator)

    def forward(self, ids: Tensor, cache: KVCache | None = None) -> Tensor:
        """Logits (B, T, V) of the token after each of ids (B, T); with a cache, ids continue the cached tokens."""
        return apply_softcap(self.lm_head(self.hidden(ids, cache)), self.softcap)

    def hidden(self, ids: Tensor, cache: KVCache | None = None) -> Tensor:
        """The residual stream after the last block, normalized: (B, T, C)."""
        angles = self.rotary(self._positions(ids, cache))
        x = self.wte(ids)  # (B, T, C)
        if self.pairs is not None:
            x = x + self.pairs(self._pair_ids(ids, cache, self.pairs.num_embeddings))
        x = x0 = self.drop(_norm(x))
        for layer, block in enumerate(self.h):
            value_embedding = self.values[str(layer)](ids) if str(layer) in self.values else None
            x = self._run_block(block, x, x0, angles, value_embedding, cache, layer)
        if cache is not None:
            cache.advance(ids)
        return _norm(x)

    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Zeros for projections into the residual stream and for bigram and value embeddings: blocks start as identity.

        Token embedding and head are normal with std 0.02; all other matrices are uniform with std 1/√inputs.
        """
        for name, parameter in self.named_parameters():
            if name.endswith("mix"):
                with torch.no_grad():
                    parameter.copy_(torch.tensor([1.0, 0.0]))
            elif name.endswith("c_proj.weight") or name.startswith(("pairs", "values")):
                nn.init.zeros_(parameter)
            elif name.startswith(("wte", "lm_head")):
                nn.init.normal_(parameter, std=0.02, generator=generator)
            else:
                bound = math.sqrt(3 / parameter.shape[1])  # std 1/√inputs keeps the variance of the input
                nn.init.uniform_(parameter, -bound, bound, generator=generator)

    @staticmethod
    def _pair_ids(ids: Tensor, cache: KVCache | None, buckets: int) -> Tensor:
        """Row (B, T) of the bigram table for each token and its predecessor, which is -1 at the start of a text."""
        previous = ids.new_full((ids.shape[0], 1), -1) if cache is None else cache.last_ids
        previous = torch.cat([previous, ids[:, :-1]], dim=1)
        return ((previous + 1) * PAIR_PRIME + ids) % buckets


def _layers_with_values(config: ModelConfig) -> range:
    """Every other block, counted back from the last."""
    return range((config.n_layer - 1) % 2, config.n_layer, 2) if config.value_embeddings else range(0)


def _norm(x: Tensor) -> Tensor:
    return F.rms_norm(x, (x.shape[-1],))


def _rotate(x: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate feature pairs (i, i + D/2) of x (B, H, T, D) by their angles."""
    cos, sin = angles
    a, b = x.chunk(2, dim=-1)  # each (B, H, T, D/2)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1).to(x.dtype)
