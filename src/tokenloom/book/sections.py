"""The results of each section of chapter 5, except the training run."""

# Some parts of torch's API are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import hashlib
import io
import math
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from tokenloom.book import expected
from tokenloom.book.comparison import RELATIVE_TOLERANCE, Comparison, spaced
from tokenloom.book.data import (
    BatchLoader,
    BookTokenizer,
    create_dataloader_v1,
    text_to_token_ids,
    token_ids_to_text,
)
from tokenloom.book.generation import generate, generate_text_simple
from tokenloom.book.model import GPTModel, model_config
from tokenloom.book.toy_vocabulary import TOY_LOGITS, TOY_VOCABULARY, sample_counts, softmax_with_temperature
from tokenloom.book.training import calc_loss_batch, calc_loss_loader
from tokenloom.data.corpora import DOWNLOADS
from tokenloom.data.tokenizers.bpe import gpt2_tokenizer
from tokenloom.model.flops import count_parameters
from tokenloom.reporting.matplotlib_plots import plot_temperatures

Loaders = tuple[BatchLoader, BatchLoader]  # training, validation


def generate_untrained(comparison: Comparison, tokenizer: BookTokenizer) -> None:
    """Section 5.1.1: text generation with an untrained model."""
    comparison.progress("5.1.1  using GPT to generate text")
    libraries = ("matplotlib", "numpy", "tiktoken", "torch")
    comparison.note("1", "versions", ", ".join(f"{name} {version(name)}" for name in libraries))
    counts = [_parameters(context_length=256), _parameters(context_length=1024), _parameters(1024, tied=True)]
    comparison.equal("2", "parameters at context 256, 1024, 1024 tied", "162419712 163009536 124412160", spaced(counts))
    comparison.equal(
        "3", "parameters of GPT-2 (bias, context 1024, tied)", 124439808, _parameters(1024, qkv_bias=True, tied=True)
    )
    model = _untrained_model()
    ids = text_to_token_ids(expected.START_CONTEXT, tokenizer)
    comparison.equal("4", "token ids of the prompt", [6109, 3626, 6100, 345], ids.squeeze(0).tolist())
    output = generate_text_simple(model, ids, max_new_tokens=10, context_size=256)
    text = token_ids_to_text(output, tokenizer)
    comparison.equal("4", "10 greedy tokens, untrained", expected.UNTRAINED_SAMPLE, text)
    ids = text_to_token_ids("Hello<|endoftext|>you", tokenizer)
    comparison.equal("5", "<|endoftext|> is one token", "[15496, 50256, 5832]", ids.squeeze(0).tolist())
    comparison.equal("5", "decoded again", "Hello<|endoftext|>you", token_ids_to_text(ids, tokenizer))


def measure_loss(comparison: Comparison, tokenizer: BookTokenizer) -> None:
    """Section 5.1.2: the loss of generated text."""
    comparison.progress("5.1.2  calculating the text generation loss")
    inputs = torch.tensor([[16833, 3626, 6100], [40, 1107, 588]])
    targets = torch.tensor([[3626, 6100, 345], [1107, 588, 11311]])
    with torch.no_grad():
        logits: Tensor = _untrained_model()(inputs)
    probas = torch.softmax(logits, dim=-1)
    comparison.equal("6", "shape of the probabilities", [2, 3, 50257], list(probas.shape))
    predicted = probas.argmax(dim=-1, keepdim=True)
    predicted_ids = "[[[16657], [339], [42826]], [[49906], [29669], [41751]]]"
    comparison.equal("7", "most likely token ids", predicted_ids, predicted.tolist())
    comparison.equal("7", "targets of batch 1", " effort moves you", token_ids_to_text(targets[0], tokenizer))
    text = token_ids_to_text(predicted[0].flatten(), tokenizer)
    comparison.equal("7", "outputs of batch 1", " Armed heNetflix", text)
    target_probas = probas.gather(-1, targets.unsqueeze(-1)).flatten()
    printed = ["7.4541e-05", "3.1061e-05", "1.1563e-05", "1.0337e-05", "5.6776e-05", "4.7559e-06"]
    comparison.close("8", "target probabilities", printed, target_probas.tolist())
    log_probas = target_probas.log()
    printed = ["-9.5042", "-10.3796", "-11.3677", "-11.4798", "-9.7764", "-12.2561"]
    comparison.equal("9", "log probabilities", spaced(printed), spaced(f"{value:.4f}" for value in log_probas.tolist()))
    comparison.equal("9", "average log probability", "-10.7940", f"{log_probas.mean():.4f}")
    flat = logits.flatten(0, 1), targets.flatten()
    comparison.equal("10", "flattened shapes", "[6, 50257] [6]", spaced(list(tensor.shape) for tensor in flat))
    loss = torch.nn.functional.cross_entropy(*flat)
    comparison.equal("10", "cross-entropy", "10.7940", f"{loss:.4f}")
    comparison.close("11", "perplexity", ["48725.8203"], [loss.exp().item()])


def split_text(comparison: Comparison, text: str) -> None:
    """Section 5.1.3: the text and its training and validation parts."""
    comparison.progress("5.1.3  calculating the training and validation set losses")
    digest = hashlib.sha256(text.encode()).hexdigest()
    comparison.equal("12", "sha256 of the text", DOWNLOADS["the-verdict"].sha256, digest)
    train_text, val_text = _split(text)
    tokens = [len(_token_ids(part)) for part in (text, train_text, val_text)]
    comparison.equal("12", "characters and tokens", "20479 5145", f"{len(text)} {tokens[0]}")
    comparison.equal("13", "first and last 99 characters", expected.TEXT_ENDS, f"{text[:99]} ... {text[-99:]}")
    gpu_hours, gpus, dollars_per_hour = 184_320, 8, 30
    comparison.equal(
        "14", "training cost of Llama 2 7B in dollars", 691_200, round(gpu_hours / gpus * dollars_per_hour)
    )
    comparison.equal(
        "15",
        "training characters; tokens of both parts",
        "18431 4612 534",
        f"{len(train_text)} {tokens[1]} {tokens[2]}",
    )


def load_batches(comparison: Comparison, text: str) -> Loaders:
    """Section 5.1.3: the data loaders."""
    torch.manual_seed(123)
    loaders = _data_loaders(text, 256)
    sizes = [len(loader) for loader in loaders]
    comparison.equal("16", "training and validation batches", "9 1", spaced(sizes))
    shapes = {tuple(tensor.shape) for loader in loaders for pair in loader for tensor in pair}
    comparison.equal("16", "shapes of inputs and targets", {(2, 256)}, shapes)
    lengths = [len(_token_ids(part)) for part in _split(text)]
    comparison.equal("17", "enough tokens for the context", [True, True], [length >= 256 for length in lengths])
    windows = [max(0, -(-(length - 1024) // 1024)) for length in lengths]
    comparison.equal("17", "training and validation windows at context 1024", [4, 0], windows)
    totals = [sum(ids.numel() for ids, _ in loader) for loader in loaders]
    comparison.equal("18", "training, validation and all tokens", "4608 512 5120", spaced([*totals, sum(totals)]))
    return loaders


def evaluate_untrained(comparison: Comparison, loaders: Loaders, device: torch.device) -> None:
    """Section 5.1.3: the losses before training."""
    model = _untrained_model().to(device)
    comparison.equal("19", "loss of an empty loader", "nan", calc_loss_loader([], model, device))
    torch.manual_seed(123)
    losses = [calc_loss_loader(loader, model, device) for loader in loaders]
    comparison.close("20", "losses before training", expected.UNTRAINED_LOSSES, losses)
    loss = calc_loss_loader(loaders[1], model, device, num_batches=100)
    is_same = math.isclose(loss, losses[1], rel_tol=RELATIVE_TOLERANCE)
    comparison.equal("19", "num_batches above the number of batches", True, is_same)
    comparison.note("21", "device", str(device))


def decode(comparison: Comparison, out: Path | None) -> None:
    """Section 5.3: temperature scaling and top-k sampling."""
    comparison.progress("5.3    decoding strategies to control randomness")
    logits = torch.tensor(TOY_LOGITS)
    comparison.equal("5.3", "most likely word", "forward", TOY_VOCABULARY[int(logits.argmax())])
    for temperature, counts in expected.TOY_COUNTS.items():
        actual = sample_counts(softmax_with_temperature(logits, temperature))
        comparison.random("5.3", f"1,000 samples at temperature {temperature:g}", counts, spaced(actual))
    pizza = softmax_with_temperature(logits, 5)[TOY_VOCABULARY.index("pizza")]
    comparison.close("5.3", "probability of pizza at temperature 5", ["0.0430"], [pizza.item()])
    top_logits, top_positions = torch.topk(logits, 3)
    comparison.equal("5.3", "top 3 logits", "6.75 6.28 4.51", spaced(f"{value:.2f}" for value in top_logits.tolist()))
    comparison.equal("5.3", "top 3 positions", [3, 7, 0], top_positions.tolist())
    top_probas = torch.where(logits < top_logits[-1], torch.tensor(-torch.inf), logits).softmax(dim=0)
    printed = ["0.0615", "0.0000", "0.0000", "0.5775", "0.0000", "0.0000", "0.0000", "0.3610", "0.0000"]
    comparison.close("5.3", "top 3 probabilities", printed, top_probas.tolist())
    if out is not None:
        probabilities = {t: softmax_with_temperature(logits, t).tolist() for t in (1, 0.1, 5)}
        plot_temperatures(TOY_VOCABULARY, probabilities, [out / "temperature-plot.pdf", out / "temperature-plot.png"])


def save_and_load(comparison: Comparison, tokenizer: BookTokenizer) -> None:
    """Section 5.4 and exercise 5.3, on a small model."""
    comparison.progress("5.4    loading and saving model weights")
    torch.manual_seed(123)
    config = {**expected.GPT_CONFIG_124M, "emb_dim": 48, "n_heads": 4, "n_layers": 2}
    model = GPTModel(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    ids = torch.randint(0, 50257, (2, 17))
    _train_one_step(model, optimizer, ids)
    model.eval()
    file = io.BytesIO()
    torch.save({"model_state_dict": model.state_dict(), "optimizer_state_dict": optimizer.state_dict()}, file)
    file.seek(0)
    checkpoint = torch.load(file, weights_only=True)
    loaded = GPTModel(config)
    loaded.load_state_dict(checkpoint["model_state_dict"])
    loaded_optimizer = torch.optim.AdamW(loaded.parameters(), lr=5e-4, weight_decay=0.1)
    loaded_optimizer.load_state_dict(checkpoint["optimizer_state_dict"])
    with torch.no_grad():
        comparison.equal("5.4", "same logits after loading", True, torch.equal(model(ids), loaded.eval()(ids)))
    comparison.equal("5.4", "learning rate is restored", 0.001, loaded_optimizer.param_groups[0]["lr"])
    _train_one_step(model, optimizer, ids)
    _train_one_step(loaded, loaded_optimizer, ids)
    same_weights = all(torch.equal(a, b) for a, b in zip(model.parameters(), loaded.parameters(), strict=True))
    comparison.equal("5.4", "same weights after another step", True, same_weights)
    prompt = text_to_token_ids(expected.START_CONTEXT, tokenizer)
    outputs = [generate(loaded, prompt, 15, 256, temperature=0.0) for _ in range(2)]
    outputs += [generate(loaded, prompt, 15, 256, temperature=1.4, top_k=1) for _ in range(2)]
    same_text = all(torch.equal(output, outputs[0]) for output in outputs)
    comparison.equal("5.3", "temperature 0 and top-k 1 are deterministic", True, same_text)


def _train_one_step(model: GPTModel, optimizer: torch.optim.Optimizer, ids: Tensor) -> None:
    model.train()
    torch.manual_seed(7)
    optimizer.zero_grad()
    torch.autograd.backward(calc_loss_batch(ids[:, :-1], ids[:, 1:], model, "cpu"))
    optimizer.step()


def _untrained_model() -> GPTModel:
    torch.manual_seed(123)
    return GPTModel(expected.GPT_CONFIG_124M).eval()


def _parameters(context_length: int = 256, *, qkv_bias: bool = False, tied: bool = False) -> int:
    config = model_config({**expected.GPT_CONFIG_124M, "context_length": context_length, "qkv_bias": qkv_bias})
    return count_parameters(config.model_copy(update={"tie_embeddings": tied}))


def _split(text: str) -> tuple[str, str]:
    boundary = int(0.90 * len(text))
    return text[:boundary], text[boundary:]


def _token_ids(text: str) -> list[int]:
    return gpt2_tokenizer().encode(text)


def _data_loaders(text: str, context_length: int) -> Loaders:
    train_text, val_text = _split(text)
    return (
        create_dataloader_v1(train_text, 2, context_length, stride=context_length, drop_last=True, shuffle=True),
        create_dataloader_v1(val_text, 2, context_length, stride=context_length, drop_last=False, shuffle=False),
    )
