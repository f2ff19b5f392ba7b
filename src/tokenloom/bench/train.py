"""Training steps of a GPT-2 with 124M parameters: ours, the book's code, transformers, litgpt.

`chapter`: the chapter's model and step (untied head, dropout 0.1, batch 2×256, AdamW); `gpt2`: as published, tied,
without dropout.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tokenloom.bench.harness import Contender, answer
from tokenloom.config import Config

BATCH, CONTEXT, VOCABULARY = 2, 256, 50257
LEARNING_RATE, WEIGHT_DECAY = 4e-4, 0.1
SHAPES = {
    "chapter": {"tie_embeddings": False, "qkv_bias": False, "dropout": 0.1, "block_size": CONTEXT},
    "gpt2": {"tie_embeddings": True, "qkv_bias": True, "dropout": 0.0, "block_size": 1024},
}
CONTENDERS = {
    "chapter": [
        Contender("book fp32", needs=("llms_from_scratch",)),
        Contender("tokenloom bf16"),
        Contender("tokenloom fp32"),
    ],
    "gpt2": [
        Contender("transformers fp32", needs=("transformers",)),
        Contender("transformers bf16", needs=("transformers",)),
        Contender("litgpt bf16", needs=("litgpt",)),
        Contender("tokenloom bf16"),
        Contender("tokenloom fp32"),
    ],
}


def model_flops_use(
    name: str, tokens_per_sec: float, machine: Mapping[str, Any], options: Mapping[str, Any]
) -> tuple[float, str]:
    """The share of the machine's own matrix products that a contender's steps amount to (MFU)."""
    from tokenloom.model.flops import forward_flops

    config = _config(options["shape"]).model
    flops = 3 * forward_flops(config, CONTEXT) / CONTEXT * tokens_per_sec
    precision = "bf16" if "bf16" in name else "fp32"
    return flops / 1e9 / machine[f"{precision}_gflops"], f"{precision} matrix products"


def _config(shape: str) -> Config:
    model = {"family": "gpt2", "vocab_size": VOCABULARY, "n_layer": 12, "n_head": 12, "n_embd": 768}
    train = {"optimizer": "adamw", "learning_rate": LEARNING_RATE, "weight_decay": WEIGHT_DECAY, "beta1": 0.9}
    train |= {"beta2": 0.999, "schedule": "constant", "warmup_steps": 0, "grad_clip": None}
    return Config.of({"model": {**model, **SHAPES[shape]}, "train": train})


def ours(shape: str, seconds: float, steps: int, precision: str) -> dict[str, Any]:
    """The step of the training loop itself."""
    from tokenloom.compute.runtime import choose_runtime, tune_malloc
    from tokenloom.model import build
    from tokenloom.training.optimizer import Optimizer

    tune_malloc()
    config = _config(shape)
    runtime = choose_runtime("cpu", precision)
    model = build(config.model, torch.Generator().manual_seed(123)).train()
    optimizer = Optimizer(model, config.train)

    def step(ids: Tensor, targets: Tensor) -> float:
        optimizer.zero_grad()
        with runtime.autocast():
            loss = model.loss(ids, targets)
        loss.backward()
        optimizer.step(0)
        return loss.item()

    return _timed(step, seconds, steps)


def book(shape: str, seconds: float, steps: int) -> dict[str, Any]:
    import tiktoken

    from tokenloom.book import get_encoding

    tiktoken.get_encoding = get_encoding  # its modules ask for it when they are imported; ours needs no download
    from llms_from_scratch.ch04 import GPTModel  # type: ignore[import-not-found]
    from llms_from_scratch.ch05 import calc_loss_batch  # type: ignore[import-not-found]

    sizes = {"vocab_size": VOCABULARY, "context_length": CONTEXT, "emb_dim": 768, "n_heads": 12, "n_layers": 12}
    model = GPTModel({**sizes, "drop_rate": 0.1, "qkv_bias": False}).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)

    def step(ids: Tensor, targets: Tensor) -> float:
        optimizer.zero_grad()
        loss = calc_loss_batch(ids, targets, model, torch.device("cpu"))
        loss.backward()
        optimizer.step()
        return loss.item()

    return _timed(step, seconds, steps)


def transformers(shape: str, seconds: float, steps: int, precision: str) -> dict[str, Any]:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)).train()
    return _timed(_peer_step(model, lambda ids: model(ids).logits, precision), seconds, steps)


def litgpt(shape: str, seconds: float, steps: int, precision: str) -> dict[str, Any]:
    from litgpt import GPT  # type: ignore[import-not-found]
    from litgpt import Config as LitConfig  # type: ignore[import-not-found]

    config = LitConfig(
        n_layer=12, n_head=12, n_embd=768, block_size=1024, padded_vocab_size=VOCABULARY, rotary_percentage=1.0
    )
    model = GPT(config).train()
    return _timed(_peer_step(model, model, precision), seconds, steps)


def _peer_step(
    model: torch.nn.Module, logits_of: Callable[[Tensor], Tensor], precision: str
) -> Callable[[Tensor, Tensor], float]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True)

    def step(ids: Tensor, targets: Tensor) -> float:
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            loss = F.cross_entropy(logits_of(ids).flatten(0, 1).float(), targets.flatten())
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def _timed(step: Callable[[Tensor, Tensor], float], seconds: float, steps: int) -> dict[str, Any]:
    """Median rate of steps over `seconds` after warming up; then, if asked, the loss after `steps` in all."""
    batches = _batches()
    torch.manual_seed(123)
    losses = [step(*next(batches)) for _ in range(2)]
    times: list[float] = []
    while sum(times) < seconds or len(times) < 3:
        batch = next(batches)
        before = time.perf_counter()
        losses.append(step(*batch))
        times.append(time.perf_counter() - before)
    while len(losses) < steps:
        losses.append(step(*next(batches)))
    last = losses[-10:] if steps else losses[-1:]
    return {
        "tokens_per_sec": BATCH * CONTEXT / statistics.median(times),
        "best_step_seconds": min(times),
        "steps": len(losses),
        "loss": sum(last) / len(last),
    }


def _batches() -> Iterator[tuple[Tensor, Tensor]]:
    """The same windows for everybody: the docstrings of Python's library, in GPT-2's tokens."""
    from tokenloom.data.corpora import python_docs
    from tokenloom.data.tokenizers import load_tokenizer

    text = "\n\n".join(python_docs()[:300])
    tokens = torch.from_numpy(load_tokenizer("gpt2").encode_array(text).astype("int64"))
    size = BATCH * CONTEXT
    while True:
        for start in range(0, len(tokens) - size - 1, size):
            window = tokens[start : start + size + 1]
            yield window[:-1].view(BATCH, CONTEXT), window[1:].view(BATCH, CONTEXT)


if __name__ == "__main__":
    from functools import partial

    answer(
        {
            "book fp32": book,
            "transformers fp32": partial(transformers, precision="fp32"),
            "transformers bf16": partial(transformers, precision="bf16"),
            "litgpt bf16": partial(litgpt, precision="bf16"),
            "tokenloom bf16": partial(ours, precision="bf16"),
            "tokenloom fp32": partial(ours, precision="fp32"),
        }
    )
