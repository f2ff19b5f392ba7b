"""The replay of chapter 5: every figure that the book prints, beside ours.

Rows are of class D (the same everywhere), F (up to the rounding of floats: within 2e-5, or the same digits) or R (they
follow dropout's random stream: exact on Linux x86-64 on the CPU, bands elsewhere). Row names follow the sections.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from tokenloom import book
from tokenloom.book.figures import ENDS, INITIAL, SAMPLES, SETTINGS, START, TABLE, TOY_COUNTS, UNTRAINED
from tokenloom.compute.runtime import choose_runtime
from tokenloom.data.corpora import DOWNLOADS, corpus_file
from tokenloom.model.flops import count_parameters
from tokenloom.reporting.matplotlib_plots import plot_temperatures

RELATIVE = 2e-5  # what reordered fp32 sums may change
EPOCHS, STEPS = 10, 90

Class = Literal["D", "F", "R", "-"]


@dataclass(frozen=True)
class Row:
    """One figure of the chapter; `ok` is None where there is nothing to compare."""

    row: str
    what: str
    expected: str
    got: str
    class_: Class
    ok: bool | None


@dataclass
class Replay:
    """The rows so far, and what the chapter wants seen at its end."""

    exact: bool
    tell: Callable[[str], None]
    rows: list[Row] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def same(self, row: str, what: str, expected: object, got: object, class_: Class = "D") -> None:
        """A figure that must come out as printed."""
        self.rows.append(Row(row, what, str(expected), str(got), class_, str(expected) == str(got)))

    def close(self, row: str, what: str, expected: Sequence[str], got: Sequence[float]) -> None:
        """Figures, as the chapter prints them, that may differ by the rounding of floats."""
        shown = [_as_printed(value, like) for value, like in zip(got, expected, strict=True)]
        ok = all(
            text == like or abs(value - float(like)) <= RELATIVE * abs(float(like))
            for text, value, like in zip(shown, got, expected, strict=True)
        )
        self.rows.append(Row(row, what, " ".join(expected), " ".join(shown), "F", ok))

    def random(self, row: str, what: str, expected: str, got: str) -> None:
        """A figure that follows the random stream: compared where that is known to be the book's."""
        self.rows.append(Row(row, what, expected, got, "R", expected == got if self.exact else None))

    def band(self, row: str, what: str, expected: str, got: str, ok: bool) -> None:
        self.rows.append(Row(row, what, expected, got, "R", ok))

    def note(self, row: str, what: str, got: str) -> None:
        self.rows.append(Row(row, what, "", got, "-", None))


def replay_chapter5(
    *,
    quick: bool = False,
    out: Path | None = None,
    device: str = "cpu",
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Run chapter 5 on The Verdict and compare every figure; `quick` leaves out the 90 training steps.

    Plots go to the folder `out`. `tell` is given a line now and then. Gives rows, remarks, the rule for class R,
    passed, failed and seconds. Raises `DataError` where the text cannot be had.
    """
    started = time.perf_counter()
    chosen = choose_runtime(device, "fp32").device
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    exact = (platform.system(), platform.machine(), chosen.type) == ("Linux", "x86_64", "cpu")
    replay = Replay(exact, tell)
    text = corpus_file("the-verdict").read_text(encoding="utf-8")
    tokenizer = book.get_encoding("gpt2")
    with torch.random.fork_rng(devices=[]):
        _generating(replay, tokenizer)
        _measuring(replay, tokenizer)
        _splitting(replay, text)
        loaders = _loading(replay, text)
        model = _untrained(replay, loaders, chosen)
        if not quick:
            _training(replay, text, tokenizer, model, loaders, chosen, out)
        _decoding(replay, out)
        _keeping(replay, tokenizer)
    judged = [row.ok for row in replay.rows if row.ok is not None]
    return {
        "rows": [{**{k.rstrip("_"): v for k, v in vars(row).items()}} for row in replay.rows],
        "passed": sum(judged),
        "failed": len(judged) - sum(judged),
        "seconds": time.perf_counter() - started,
        "rule": "exact" if exact else "bands",
        "remarks": replay.remarks,
    }


def longest_overlap(written: str, text: str) -> str:
    """The longest run of words of `written` that stands in `text`, word for word; white space counts as one space."""
    words, known = written.split(), f" {' '.join(text.split())} "
    best: list[str] = []
    for start in range(len(words)):
        end = start + len(best) + 1
        while end <= len(words) and f" {' '.join(words[start:end])} " in known:
            best = words[start:end]
            end += 1
    return " ".join(best)


def _generating(replay: Replay, tokenizer: Any) -> None:
    replay.tell("5.1.1  using GPT to generate text")
    libraries = ("matplotlib", "numpy", "tiktoken", "torch")
    replay.note("1", "versions", ", ".join(f"{name} {version(name)}" for name in libraries))
    counts = [_parameters(context_length=256), _parameters(context_length=1024), _parameters(1024, tied=True)]
    replay.same("2", "parameters at context 256, 1024, 1024 tied", "162419712 163009536 124412160", _spaced(counts))
    replay.same("3", "GPT-2's own (bias, context 1024, tied)", 124439808, _parameters(1024, qkv_bias=True, tied=True))
    model = _model()
    ids = book.text_to_token_ids(START, tokenizer)
    replay.same("4", "prompt's ids", [6109, 3626, 6100, 345], ids.squeeze(0).tolist())
    written = book.generate_text_simple(model, ids, max_new_tokens=10, context_size=256)
    replay.same("4", "10 greedy tokens, untrained", UNTRAINED, book.token_ids_to_text(written, tokenizer))
    marked = book.text_to_token_ids("Hello<|endoftext|>you", tokenizer)
    replay.same("5", "<|endoftext|> is one token", "[15496, 50256, 5832]", marked.squeeze(0).tolist())
    replay.same("5", "and back", "Hello<|endoftext|>you", book.token_ids_to_text(marked, tokenizer))


def _measuring(replay: Replay, tokenizer: Any) -> None:
    replay.tell("5.1.2  calculating the text generation loss")
    inputs = torch.tensor([[16833, 3626, 6100], [40, 1107, 588]])
    targets = torch.tensor([[3626, 6100, 345], [1107, 588, 11311]])
    with torch.no_grad():
        logits = _model()(inputs)
    probas = torch.softmax(logits, dim=-1)
    replay.same("6", "shape of the probabilities", [2, 3, 50257], list(probas.shape))
    chosen = probas.argmax(dim=-1, keepdim=True)
    ids = "[[[16657], [339], [42826]], [[49906], [29669], [41751]]]"
    replay.same("7", "likeliest ids", ids, chosen.tolist())
    replay.same("7", "first targets", " effort moves you", book.token_ids_to_text(targets[0], tokenizer))
    replay.same("7", "first outputs", " Armed heNetflix", book.token_ids_to_text(chosen[0].flatten(), tokenizer))
    of_targets = probas.gather(-1, targets.unsqueeze(-1)).flatten()
    printed = ["7.4541e-05", "3.1061e-05", "1.1563e-05", "1.0337e-05", "5.6776e-05", "4.7559e-06"]
    replay.close("8", "probability of each target", printed, of_targets.tolist())
    logs = of_targets.log()
    printed = ["-9.5042", "-10.3796", "-11.3677", "-11.4798", "-9.7764", "-12.2561"]
    replay.same("9", "their logarithms", _spaced(printed), _spaced(f"{value:.4f}" for value in logs.tolist()))
    replay.same("9", "mean", "-10.7940", f"{logs.mean():.4f}")
    flat = logits.flatten(0, 1), targets.flatten()
    replay.same("10", "flattened shapes", "[6, 50257] [6]", _spaced(list(tensor.shape) for tensor in flat))
    loss = torch.nn.functional.cross_entropy(*flat)
    replay.same("10", "cross-entropy", "10.7940", f"{loss:.4f}")
    replay.close("11", "perplexity", ["48725.8203"], [loss.exp().item()])


def _splitting(replay: Replay, text: str) -> None:
    replay.tell("5.1.3  calculating the training and validation set losses")
    replay.same("12", "sha256 of the text", DOWNLOADS["the-verdict"].sha256, hashlib.sha256(text.encode()).hexdigest())
    tokens = [len(_ids(part)) for part in (text, *_parts(text))]
    replay.same("12", "characters and tokens", "20479 5145", f"{len(text)} {tokens[0]}")
    replay.same("13", "first and last 99 characters", ENDS, f"{text[:99]} ... {text[-99:]}")
    dollars = 184_320 / 8 * 30
    replay.same("14", "what Llama 2 7B cost, in dollars", 691_200, round(dollars))
    replay.same(
        "15",
        "training characters; tokens of both parts",
        "18431 4612 534",
        f"{len(_parts(text)[0])} {tokens[1]} {tokens[2]}",
    )


def _loading(replay: Replay, text: str) -> tuple[Any, Any]:
    torch.manual_seed(123)
    loaders = _loaders(text, 256)
    sizes = [len(loader) for loader in loaders]
    replay.same("16", "batches to train and to validate", "9 1", _spaced(sizes))
    shapes = {tuple(tensor.shape) for loader in loaders for pair in loader for tensor in pair}
    replay.same("16", "shapes of inputs and targets", {(2, 256)}, shapes)
    fits = [len(_ids(part)) >= 256 for part in _parts(text)]
    replay.same("17", "enough tokens for the context", [True, True], fits)
    windows = [max(0, -(-(len(_ids(part)) - 1024) // 1024)) for part in _parts(text)]
    replay.same("17", "windows at context 1024, of which none to validate", [4, 0], windows)
    totals = [sum(ids.numel() for ids, _ in loader) for loader in loaders]
    replay.same("18", "tokens to train, to validate, in all", "4608 512 5120", _spaced([*totals, sum(totals)]))
    return loaders


def _untrained(replay: Replay, loaders: tuple[Any, Any], device: torch.device) -> book.GPTModel:
    model = _model().to(device)
    empty = book.calc_loss_loader([], model, device)
    replay.same("19", "loss of no batches", "nan", empty)
    torch.manual_seed(123)
    losses = [book.calc_loss_loader(loader, model, device) for loader in loaders]
    replay.close("20", "losses before training", INITIAL, losses)
    more = book.calc_loss_loader(loaders[1], model, device, num_batches=100)
    replay.same("19", "more batches wanted than there are", True, math.isclose(more, losses[1], rel_tol=RELATIVE))
    replay.note("21", "device", str(device))
    return model


def _training(
    replay: Replay,
    text: str,
    tokenizer: Any,
    model: book.GPTModel,
    loaders: tuple[Any, Any],
    device: torch.device,
    out: Path | None,
) -> None:
    replay.tell("5.2    training an LLM")
    torch.manual_seed(123)
    model = book.GPTModel(SETTINGS).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-4, weight_decay=0.1)
    printed = _Printed(replay.tell)
    started = time.perf_counter()
    with contextlib.redirect_stdout(printed):
        train_losses, val_losses, seen = book.train_model_simple(
            model,
            *loaders,
            optimizer,
            device,
            EPOCHS,
            eval_freq=5,
            eval_iter=5,
            start_context=START,
            tokenizer=tokenizer,
        )
    minutes = (time.perf_counter() - started) / 60
    replay.note("5.2", "training", f"completed in {minutes:.2f} minutes")
    for step, tokens, expected in TABLE:
        got = f"{train_losses[step // 5]:.3f} {val_losses[step // 5]:.3f}"
        replay.random("5.2", f"train and val loss, step {step}", expected, got)
        if tokens != seen[step // 5]:
            replay.same("5.2", f"tokens seen, step {step}", tokens, seen[step // 5])
    replay.same("5.2", "tokens in all", 46_080, seen[-1] + 4 * 512)
    good = train_losses[-1] < 1 and val_losses[-1] < 7
    replay.band("5.2", "at the end, train < 1 and val < 7", "True", str(good), good)
    samples = [line for line in printed.lines if line.startswith(START)]
    for epoch, (expected, got) in enumerate(zip(SAMPLES, samples, strict=True), start=1):
        replay.random("5.2", f"sample of epoch {epoch}", expected, got)
    lowest = min(range(len(val_losses)), key=val_losses.__getitem__)
    replay.remarks += [
        f"Validation was best at step {5 * lowest} ({val_losses[lowest]:.3f}), about epoch {5 * lowest / 9:.1f}, while "
        f"the training loss went on falling to {train_losses[-1]:.3f}: the model learns the story by heart.",
        f'The longest text written word for word from the story: "{longest_overlap(samples[-1], text)}"',
    ]
    if out is not None:
        epochs = torch.linspace(0, EPOCHS, len(train_losses))
        for name in ("loss-plot.pdf", "loss-plot.png"):
            book.plot_losses(epochs, seen, train_losses, val_losses, out / name)


def _decoding(replay: Replay, out: Path | None) -> None:
    replay.tell("5.3    decoding strategies to control randomness")
    logits = torch.tensor(book.TOY_LOGITS)
    replay.same("5.3", "likeliest word", "forward", book.TOY_VOCABULARY[int(logits.argmax())])
    for temperature, expected in TOY_COUNTS.items():
        counts = book.sample_counts(book.softmax_with_temperature(logits, temperature))
        replay.random("5.3", f"1,000 draws at temperature {temperature:g}", expected, _spaced(counts))
    pizza = book.softmax_with_temperature(logits, 5)[book.TOY_VOCABULARY.index("pizza")]
    replay.close("5.3", "probability of pizza at temperature 5", ["0.0430"], [pizza.item()])
    top, places = torch.topk(logits, 3)
    replay.same("5.3", "top 3 logits", "6.75 6.28 4.51", _spaced(f"{value:.2f}" for value in top.tolist()))
    replay.same("5.3", "their positions", [3, 7, 0], places.tolist())
    kept = torch.where(logits < top[-1], torch.tensor(-torch.inf), logits).softmax(dim=0)
    printed = ["0.0615", "0.0000", "0.0000", "0.5775", "0.0000", "0.0000", "0.0000", "0.3610", "0.0000"]
    replay.close("5.3", "probabilities among the top 3", printed, kept.tolist())
    if out is not None:
        chances = {t: book.softmax_with_temperature(logits, t).tolist() for t in (1, 0.1, 5)}
        paths = [out / "temperature-plot.pdf", out / "temperature-plot.png"]
        plot_temperatures(book.TOY_VOCABULARY, chances, paths)


def _keeping(replay: Replay, tokenizer: Any) -> None:
    """Section 5.4 and exercise 5.3, on a small model of the book's shape."""
    replay.tell("5.4    loading and saving model weights")
    torch.manual_seed(123)
    small = {**SETTINGS, "emb_dim": 48, "n_heads": 4, "n_layers": 2}
    model = book.GPTModel(small)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    ids = torch.randint(0, 50257, (2, 17))
    _one_step(model, optimizer, ids)
    model.eval()
    file = io.BytesIO()
    torch.save({"model_state_dict": model.state_dict(), "optimizer_state_dict": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    again = book.GPTModel(small)
    again.load_state_dict(saved["model_state_dict"])
    restored = torch.optim.AdamW(again.parameters(), lr=5e-4, weight_decay=0.1)
    restored.load_state_dict(saved["optimizer_state_dict"])
    with torch.no_grad():
        replay.same("5.4", "logits after saving and loading", True, torch.equal(model(ids), again.eval()(ids)))
    replay.same("5.4", "the saved learning rate wins", 0.001, restored.param_groups[0]["lr"])
    for trained, by in ((model, optimizer), (again, restored)):
        _one_step(trained, by, ids)
    alike = all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    replay.same("5.4", "training goes on as if never stopped", True, alike)
    prompt = book.text_to_token_ids(START, tokenizer)
    ways = [{"temperature": 0.0}, {"temperature": 1.4, "top_k": 1}]
    texts = [book.generate(again, prompt, 15, 256, **way).tolist() for way in ways for _ in range(2)]
    replay.same("5.3", "temperature 0 and top-k 1 always write the same", True, all(t == texts[0] for t in texts))


def _one_step(model: book.GPTModel, optimizer: torch.optim.Optimizer, ids: Tensor) -> None:
    model.train()
    torch.manual_seed(7)
    optimizer.zero_grad()
    book.calc_loss_batch(ids[:, :-1], ids[:, 1:], model, "cpu").backward()
    optimizer.step()


def _model() -> book.GPTModel:
    torch.manual_seed(123)
    return book.GPTModel(SETTINGS).eval()


def _parameters(context_length: int = 256, *, qkv_bias: bool = False, tied: bool = False) -> int:
    config = book.model_config({**SETTINGS, "context_length": context_length, "qkv_bias": qkv_bias})
    return count_parameters(config.model_copy(update={"tie_embeddings": tied}))


def _parts(text: str) -> tuple[str, str]:
    boundary = int(0.90 * len(text))
    return text[:boundary], text[boundary:]


def _ids(text: str) -> list[int]:
    return book.gpt2_tokenizer().encode(text)


def _loaders(text: str, context: int) -> tuple[Any, Any]:
    train, val = _parts(text)
    sizes = {"batch_size": 2, "max_length": context, "stride": context, "num_workers": 0}
    return (
        book.create_dataloader_v1(train, **sizes, drop_last=True, shuffle=True),
        book.create_dataloader_v1(val, **sizes, drop_last=False, shuffle=False),
    )


def _spaced(values: Any) -> str:
    return " ".join(str(value) for value in values)


def _as_printed(value: float, like: str) -> str:
    """A number with as many digits as its model."""
    mantissa, exponent, _ = like.partition("e")
    digits = len(mantissa.partition(".")[2])
    return f"{value:.{digits}{'e' if exponent else 'f'}}"


class _Printed(io.TextIOBase):
    """What the book's loop prints: kept line by line, and passed on with the time that is left."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self.lines: list[str] = []
        self._tell = tell
        self._started = time.perf_counter()
        self._rest = ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self.lines.append(line)
            self._tell(line + self._time_left(line))
        return len(text)

    def _time_left(self, line: str) -> str:
        if "(Step " not in line:
            return ""
        done = int(line.partition("(Step ")[2].partition(")")[0]) + 1
        seconds = (time.perf_counter() - self._started) / done * (STEPS - done)
        return f"  ({done} of {STEPS}, about {math.ceil(seconds / 60)} min left)" if done > 1 else ""
