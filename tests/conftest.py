"""Small models with random weights, far enough from the initial ones that every weight affects the logits."""

import os
import signal
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from tokenloom.config import ModelConfig
from tokenloom.data.token_reader import TokenArray
from tokenloom.data.tokenizers import load_tokenizer
from tokenloom.model.gpt2 import GPT2
from tokenloom.model.modern import Modern

if "PYTEST_XDIST_WORKER" in os.environ:  # tests run in several processes, so each of them computes on one core
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # in the processes that tests start

# nohup and shells that run a command in the background ignore these, here and in the processes that tests start.
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# No deadlines: the time of an example depends on the load of the machine.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")

# With a tied head, untrained models repeat the last token, and all greedy texts would be the same.
SHAPE = {"vocab_size": 60, "block_size": 16, "n_layer": 2, "n_embd": 16, "tie_embeddings": False}
MODELS = {
    "gpt2": (GPT2, ModelConfig(family="gpt2", n_head=2, **SHAPE)),
    "modern": (Modern, ModelConfig(n_head=4, n_kv_head=2, head_dim=6, n_inner=24, **SHAPE)),
}

# The files that take longest, which several processes start first: so none is busy for long while others have nothing
# left to do. A run names those that are missing here.
LONGEST = (
    "training/test_run.py",
    "book/test_replay.py",
    "model/test_gpt2.py",
    "documentation/test_page_commands.py",
    "test_readme.py",
    "serving/test_schema_conformance.py",
    "sharding/test_sharding.py",
    "documentation/test_site.py",
    "faults/test_standard_streams.py",
    "training/test_ranks.py",
    "training/test_stopping.py",
    "cli/test_train_page.py",
    "faults/test_command_line_fuzz.py",
    "serving/test_page_training.py",
    "weights/test_huggingface_qwen3.py",
    "cli/test_signals.py",
    "weights/test_download.py",
    "data/test_chunking.py",
    "serving/test_page_accessibility.py",
    "book/test_training.py",
)
LONG_SECONDS = 20


def pytest_collection_modifyitems(config, items):
    """Put the longest files first; otherwise the order stays."""
    order = {config.rootpath / "tests" / name: number for number, name in enumerate(LONGEST)}
    if missing := [str(path) for path in order if not path.exists()]:
        raise pytest.UsageError(f"LONGEST in tests/conftest.py names files that do not exist: {', '.join(missing)}")
    items.sort(key=lambda item: order.get(item.path, len(order)))


def pytest_terminal_summary(terminalreporter, config):
    """Name the files that should be in `LONGEST`, after a run in several processes."""
    if getattr(config.option, "dist", "no") == "no":
        return
    seconds = Counter()
    for report in (one for reports in terminalreporter.stats.values() for one in reports):
        if isinstance(report, pytest.TestReport):
            seconds[report.location[0]] += report.duration
    for file, total in seconds.most_common():
        if total > LONG_SECONDS and Path(file).relative_to("tests").as_posix() not in LONGEST:
            terminalreporter.write_line(f"{file} took {total:.0f} s: add it to LONGEST in tests/conftest.py")


@pytest.fixture(scope="session", autouse=True)
def short_runs():
    """Without what takes most of the time of a run of few steps: the peak of the machine is not measured, and the plots
    of losses are empty files. Both have tests of their own, and processes that tests start do both.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tokenloom.training.run.peak_flops", lambda _: 1e9)
        patch.setattr("tokenloom.reporting.report.plot_losses", lambda _, paths, **__: [path.touch() for path in paths])
        yield


@pytest.fixture(params=MODELS)
def model(request):
    return make_model(request.param)


@pytest.fixture
def model_of():
    """Creates one of these models: `model_of("gpt2", dropout=0.1)`."""
    return make_model


@pytest.fixture(scope="session")
def texts_folder() -> Path:
    folder = os.environ.get("TOKENLOOM_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("TOKENLOOM_DATA is not a folder with the-verdict.txt and tinyshakespeare.txt")
    return Path(folder)


@pytest.fixture(scope="session")
def verdict(texts_folder: Path) -> str:
    return (texts_folder / "the-verdict.txt").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def verdict_tokens(verdict: str) -> dict[str, TokenArray]:
    """The story as the book splits it: the first 90% of its characters for training, the rest for validation."""
    tokenizer, boundary = load_tokenizer("gpt2"), int(0.9 * len(verdict))
    parts = {"train": verdict[:boundary], "val": verdict[boundary:]}
    return {name: TokenArray(tokenizer.encode_array(part)) for name, part in parts.items()}


def make_model(name, **changes):
    family, config = MODELS[name]
    random = torch.Generator().manual_seed(7)
    built = family(config.model_copy(update=changes), random)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=random)
    return built.eval()
