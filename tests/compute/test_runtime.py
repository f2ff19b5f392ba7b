"""Device, precision, random seeds, speed and memory."""

from mmap import mmap

import psutil
import pytest
import torch

from tokenloom.compute.runtime import (
    Runtime,
    available_memory,
    choose_runtime,
    peak_flops,
    peak_memory_mb,
    seed_step,
)
from tokenloom.errors import UsageError

CPU = torch.device("cpu")


# Device and precision


def test_a_device_and_a_precision_can_be_chosen_by_name():
    assert choose_runtime("cpu", "fp32") == Runtime(CPU, "fp32")
    assert choose_runtime("cpu", "bf16").dtype == torch.bfloat16
    assert choose_runtime("cpu:0", "fp32").device.type == "cpu"


def test_the_default_device_is_the_fastest_available():
    runtime = choose_runtime()
    expected = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert runtime.device.type == expected
    torch.zeros(1, device=runtime.device)
    assert choose_runtime("cpu").precision in ("fp32", "bf16")


@pytest.mark.parametrize(
    ("device", "precision", "message"),
    [
        ("toaster", "fp32", 'device "toaster" is not supported. Choose auto, cpu'),
        ("", "fp32", 'device "" is not supported'),
        ("meta", "fp32", 'device "meta" is not available on this machine'),
        ("cpu", "fp8", 'precision "fp8" is not supported. Choose auto, fp32, bf16 or fp16'),
        ("cpu", "fp16", "fp16 is not supported on a CPU"),
    ],
)
def test_unsupported_values_are_refused_in_one_line(device, precision, message):
    with pytest.raises(UsageError, match=message) as refused:
        choose_runtime(device, precision)
    assert "\n" not in str(refused.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_a_missing_gpu_is_refused(name):
    with pytest.raises(UsageError, match=f'device "{name}" is not available on this machine'):
        choose_runtime(name)


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_matrix_products_use_the_precision_and_weights_stay_in_fp32(precision, dtype):
    layer, x = torch.nn.Linear(4, 4), torch.ones(2, 4)
    with choose_runtime("cpu", precision).autocast():
        y = layer(x)
    assert (y.dtype, layer.weight.dtype) == (dtype, torch.float32)
    assert layer(x).dtype == torch.float32
    y.float().sum().backward()
    assert layer.weight.grad.dtype == torch.float32


def test_synchronizing_a_cpu_does_nothing():
    Runtime(CPU, "fp32").synchronize()


# Randomness


def random_numbers(seed, step, rank) -> tuple[float, ...]:
    seed_step(seed, step, rank)
    return tuple(torch.rand(4).tolist())


def test_random_numbers_of_a_step_depend_only_on_seed_step_and_rank():
    first = random_numbers(1, 2, 3)
    torch.rand(100)
    random_numbers(5, 5, 5)
    assert random_numbers(1, 2, 3) == first


def test_random_numbers_differ_between_seeds_steps_and_ranks():
    triples = [(seed, step, rank) for seed in (0, 1, 12) for step in (0, 1, 2, 12, 112) for rank in (0, 1, 2, 11)]
    assert len({random_numbers(*triple) for triple in triples}) == len(triples)


# Speed and memory


def test_peak_flops_are_measured():
    flops = peak_flops(Runtime(CPU, "fp32"), size=256, seconds=0.02)
    assert 1e8 < flops < 1e15


def test_peak_memory_includes_memory_that_was_freed():
    mapping = mmap(-1, 200_000_000)  # bypasses malloc, which may keep freed memory
    mapping.write(b"1" * len(mapping))
    resident = psutil.Process().memory_info().rss / 1e6
    mapping.close()
    assert psutil.Process().memory_info().rss / 1e6 < resident - 100
    assert peak_memory_mb(CPU) > resident - 10


def test_available_memory_is_in_bytes():
    assert available_memory(CPU) > 1_000_000


# Compiling
