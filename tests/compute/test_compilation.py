"""Compiled blocks have the same gradients, and a model whose compilation fails is trained uncompiled."""

import os
import tempfile

import pytest
import torch
from torch._dynamo.backends.common import aot_autograd

from tokenloom.compute import compilation
from tokenloom.compute.compilation import CACHE_VARIABLE, CompiledFunction, can_compile
from tokenloom.model.language_model import run_block


@pytest.fixture
def notices():
    return []


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.delenv(CACHE_VARIABLE, raising=False)
    monkeypatch.setenv("TOKENLOOM_CACHE", str(tmp_path))
    return tmp_path / "compiled"


def loss_and_gradients(model):
    ids, targets = torch.randint(0, 60, (2, 3, 16), generator=torch.Generator().manual_seed(0))
    model.zero_grad()
    value = model.loss(ids, targets, "sum")
    value.backward()
    return [value.detach(), *(parameter.grad.clone() for parameter in model.parameters())]


@pytest.mark.slow
@pytest.mark.skipif(not can_compile(torch.device("cpu")), reason="needs a C++ compiler and the headers of Python")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:The .grad attribute")  # from inside torch
def test_compiled_blocks_have_the_same_gradients(model, cache, notices):
    expected = loss_and_gradients(model)
    model.training_block = CompiledFunction(run_block, cache, notices.append)
    for compiled, plain in zip(loss_and_gradients(model), expected, strict=True):
        torch.testing.assert_close(compiled, plain, rtol=1e-4, atol=1e-3)  # fused fp32 sums of hundreds of terms
    assert notices == []
    assert any(cache.iterdir())


def test_a_block_is_compiled_only_where_gradients_are_computed(model, cache, monkeypatch):
    calls = []
    monkeypatch.setattr(torch, "compile", lambda function, **_: lambda *args: calls.append(1) or function(*args))
    model.training_block = CompiledFunction(run_block, cache, print)
    with torch.no_grad():
        model(torch.zeros(1, 4, dtype=torch.long))
    assert calls == []
    loss_and_gradients(model)
    assert len(calls) == model.config.n_layer


def test_a_model_that_cannot_be_compiled_is_trained_uncompiled(model, cache, notices, monkeypatch):
    def compile_failing(function, **_):
        def fail(*args):
            raise type("BackendCompilerFailed", (RuntimeError,), {"__module__": "torch._dynamo.exc"})("no compiler\nx")

        return fail

    expected = loss_and_gradients(model)
    monkeypatch.setattr(torch, "compile", compile_failing)
    model.training_block = CompiledFunction(run_block, cache, notices.append)
    for actual, plain in zip(loss_and_gradients(model), expected, strict=True):
        assert torch.equal(actual, plain)
    assert notices == ["the model runs uncompiled, because compiling it failed: no compiler"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:The .grad attribute")  # from inside torch
def test_a_model_whose_backward_pass_cannot_be_compiled_is_trained_uncompiled(model, cache, notices, monkeypatch):
    def fail(graph, inputs):
        raise type("InductorError", (RuntimeError,), {"__module__": "torch._inductor.exc"})("g++ was stopped")

    expected = loss_and_gradients(model)
    backend = aot_autograd(fw_compiler=lambda graph, inputs: graph.forward, bw_compiler=fail)
    compile_function = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **_: compile_function(function, backend=backend))
    model.training_block = CompiledFunction(run_block, cache, notices.append)
    for actual, plain in zip(loss_and_gradients(model), expected, strict=True):
        assert torch.equal(actual, plain)
    [notice] = notices
    assert notice.startswith("the model runs uncompiled, because compiling it failed: ")


def test_the_folder_of_compiled_code_is_ours_unless_the_user_has_set_one(cache, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    for folder, expected in ((None, cache), (f"{tempfile.gettempdir()}/torchinductor_me", cache), ("/mine", "/mine")):
        if folder:
            monkeypatch.setenv(CACHE_VARIABLE, folder)
        CompiledFunction(run_block, cache, print)
        assert os.environ[CACHE_VARIABLE] == str(expected)


def test_other_errors_are_not_hidden(cache, notices, monkeypatch):
    def fail(*args):
        raise ValueError("a mistake of the caller")

    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    with pytest.raises(ValueError, match="a mistake"):
        CompiledFunction(fail, cache, notices.append)()


def test_compiling_needs_a_compiler(monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(compilation.shutil, "which", lambda name: None)
    assert not can_compile(torch.device("cpu"))
    assert not can_compile(torch.device("mps"))
