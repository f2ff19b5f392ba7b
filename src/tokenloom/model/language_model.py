"""The interface of a language model, and the base class of both families."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint  # pyright: ignore  # torch does not annotate it

from tokenloom.config import ModelConfig
from tokenloom.model.head import Reduction, head_loss
from tokenloom.model.kv_cache import KVCache

# B batch, T tokens, C width (n_embd), V vocabulary.


class LanguageModel(Protocol):
    """What evaluation and generation need of a model; every model of `tokenloom.model` has it."""

    config: ModelConfig

    @property
    def lm_head(self) -> Callable[[Tensor], Tensor]:
        """The output head: logits (…, V) of hidden states (…, C)."""
        ...

    def __call__(self, ids: Tensor, cache: KVCache | None = None) -> Tensor:
        """Logits (B, T, V) of the token after each of ids (B, T); with a cache, ids continue its first B rows."""
        ...

    def hidden(self, ids: Tensor, cache: KVCache | None = None) -> Tensor:
        """The residual stream after the last block, normalized: (B, T, C)."""
        ...

    def loss(self, ids: Tensor, targets: Tensor, reduction: Reduction = "mean") -> Tensor:
        """Cross-entropy in nats of targets (B, T) after ids (B, T), without those that are `IGNORE_INDEX`."""
        ...

    def new_cache(self, rows: int) -> KVCache:
        """An empty key-value cache."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]: ...
    def modules(self) -> Iterator[nn.Module]: ...


class GPT(nn.Module, ABC):
    """The base class of both families: a token embedding `wte`, blocks `h`, an output head `lm_head`, and the loss.

    A family defines its layers, `hidden` and `init_weights`.
    """

    wte: nn.Embedding
    h: nn.ModuleList
    lm_head: nn.Linear

    # A flag instead of torch's checkpoint_wrapper, which adds a prefix to the parameter names by which optimizer state
    # is saved.
    activation_checkpointing: bool = False
    """Recompute the activations of each block in the backward pass (arXiv:1604.06174)."""

    training_block: Callable[..., Tensor] | None = None
    """Runs a block on its inputs if gradients are computed, such as a compiled `run_block`; None to call the block."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config

    if TYPE_CHECKING:  # torch declares it as Callable[..., Any]

        def __call__(self, ids: Tensor, cache: KVCache | None = None) -> Tensor: ...

    @abstractmethod
    def hidden(self, ids: Tensor, cache: KVCache | None = None) -> Tensor:
        """The residual stream after the last block, normalized: (B, T, C)."""

    @abstractmethod
    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Initialize all weights but those of LayerNorm, from `generator` or from torch's default generator."""

    def loss(self, ids: Tensor, targets: Tensor, reduction: Reduction = "mean") -> Tensor:
        """Cross-entropy in nats of targets (B, T) after ids (B, T); targets of `IGNORE_INDEX` (-100) are not counted.

        `reduction` "mean" and "sum" give a scalar, "none" gives (B·T,).
        """
        return head_loss(self.hidden(ids), self.lm_head.weight, targets, reduction=reduction)

    def new_cache(self, rows: int) -> KVCache:
        """An empty key-value cache on the model's device."""
        return KVCache(self.config, rows, self.wte.weight.device, self.wte.weight.dtype)

    def _positions(self, ids: Tensor, cache: KVCache | None) -> Tensor:
        """Positions (T,) of ids (B, T), or (B, T) after the tokens cached in the first B rows."""
        B, T = ids.shape
        assert self.config.block_size >= T, f"{T} tokens do not fit a context of {self.config.block_size}"
        return torch.arange(T, device=ids.device) if cache is None else cache.next_positions(B, T)

    def _run_block(self, block: nn.Module, *inputs: object) -> Tensor:
        # Evaluation and generation have other shapes in every call, for which a compiled block would be compiled again.
        run = self.training_block if self.training_block is not None and torch.is_grad_enabled() else run_block
        if self.activation_checkpointing:
            return checkpoint(run, block, *inputs, use_reentrant=False)  # pyright: ignore  # torch does not annotate it
        return run(block, *inputs)


def run_block(block: nn.Module, *inputs: object) -> Tensor:
    """Call a block. As a function, it is compiled once for all blocks, because their weights are inputs."""
    return block(*inputs)
