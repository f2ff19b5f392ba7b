"""A small modern GPT: rotary positions, RMSNorm, ReLU², embedded token pairs, a stream that remembers its start.

Sources: rotary positions arXiv:2104.09864; RMSNorm arXiv:1910.07467; query and key normalisation arXiv:2010.04245;
ReLU² arXiv:2109.08668; capped logits arXiv:2408.00118; the weighted return of the first embedding and the value and
pair embeddings from the public speed runs of small GPTs (modded-nanogpt, nanochat).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tokenloom.config import ModelConfig
from tokenloom.model.attention import KVCache, attend
from tokenloom.model.dropout import Dropout
from tokenloom.model.head import capped, head_loss

# B batch, T tokens, C width (n_embd), H query heads, G key and value heads, D size of a head, V vocabulary.

ROTARY_BASE = 10_000.0
PAIR_PRIME = 1_000_003  # spreads neighbouring ids over the table of pairs


class Rotary(nn.Module):
    """Rotate pairs of features by an angle that grows with the position, so that products depend on distances."""

    cos: Tensor
    sin: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        # On the CPU even where the model is laid out on "meta": they are not saved, so nothing would fill them in.
        frequencies = ROTARY_BASE ** -torch.linspace(0, 1, config.head_dim // 2, device="cpu")
        angles = torch.outer(torch.arange(config.block_size, device="cpu"), frequencies)  # (block_size, D/2)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine (…, 1, T, D/2) for positions (…, T)."""
        return self.cos[positions].unsqueeze(-3), self.sin[positions].unsqueeze(-3)


class Attention(nn.Module):
    """Causal self-attention with normalised, rotated queries and keys."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        C, D = config.n_embd, config.head_dim
        self.n_head, self.kv_heads, self.dropout = config.n_head, config.kv_heads, config.dropout
        self.c_q = _linear(C, C)
        self.c_k = _linear(C, self.kv_heads * D)
        self.c_v = _linear(C, self.kv_heads * D)
        self.c_proj = _linear(C, C)

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
    """Two layers with a squared ReLU between them, four times as wide as the stream."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        C = config.n_embd
        self.c_fc = _linear(C, 4 * C)
        self.c_proj = _linear(4 * C, C)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(F.relu(self.c_fc(x)).square())  # (B, T, C)


class Block(nn.Module):
    """A weighted return of the first embedding, attention, then the MLP, each added to the stream."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.empty(2))  # weights of the stream and of its start
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


class Modern(nn.Module):
    """The modern family: ids (B, T) -> logits (B, T, V).

    Weights are drawn from `generator`, or from torch's default one. Raises `ConfigError` if `config.vocab_size` is not
    set.
    """

    def __init__(self, config: ModelConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        V, C = config.vocabulary, config.n_embd
        self.wte = _embedding(V, C)
        self.pairs = None if config.bigram_buckets is None else _embedding(config.bigram_buckets, C)
        self.values = nn.ModuleDict(
            {str(i): _embedding(V, config.kv_heads * config.head_dim) for i in _layers_with_values(config)}
        )
        self.rotary = Rotary(config)
        self.drop = Dropout(config.dropout)
        self.h = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        # Recompute the activations of each block in the backward pass (arXiv:1604.06174). A flag instead of torch's
        # checkpoint_wrapper, which adds a prefix to the parameter names by which optimizer state is saved.
        self.activation_checkpointing = False
        self.lm_head = _linear(C, V)
        if config.tie_embeddings:
            self.lm_head.weight = self.wte.weight
        if not self.wte.weight.is_meta:
            self._draw(generator)

    def forward(self, ids: Tensor, cache: KVCache | None = None) -> Tensor:
        """Logits (B, T, V) of the token after each of ids (B, T); with a cache, ids are the tokens not yet seen."""
        return capped(self.lm_head(self.hidden(ids, cache)), self.config.softcap)

    def loss(self, ids: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
        """Cross-entropy in nats of targets (B, T) after ids (B, T); targets of -100 do not count.

        `reduction` "mean" and "sum" give a scalar, "none" gives (B·T,).
        """
        return head_loss(
            self.hidden(ids), self.lm_head.weight, targets, softcap=self.config.softcap, reduction=reduction
        )

    def hidden(self, ids: Tensor, cache: KVCache | None = None) -> Tensor:
        """The stream after the last block, normalised: (B, T, C)."""
        T = ids.shape[1]
        assert self.config.block_size >= T, f"{T} tokens do not fit a context of {self.config.block_size}"
        angles = self.rotary(torch.arange(T, device=ids.device) if cache is None else cache.positions(T))
        x = self.wte(ids)  # (B, T, C)
        if self.pairs is not None:
            x = x + self.pairs(self._pair_ids(ids, cache, self.pairs.num_embeddings))
        x = x0 = self.drop(_norm(x))
        for layer, block in enumerate(self.h):
            values = self.values[str(layer)](ids) if str(layer) in self.values else None
            if self.activation_checkpointing:
                x = checkpoint(block, x, x0, angles, values, cache, layer, use_reentrant=False)
            else:
                x = block(x, x0, angles, values, cache, layer)
        if cache is not None:
            cache.advance(ids)
        return _norm(x)

    def new_cache(self, batch_size: int) -> KVCache:
        return KVCache(self.config, batch_size, self.wte.weight.device, self.wte.weight.dtype)

    @staticmethod
    def _pair_ids(ids: Tensor, cache: KVCache | None, buckets: int) -> Tensor:
        """Row of the pair table (B, T) for each token and the one before it; a first token has -1 before it."""
        before_first = ids.new_full((ids.shape[0], 1), -1) if cache is None else cache.last_ids
        before = torch.cat([before_first, ids[:, :-1]], dim=1)
        return ((before + 1) * PAIR_PRIME + ids) % buckets

    def _draw(self, generator: torch.Generator | None) -> None:
        """Projections into the stream, pairs and values start at zero: at first every block passes its input on."""
        for name, parameter in self.named_parameters():
            if name.endswith("mix"):
                with torch.no_grad():
                    parameter.copy_(torch.tensor([1.0, 0.0]))
            elif name.endswith("c_proj.weight") or name.startswith(("pairs", "values")):
                nn.init.zeros_(parameter)
            elif name.startswith(("wte", "lm_head")):
                nn.init.normal_(parameter, std=0.02, generator=generator)
            else:
                bound = math.sqrt(3 / parameter.shape[1])  # deviation 1/√C: outputs are as large as inputs
                nn.init.uniform_(parameter, -bound, bound, generator=generator)


def _layers_with_values(config: ModelConfig) -> range:
    """Every other block, the last one included."""
    return range((config.n_layer - 1) % 2, config.n_layer, 2) if config.value_embeddings else range(0)


def _norm(x: Tensor) -> Tensor:
    return F.rms_norm(x, (x.shape[-1],))


def _rotate(x: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
    """Turn each pair of features of x (B, H, T, D) by its angle."""
    cos, sin = angles
    a, b = x.chunk(2, dim=-1)  # each (B, H, T, D/2)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1).to(x.dtype)


def _linear(inputs: int, outputs: int) -> nn.Linear:
    return nn.Linear(inputs, outputs, bias=False, device="meta").to_empty(device=torch.get_default_device())


def _embedding(rows: int, width: int) -> nn.Embedding:
    return nn.Embedding.from_pretrained(torch.empty(rows, width), freeze=False)
