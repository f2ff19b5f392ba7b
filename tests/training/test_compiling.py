"""Training runs compiled if it takes long enough, and what was compiled while it was planned is used."""

import torch

from tokenloom import api
from tokenloom.compute.runtime import choose_runtime
from tokenloom.training import compiling
from tokenloom.training.compiling import COMPILE_MIN_SECONDS, pays_to_compile

TINY = {
    "model": {"n_layer": 1, "n_head": 1, "n_embd": 16, "block_size": 16},
    "data": {"tokenizer": "byte"},
    "train": {"compile": True, "max_steps": 3, "batch_size": 2},
    "sample": {"max_new_tokens": 0},
}


def test_only_long_runs_are_compiled(monkeypatch):
    runtime = choose_runtime("cpu", "fp32")
    monkeypatch.setattr(compiling, "can_compile", lambda device: True)
    assert pays_to_compile(runtime, COMPILE_MIN_SECONDS)
    assert not pays_to_compile(runtime, COMPILE_MIN_SECONDS - 1)
    monkeypatch.setattr(compiling, "can_compile", lambda device: False)
    assert not pays_to_compile(runtime, COMPILE_MIN_SECONDS)


def test_the_block_that_was_compiled_for_the_plan_is_used_in_training(tmp_path, monkeypatch):
    monkeypatch.setenv("TOKENLOOM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "text.txt").write_text("all work and no play makes Jack a dull boy\n" * 100)
    created = []

    class Recorded:
        def __init__(self, function, *_):
            self.function, self.calls = function, 0
            created.append(self)

        def __call__(self, *arguments):
            self.calls += torch.is_grad_enabled()
            return self.function(*arguments)

    monkeypatch.setattr(compiling, "CompiledFunction", Recorded)
    api.train(tmp_path / "text.txt", out=tmp_path / "run", budget=40, settings=TINY, quiet=True)
    assert created[0].calls > 3
    assert [block.calls for block in created[1:]] == [0]
