"""Where the arithmetic runs, how precisely, and what it draws."""

from mmap import mmap

import psutil
import pytest
import torch

from tokenloom.compute.runtime import (
    Runtime,
    available_memory,
    choose_runtime,
    compile_loss,
    peak_flops,
    peak_memory_mb,
    seed_step,
)
from tokenloom.errors import UsageError

CPU = torch.device("cpu")


# Device and precision


def test_a_device_and_a_precision_may_be_asked_for_by_name():
    assert choose_runtime("cpu", "fp32") == Runtime(CPU, "fp32")
    assert choose_runtime("cpu", "bf16").dtype == torch.bfloat16
    assert choose_runtime("cpu:0", "fp32").device.type == "cpu"


def test_left_alone_it_takes_what_is_there():
    runtime = choose_runtime()
    expected = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert runtime.device.type == expected
    torch.zeros(1, device=runtime.device)
    assert choose_runtime("cpu").precision in ("fp32", "bf16")


@pytest.mark.parametrize(
    ("device", "precision", "said"),
    [
        ("toaster", "fp32", 'device "toaster" is not supported. Choose auto, cpu'),
        ("", "fp32", 'device "" is not supported'),
        ("meta", "fp32", 'device "meta" is not available on this machine'),
        ("cpu", "fp8", 'precision "fp8" is not supported. Choose auto, fp32, bf16 or fp16'),
        ("cpu", "fp16", "fp16 is not supported on a CPU"),
    ],
)
def test_what_is_not_there_is_refused_in_one_line(device, precision, said):
    with pytest.raises(UsageError, match=said) as refused:
        choose_runtime(device, precision)
    assert "\n" not in str(refused.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_a_gpu_that_is_not_there_is_refused(name):
    with pytest.raises(UsageError, match=f'device "{name}" is not available on this machine'):
        choose_runtime(name)


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_products_run_in_the_runtimes_precision_and_weights_stay(precision, dtype):
    layer, x = torch.nn.Linear(4, 4), torch.ones(2, 4)
    with choose_runtime("cpu", precision).autocast():
        y = layer(x)
    assert (y.dtype, layer.weight.dtype) == (dtype, torch.float32)
    assert layer(x).dtype == torch.float32
    y.float().sum().backward()
    assert layer.weight.grad.dtype == torch.float32


def test_waiting_for_a_cpu_is_nothing():
    Runtime(CPU, "fp32").synchronize()


# Randomness


def draws(seed, step, rank) -> tuple[float, ...]:
    seed_step(seed, step, rank)
    return tuple(torch.rand(4).tolist())


def test_what_an_update_draws_depends_on_seed_step_and_rank_alone():
    first = draws(1, 2, 3)
    torch.rand(100)
    draws(5, 5, 5)
    assert draws(1, 2, 3) == first


def test_no_two_updates_draw_the_same():
    triples = [(seed, step, rank) for seed in (0, 1, 12) for step in (0, 1, 2, 12, 112) for rank in (0, 1, 2, 11)]
    assert len({draws(*triple) for triple in triples}) == len(triples)


# Speed and memory


def test_the_ceiling_is_measured():
    flops = peak_flops(Runtime(CPU, "fp32"), size=256, seconds=0.02)
    assert 1e8 < flops < 1e15


def test_the_most_memory_that_was_held_is_counted_and_not_what_is_held_now():
    held = mmap(-1, 200_000_000)  # straight from the system: what is freed goes back, whatever malloc was told to keep
    held.write(b"1" * len(held))
    resident = psutil.Process().memory_info().rss / 1e6
    held.close()
    assert psutil.Process().memory_info().rss / 1e6 < resident - 100
    assert peak_memory_mb(CPU) > resident - 10


def test_free_memory_is_a_number_of_bytes():
    assert available_memory(CPU) > 1_000_000


# Compiling


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch, about itself
def test_a_compiled_loss_has_the_gradients_of_the_plain_one(model):
    ids, targets = torch.randint(0, 60, (2, 3, 16), generator=torch.Generator().manual_seed(0))

    def look(loss):
        model.zero_grad()
        value = loss(ids, targets, "sum")
        value.backward()
        return [value.detach(), *(parameter.grad.clone() for parameter in model.parameters())]

    for compiled, plain in zip(look(compile_loss(model.loss)), look(model.loss), strict=True):
        torch.testing.assert_close(compiled, plain, rtol=1e-4, atol=1e-3)  # fused sums in fp32, of hundreds of terms
