"""Chapter 5's own names: its cells run on this package with only their import lines changed.

A skin over the model, the evaluation and the generation of this package. Signatures, printed lines and random numbers
are the book's, so its figures come out (Raschka, Build a Large Language Model (From Scratch), chapter 5 and
appendix D); where the book's code falls short, on batches say, this does not. For work of your own, `tokenloom.train`
and its kin do more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from tokenloom.config import Config, ModelConfig
from tokenloom.data.tokenizers.bpe import GPT2_PATTERN, gpt2_tokenizer
from tokenloom.data.tokenizers.tokenizer import ENDOFTEXT
from tokenloom.errors import DataError, UsageError, WeightsError
from tokenloom.evaluation.loss import evaluating, loss_over_batches
from tokenloom.generation.engine import Engine
from tokenloom.generation.sampling import SamplingParams, sample_tokens
from tokenloom.model.gpt2 import GPT2
from tokenloom.weights.book_names import BOOK_SETTINGS, state_from_book, state_to_book
from tokenloom.weights.download import OPENAI_BYTES, fetch_openai
from tokenloom.weights.lazy_tensors import LazyModel
from tokenloom.weights.openai import parameters_as_book

# The toy vocabulary on which section 5.3 explains temperature and top-k, and its logits for the next token.
TOY_VOCABULARY = ("closer", "every", "effort", "forward", "inches", "moves", "pizza", "toward", "you")
TOY_LOGITS = (4.51, 0.89, -1.90, 6.75, 1.63, -1.62, -1.89, 6.28, 1.79)


class GPTModel(GPT2):
    """The GPT of chapter 4: ids (B, T) -> logits (B, T, V); weights and state dict as the book's, draw for draw.

    `cfg` has the keys of GPT_CONFIG_124M; raises `UsageError` for a missing or unknown one.
    """

    def __init__(self, cfg: Mapping[str, Any]) -> None:
        super().__init__(model_config(cfg))
        self.register_state_dict_post_hook(_name_as_book)
        self.register_load_state_dict_pre_hook(_name_as_ours)

    @property
    def tok_emb(self) -> nn.Embedding:
        return self.wte

    @property
    def pos_emb(self) -> nn.Embedding:
        return self.wpe

    @property
    def out_head(self) -> nn.Linear:
        return self.lm_head


def model_config(cfg: Mapping[str, Any]) -> ModelConfig:
    """Our configuration for a `cfg` like GPT_CONFIG_124M; raises `UsageError` for a missing or unknown key."""
    wanted = {*BOOK_SETTINGS, "vocab_size", "qkv_bias"}
    for name in sorted(wanted ^ cfg.keys()):
        word = "lacks" if name in wanted else "has an unknown"
        raise UsageError(f"the configuration {word} key {name!r}. It needs: {', '.join(sorted(wanted))}.")
    ours = {BOOK_SETTINGS.get(name, name): value for name, value in cfg.items()}
    return Config.of({"model": {**ours, "family": "gpt2", "init": "book", "tie_embeddings": False}}).model


def get_encoding(name: str = "gpt2") -> Any:
    """GPT-2's encoding, as `tiktoken.get_encoding` gives it but without a download; raises `UsageError` for others."""
    import tiktoken

    if name != "gpt2":
        raise UsageError(f'the book needs the encoding "gpt2", got "{name}". For others, use tiktoken itself.')
    tokenizer = gpt2_tokenizer()
    ranks = {token: rank for rank, token in enumerate(tokenizer.token_bytes[: tokenizer.eot_id])}
    specials = {ENDOFTEXT: tokenizer.eot_id}
    return tiktoken.Encoding("gpt2", pat_str=GPT2_PATTERN, mergeable_ranks=ranks, special_tokens=specials)


def text_to_token_ids(text: str, tokenizer: Any) -> Tensor:
    """The ids of a text as a batch of one: (1, T); "<|endoftext|>" in it is the token (section 5.1.1)."""
    return torch.tensor(_encode(tokenizer, text)).unsqueeze(0)


def token_ids_to_text(token_ids: Tensor, tokenizer: Any) -> str:
    """The text of ids (1, T) (section 5.1.1)."""
    return tokenizer.decode(token_ids.squeeze(0).tolist())


def create_dataloader_v1(
    txt: str,
    batch_size: int = 4,
    max_length: int = 256,
    stride: int = 128,
    shuffle: bool = True,
    drop_last: bool = True,
    num_workers: int = 0,
) -> DataLoader[tuple[Tensor, ...]]:
    """Batches of (ids, the ids one further on), each (B, max_length), in windows `stride` apart (section 2.6).

    Raises `DataError` where the text is too short for one window. "<|endoftext|>" in it is the token.
    """
    ids = torch.from_numpy(gpt2_tokenizer().encode_array(txt).astype(np.int64))
    if len(ids) <= max_length:
        raise DataError(f"the text has {len(ids):,} tokens, too few for one window of {max_length:,} and its targets.")
    windows = [ids[start : start + max_length + 1] for start in range(0, len(ids) - max_length, stride)]
    pairs = torch.stack(windows)  # (windows, max_length + 1)
    dataset = TensorDataset(pairs[:, :-1].clone(), pairs[:, 1:].clone())
    # torch's own loader, for it draws the order of windows from torch's random stream, as the book's figures need.
    return DataLoader(dataset, batch_size=batch_size, shuffle=shuffle, drop_last=drop_last, num_workers=num_workers)


def calc_loss_batch(input_batch: Tensor, target_batch: Tensor, model: nn.Module, device: torch.device | str) -> Tensor:
    """Mean cross-entropy in nats of a batch, with its gradient (section 5.1.3)."""
    logits = model(input_batch.to(device))  # (B, T, V)
    return F.cross_entropy(logits.flatten(0, 1), target_batch.to(device).flatten())


def calc_loss_loader(
    data_loader: Any, model: GPT2, device: torch.device | str, num_batches: int | None = None
) -> float:
    """The mean of the batches' mean losses, of the first `num_batches` or all; nan of none (section 5.1.3)."""
    return loss_over_batches(model.to(device), data_loader, num_batches)


def evaluate_model(
    model: GPT2, train_loader: Any, val_loader: Any, device: torch.device | str, eval_iter: int
) -> tuple[float, float]:
    """Training and validation loss over `eval_iter` batches each, without dropout (section 5.2)."""
    # The training loader shuffles: looking draws from the random stream of the training, as in the book.
    train_loss = calc_loss_loader(train_loader, model, device, eval_iter)
    return train_loss, calc_loss_loader(val_loader, model, device, eval_iter)


def generate_text_simple(model: GPT2, idx: Tensor, max_new_tokens: int, context_size: int) -> Tensor:
    """Continue ids (B, T) greedily: (B, T + max_new_tokens) (section 4.7)."""
    return generate(model, idx, max_new_tokens, context_size)


def generate(
    model: GPT2,
    idx: Tensor,
    max_new_tokens: int,
    context_size: int,
    temperature: float = 0.0,
    top_k: int | None = None,
    eos_id: int | None = None,
) -> Tensor:
    """Continue ids (B, T) by up to `max_new_tokens` (section 5.3.3); the model sees the last `context_size` of them.

    Each row ends by itself, before its first `eos_id`; rows that end early are filled up with `eos_id`. Temperature 0
    takes the likeliest token; otherwise torch's random stream decides.
    """
    sampling = SamplingParams(temperature=temperature, top_k=top_k)
    if context_size < model.config.block_size or (not sampling.is_greedy and len(idx) > 1):
        return _generate_uncached(model, idx, max_new_tokens, context_size, sampling, eos_id)
    engine = _BookEngine(model, eot_id=eos_id, max_rows=len(idx), slide=1)
    for row in idx.tolist():
        engine.add(row, max_new_tokens=max_new_tokens, sampling=sampling, seed=0)
    new: list[list[int]] = [[] for _ in idx]
    for step in engine.run():
        if step.token is not None:
            new[step.row].append(step.token)
    return _joined(idx, new, eos_id)


def generate_and_print_sample(model: GPT2, tokenizer: Any, device: torch.device | str, start_context: str) -> None:
    """Print 50 greedy tokens after `start_context` in one line (section 5.2)."""
    context_size = model.wpe.weight.shape[0]
    ids = text_to_token_ids(start_context, tokenizer).to(device)
    written = generate_text_simple(model, ids, max_new_tokens=50, context_size=context_size)
    print(token_ids_to_text(written, tokenizer).replace("\n", " "))


def train_model_simple(
    model: GPT2,
    train_loader: Any,
    val_loader: Any,
    optimizer: torch.optim.Optimizer,
    device: torch.device | str,
    num_epochs: int,
    eval_freq: int,
    eval_iter: int,
    start_context: str,
    tokenizer: Any,
) -> tuple[list[float], list[float], list[int]]:
    """The training loop of section 5.2: (training losses, validation losses, tokens seen) at each evaluation."""
    looks = eval_freq, eval_iter, start_context, tokenizer
    history = _train(model, train_loader, val_loader, optimizer, device, num_epochs, looks, lambda step: None)
    return history.train_losses, history.val_losses, history.tokens_seen


def train_model(
    model: GPT2,
    train_loader: Any,
    val_loader: Any,
    optimizer: torch.optim.Optimizer,
    device: torch.device | str,
    n_epochs: int,
    eval_freq: int,
    eval_iter: int,
    start_context: str,
    tokenizer: Any,
    warmup_steps: int,
    initial_lr: float = 3e-05,
    min_lr: float = 1e-6,
) -> tuple[list[float], list[float], list[int], list[float]]:
    """The loop with warmup, cosine decay and clipping (appendix D): as `train_model_simple`, and the learning rates.

    The peak is the optimizer's own rate. Gradients are clipped at every step, in the warmup too; `warmup_steps` 0 is
    none.
    """
    peak_lr = optimizer.param_groups[0]["lr"]
    total_steps = len(train_loader) * n_epochs
    rates: list[float] = []

    def prepare(step: int) -> None:
        rates.append(_learning_rate(step, warmup_steps, total_steps, peak_lr, initial_lr, min_lr))
        for group in optimizer.param_groups:
            group["lr"] = rates[-1]
        nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)

    looks = eval_freq, eval_iter, start_context, tokenizer
    history = _train(model, train_loader, val_loader, optimizer, device, n_epochs, looks, prepare)
    return history.train_losses, history.val_losses, history.tokens_seen, rates


def plot_losses(
    epochs_seen: Sequence[float] | Tensor,
    tokens_seen: Sequence[int],
    train_losses: Sequence[float],
    val_losses: Sequence[float],
    path: str | Path = "loss-plot.pdf",
) -> None:
    """Save the plot of section 5.2: losses over epochs (below) and tokens seen (above)."""
    from tokenloom.reporting.matplotlib_plots import plot_losses as plot

    points = zip(epochs_seen, tokens_seen, train_losses, val_losses, strict=True)
    records = [
        {"step": i, "epoch": float(epoch), "tokens": tokens, "train/loss": train, "val/loss": val}
        for i, (epoch, tokens, train, val) in enumerate(points)
    ]
    plot(records, [Path(path)])


def softmax_with_temperature(logits: Tensor, temperature: float) -> Tensor:
    """Probabilities of logits (..., V) divided by `temperature` (section 5.3.1)."""
    return torch.softmax(logits / temperature, dim=-1)


def sample_counts(probas: Tensor, draws: int = 1000) -> list[int]:
    """How often each token of probabilities (V,) comes up in `draws` draws under seed 123 (section 5.3.1)."""
    torch.manual_seed(123)
    sampled = torch.stack([torch.multinomial(probas, num_samples=1) for _ in range(draws)])
    return torch.bincount(sampled.flatten(), minlength=len(probas)).tolist()


def print_sampled_tokens(probas: Tensor, vocabulary: Sequence[str] = TOY_VOCABULARY) -> None:
    """Print how often each word is drawn in 1,000 draws (section 5.3.1)."""
    for count, word in zip(sample_counts(probas), vocabulary, strict=True):
        print(f"{count} x {word}")


def assign(left: Tensor, right: Any) -> nn.Parameter:
    """`right` as a parameter in the place of `left`; raises `WeightsError` if their shapes differ (section 5.5)."""
    right = torch.as_tensor(right)
    if left.shape != right.shape:
        raise WeightsError(f"Shape mismatch. Left: {tuple(left.shape)}, Right: {tuple(right.shape)}")
    return nn.Parameter(right.clone().detach())


def load_weights_into_gpt(gpt: GPTModel, params: Mapping[str, Any]) -> None:
    """Put OpenAI's weights, as `download_and_load_gpt2` gives them, into a model of their size (section 5.5).

    Raises `CheckpointError` for a tensor that is missing or does not fit.
    """
    tensors: dict[str, Tensor] = {"wte.weight": params["wte"], "wpe.weight": params["wpe"]}
    tensors |= {"ln_f.weight": params["g"], "ln_f.bias": params["b"], "lm_head.weight": params["wte"]}
    for i, block in enumerate(params["blocks"]):
        for place, ours in {"attn": ("c_attn", "c_proj"), "mlp": ("c_fc", "c_proj")}.items():
            for layer in ours:
                tensors[f"h.{i}.{place}.{layer}.weight"] = block[place][layer]["w"].T
                tensors[f"h.{i}.{place}.{layer}.bias"] = block[place][layer]["b"]
        for norm in ("ln_1", "ln_2"):
            tensors[f"h.{i}.{norm}.weight"], tensors[f"h.{i}.{norm}.bias"] = block[norm]["g"], block[norm]["b"]
    stored = {name: torch.as_tensor(np.ascontiguousarray(tensor)) for name, tensor in tensors.items()}
    read = LazyModel(gpt.config, stored, "params").read()
    with torch.no_grad():
        for ours, theirs in zip(gpt.parameters(), read.parameters(), strict=True):
            ours.copy_(theirs)


def download_and_load_gpt2(model_size: str, models_dir: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """OpenAI's settings and nested weights of "124M", "355M", "774M" or "1558M" (section 5.5), without TensorFlow.

    The files are fetched into `models_dir`/`model_size` once, and checked. Raises `WeightsError`.
    """
    if model_size not in OPENAI_BYTES:
        raise WeightsError(f'there is no GPT-2 of size "{model_size}". Choose {", ".join(OPENAI_BYTES)}.')
    return parameters_as_book(fetch_openai(model_size, Path(models_dir) / model_size))


class _History:
    def __init__(self) -> None:
        self.train_losses: list[float] = []
        self.val_losses: list[float] = []
        self.tokens_seen: list[int] = []


def _train(
    model: GPT2,
    train_loader: Any,
    val_loader: Any,
    optimizer: torch.optim.Optimizer,
    device: torch.device | str,
    epochs: int,
    looks: tuple[int, int, str, Any],
    prepare: Any,
) -> _History:
    # A loop of its own: the package's seeds every step by its number, so that runs resume exactly, while the book
    # draws batches, dropout and the batches of evaluations from one random stream, on which its figures depend.
    eval_freq, eval_iter, start_context, tokenizer = looks
    history, seen, step = _History(), 0, -1
    for epoch in range(epochs):
        model.train()
        for input_batch, target_batch in train_loader:
            optimizer.zero_grad()
            calc_loss_batch(input_batch, target_batch, model, device).backward()
            step += 1
            prepare(step)
            optimizer.step()
            seen += input_batch.numel()
            if step % eval_freq == 0:
                train_loss, val_loss = evaluate_model(model, train_loader, val_loader, device, eval_iter)
                history.train_losses.append(train_loss)
                history.val_losses.append(val_loss)
                history.tokens_seen.append(seen)
                print(f"Ep {epoch + 1} (Step {step:06d}): Train loss {train_loss:.3f}, Val loss {val_loss:.3f}")
        generate_and_print_sample(model, tokenizer, device, start_context)
    return history


def _learning_rate(step: int, warmup_steps: int, total_steps: int, peak: float, initial: float, least: float) -> float:
    """The rate of appendix D, whose warmup reaches its peak only at step `warmup_steps`."""
    if step < warmup_steps:
        return initial + step * (peak - initial) / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return least + (peak - least) * 0.5 * (1 + math.cos(math.pi * progress))


class _BookEngine(Engine):
    """The engine, drawing from torch's default random stream."""

    def _sample_alike(self, logits: Tensor, sequences: Sequence[Any]) -> Tensor:
        return sample_tokens(logits, sequences[0].sampling)


def _generate_uncached(
    model: GPT2, idx: Tensor, max_new_tokens: int, context_size: int, sampling: SamplingParams, eos_id: int | None
) -> Tensor:
    """All rows at every step, for the random stream draws for all, and windows shorter than the model's own."""
    new: list[list[int]] = [[] for _ in idx]
    ended = [False] * len(idx)
    ids = idx
    with torch.inference_mode(), evaluating(model.modules()):
        for _ in range(max_new_tokens):
            logits = model(ids[:, -context_size:])[:, -1]  # (B, V)
            chosen = sample_tokens(logits, sampling)
            ids = torch.cat([ids, chosen[:, None]], dim=1)
            for row, token in enumerate(chosen.tolist()):
                ended[row] = ended[row] or token == eos_id
                if not ended[row]:
                    new[row].append(token)
            if all(ended):
                break
    return _joined(idx, new, eos_id)


def _joined(idx: Tensor, new: list[list[int]], eos_id: int | None) -> Tensor:
    longest = max(map(len, new), default=0)
    filled = [row + [eos_id or 0] * (longest - len(row)) for row in new]
    return torch.cat([idx, torch.tensor(filled, dtype=idx.dtype, device=idx.device).view(len(idx), longest)], dim=1)


def _encode(tokenizer: Any, text: str) -> list[int]:
    import tiktoken

    if isinstance(tokenizer, tiktoken.Encoding):
        return tokenizer.encode(text, allowed_special={ENDOFTEXT})
    return tokenizer.encode(text)


def _name_as_book(model: GPT2, state: dict[str, Any], prefix: str, _: object) -> None:
    ours = {name.removeprefix(prefix): state.pop(name) for name in list(state) if name.startswith(prefix)}
    state.update({prefix + name: tensor for name, tensor in state_to_book(model.config, ours).items()})


def _name_as_ours(model: GPT2, state: dict[str, Any], prefix: str, *_: object) -> None:
    theirs = {name.removeprefix(prefix): state.pop(name) for name in list(state) if name.startswith(prefix)}
    state.update({prefix + name: tensor[:] for name, tensor in state_from_book(theirs).items()})  # type: ignore[index]
