"""The workloads of `tokenloom bench`, without their long runs."""

import pytest
import torch

from tokenloom.bench import chapter5, generate, loading, prepare, quality, train
from tokenloom.bench.harness import Measurement, Result
from tokenloom.bench.machine import Machine
from tokenloom.data import corpora
from tokenloom.weights.folder import write_folder

MACHINE = Machine("a processor", 2, 2, "2.13", fp32_gflops=100.0, bf16_gflops=400.0, read_gb_per_s=20.0)


@pytest.fixture
def few_docs(monkeypatch):
    """Docstrings that need not be collected from the standard library."""
    monkeypatch.setattr(corpora, "python_docs", lambda: [f"Return the number {n} of {n * n}." for n in range(200)])


@pytest.mark.parametrize("workload", [chapter5, generate, loading, prepare, quality, train], ids=lambda m: m.__name__)
def test_every_implementation_has_a_task(workload):
    groups = workload.IMPLEMENTATIONS
    implementations = sum(groups.values(), ()) if isinstance(groups, dict) else groups
    assert {item.name for item in implementations if item.command is None} <= set(workload.TASKS)


def test_batches_are_the_same_for_every_implementation(few_docs):
    first, second = train._batches(), train._batches()
    for step in (0, 7):
        ids, targets = first.batch(step)
        assert ids.shape == targets.shape == (2, 256)
        assert torch.equal(ids, second.batch(step)[0])


@pytest.mark.parametrize("name", ["book fp32", "transformers bf16", "tokenloom fp32", "tokenloom bf16"])
def test_every_implementation_trains_on_a_small_model(few_docs, monkeypatch, name):
    if name.startswith("book"):
        pytest.importorskip("llms_from_scratch", reason="the book's package is not installed")
    for constant, value in {"LAYERS": 1, "HEADS": 2, "WIDTH": 16, "CONTEXT": 32}.items():
        monkeypatch.setattr(train, constant, value)
    shape = "chapter" if name.startswith("book") else "gpt2"
    metrics = train.TASKS[name](shape=shape, seconds=0.0, steps=5)
    assert metrics["steps"] == 5
    assert 5 < metrics["loss"] < 13
    assert metrics["tokens_per_sec"] > 0


def test_every_implementation_generates_as_many_tokens(monkeypatch, tmp_path):
    for constant, value in {"LAYERS": 1, "HEADS": 2, "WIDTH": 32, "NEW_TOKENS": 5}.items():
        monkeypatch.setattr(generate, constant, value)
    generate.TASKS["write"](str(tmp_path))
    for name in ("transformers bf16", "tokenloom fp32", "tokenloom bf16", "tokenloom int8"):
        metrics = generate.TASKS[name](folder=str(tmp_path), batch=2)
        assert metrics["tokens"] == 10
        assert metrics["tokens_per_sec"] > 0


@pytest.mark.parametrize("name", ["the book", "tokenloom.book"])
def test_the_chapters_loop_is_timed(monkeypatch, texts_folder, name):
    if name == "the book":
        pytest.importorskip("llms_from_scratch", reason="the book's package is not installed")
    small = {**chapter5.GPT_CONFIG_124M, "emb_dim": 16, "n_heads": 2, "n_layers": 1}
    monkeypatch.setattr(chapter5, "GPT_CONFIG_124M", small)
    metrics = chapter5.TASKS[name](epochs=1)
    assert metrics["train_seconds"] > 0


def test_steps_are_counted_and_the_last_losses_averaged():
    metrics = train._measure(float, seconds=0.0, steps=20)
    assert metrics["steps"] == 20
    assert metrics["loss"] == pytest.approx(14.5)  # of steps 10 to 19


def test_utilization_is_relative_to_the_measured_peaks():
    fp32 = train.flops_utilization("tokenloom fp32", 100.0, MACHINE, shape="gpt2")
    bf16 = train.flops_utilization("tokenloom bf16", 100.0, MACHINE, shape="gpt2")
    assert fp32.share == pytest.approx(4 * bf16.share)
    int8 = generate.bandwidth_utilization("tokenloom int8", 10.0, MACHINE, batch=1)
    assert int8.share == pytest.approx(0.1236 / 2, rel=1e-3)


@pytest.mark.parametrize("name", ["tokenloom fp32", "transformers bf16"])
def test_loading_measures_the_size_of_the_weights(model_of, tmp_path, name):
    model = model_of("gpt2", tie_embeddings=True)
    write_folder(tmp_path, model, eot_id=0)
    bytes_per_weight = {"fp32": 4, "bf16": 2}[name.split()[-1]]
    metrics = loading.TASKS[name](folder=str(tmp_path))
    assert metrics["weights_mb"] == pytest.approx(bytes_per_weight * sum(p.numel() for p in model.parameters()) / 1e6)


def test_equal_output_is_recognized():
    def results(*checksums):
        return [Result(str(i), [Measurement(1.0, 1.0, {"output_crc32": c})]) for i, c in enumerate(checksums)]

    assert chapter5.same_output(results(5, 5))
    assert not chapter5.same_output(results(5, 6))
