"""The modern family: the architecture of Qwen3, which transformers, llama.cpp, vLLM and others run.

Sources: Qwen3 arXiv:2505.09388; rotary positions arXiv:2104.09864; RMSNorm arXiv:1910.07467; query and key
normalization arXiv:2010.04245; SwiGLU arXiv:2002.05202; grouped queries arXiv:2305.13245. Inside a block, modules are
named as in transformers' `Qwen3ForCausalLM`.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokenloom.config import ModelConfig
from tokenloom.model.attention import attend
from tokenloom.model.dropout import Dropout
from tokenloom.model.kv_cache import KVCache
from tokenloom.model.language_model import GPT
from tokenloom.model.layers import RMSNorm, embedding, linear

# B batch, T tokens, C width (n_embd), H query heads, G key and value heads, D size of a head, F width of the MLP,
# V vocabulary.


# Copies for inference may replace the layers that a module names in `JOINABLE` by one, its `joined`: with a single row,
# each product has a cost that does not depend on its size.


class Rotary(nn.Module):
    """Angles of rotary positions: with them, the product of a query and a key depends on their distance alone."""

    cos: Tensor
    sin: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        D = config.head_size
        # On the CPU even if the model is on "meta": these buffers are not saved, so no checkpoint would fill them.
        frequencies = config.rope_theta ** (-torch.arange(0, D, 2, device="cpu") / D)
        angles = torch.outer(torch.arange(config.block_size, device="cpu"), frequencies)  # (block_size, D/2)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine (…, 1, T, D/2) for positions (…, T)."""
        return self.cos[positions].unsqueeze(-3), self.sin[positions].unsqueeze(-3)


class Attention(nn.Module):
    """Causal self-attention; each head's queries and keys are normalized and rotated."""

    JOINABLE = ("q_proj", "k_proj", "v_proj")

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        C, H, G, D = config.n_embd, config.n_head, config.kv_heads, config.head_size
        self.head_size, self.dropout = D, config.dropout
        self.q_proj = linear(C, H * D, bias=False)
        self.k_proj = linear(C, G * D, bias=False)
        self.v_proj = linear(C, G * D, bias=False)
        self.heads = (H, G, G)
        self.joined: nn.Module | None = None
        self.o_proj = linear(H * D, C, bias=False)
        self.q_norm = RMSNorm(D, config.norm_eps)
        self.k_norm = RMSNorm(D, config.norm_eps)

    def forward(self, x: Tensor, angles: tuple[Tensor, Tensor], cache: KVCache | None, layer: int) -> Tensor:
        q, k, v = self.project(x, angles)
        dropout = self.dropout if self.training else 0.0
        return self.o_proj(attend(q, k, v, cache=cache, layer=layer, dropout=dropout))  # (B, T, C)

    def project(self, x: Tensor, angles: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, H, T, D), keys and values (B, G, T, D) of every head."""
        if self.joined is None:
            projected = (self.q_proj(x), self.k_proj(x), self.v_proj(x))
            q, k, v = (y.unflatten(-1, (-1, self.head_size)) for y in projected)  # each (B, T, H or G, D)
            q = _rotate(self.q_norm(q).transpose(1, 2), angles)
            k = _rotate(self.k_norm(k).transpose(1, 2), angles)
            return q, k, v.transpose(1, 2)
        heads = self.joined(x).unflatten(-1, (-1, self.head_size))  # (B, T, H + 2·G, D)
        q, k, v = heads.split(self.heads, dim=2)
        # Together, since with a single row each operation has a cost that does not depend on its size.
        rotated = _rotate(torch.cat([self.q_norm(q), self.k_norm(k)], dim=2).transpose(1, 2), angles)
        H = self.heads[0]
        return rotated[:, :H], rotated[:, H:], v.transpose(1, 2)


class MLP(nn.Module):
    """SwiGLU: a linear layer, gated by the SiLU of another, and one back to the width of the residual stream."""

    JOINABLE = ("gate_proj", "up_proj")

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        C, F_ = config.n_embd, config.mlp_width
        self.gate_proj = linear(C, F_, bias=False)
        self.up_proj = linear(C, F_, bias=False)
        self.joined: nn.Module | None = None
        self.down_proj = linear(F_, C, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.joined is None:
            gate, up = self.gate_proj(x), self.up_proj(x)
        else:
            gate, up = self.joined(x).chunk(2, dim=-1)
        return self.down_proj(F.silu(gate) * up)  # (B, T, C)


class Block(nn.Module):
    """Attention, then the MLP; each reads the normalized residual stream and adds its output to it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.n_embd, config.norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.n_embd, config.norm_eps)
        self.mlp = MLP(config)
        self.drop = Dropout(config.dropout)

    def forward(self, x: Tensor, angles: tuple[Tensor, Tensor], cache: KVCache | None, layer: int) -> Tensor:
        x = x + self.drop(self.self_attn(self.input_layernorm(x), angles, cache, layer))
        return x + self.drop(self.mlp(self.post_attention_layernorm(x)))  # (B, T, C)


class Modern(GPT):
    """The modern family: ids (B, T) -> logits (B, T, V).

    Weights are initialized from `generator`, or from torch's default generator. Raises `ConfigError` if
    `config.vocab_size` is None.
    """

    def __init__(self, config: ModelConfig, generator: torch.Generator | None = None) -> None:
        super().__init__(config)
        V, C = config.vocabulary, config.n_embd
        self.wte = embedding(V, C)
        self.rotary = Rotary(config)
        self.drop = Dropout(config.dropout)
        self.h = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.norm = RMSNorm(C, config.norm_eps)
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
        angles = self.rotary(self._positions(ids, cache))
        x = self.drop(self.wte(ids))  # (B, T, C)
        for layer, block in enumerate(self.h):
            # Without a cache the layer is not used, and a constant lets all blocks share one compiled function.
            x = self._run_block(block, x, angles, cache, 0 if cache is None else layer)
        if cache is not None:
            cache.advance(*ids.shape)
        return self.norm(x)

    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Zeros for projections into the residual stream: blocks start as identity. Ones for the gains of norms.

        The token embedding is normal with std 1, because the residual stream begins with it; with std 0.02 the first
        blocks would outweigh it after a few steps. The output head, and a tied embedding with it, has std 0.02. Other
        matrices are uniform with std 1/√inputs.
        """
        for name, parameter in self.named_parameters():
            if parameter.ndim == 1:
                nn.init.ones_(parameter)
            elif name.endswith(("o_proj.weight", "down_proj.weight")):
                nn.init.zeros_(parameter)
            elif parameter is self.lm_head.weight:
                nn.init.normal_(parameter, std=0.02, generator=generator)
            elif parameter is self.wte.weight:
                nn.init.normal_(parameter, generator=generator)
            else:
                bound = math.sqrt(3 / parameter.shape[1])  # std 1/√inputs keeps the variance of the input
                nn.init.uniform_(parameter, -bound, bound, generator=generator)


def _rotate(x: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate feature pairs (i, i + D/2) of x (B, H, T, D) by their angles."""
    cos, sin = angles
    a, b = x.chunk(2, dim=-1)  # each (B, H, T, D/2)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1).to(x.dtype)
