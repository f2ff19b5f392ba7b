"""Compilation with torch.compile: whether it is possible, and functions that run uncompiled if it fails."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sysconfig
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"


def can_compile(device: torch.device) -> bool:
    """Whether torch.compile has what it needs: Triton for a GPU; a C++ compiler and Python's headers for a CPU."""
    if device.type != "cpu":
        return device.type == "cuda" and importlib.util.find_spec("triton") is not None
    compilers = (os.environ.get("CXX"), "g++", "clang++", "cl")
    headers = Path(sysconfig.get_paths()["include"], "Python.h")
    return any(name and shutil.which(name) for name in compilers) and headers.exists()


class CompiledFunction:
    """`function`, compiled for each combination of argument shapes; it runs uncompiled if that fails.

    Compiled code is kept in the folder `cache`, where the next process finds it: compiling a block takes 20 seconds on
    two CPU cores, loading it three. `report` is called with the reason if compiling fails.
    """

    def __init__(self, function: Callable[..., Tensor], cache: Path, report: Callable[[str], None]) -> None:
        if _is_chosen_by_torch(os.environ.get(CACHE_VARIABLE)):
            os.environ[CACHE_VARIABLE] = str(cache)
        self._function, self._report = function, report
        self._compiled: Callable[..., Tensor] | None = torch.compile(function, dynamic=False)  # pyright: ignore  # torch does not annotate it

    def __call__(self, *args: object) -> Tensor:
        if self._compiled is None:
            return self._function(*args)
        try:
            # The backward pass is compiled as well, not when it is first computed, where its errors are not caught.
            with torch._functorch.config.patch(force_non_lazy_backward_lowering=True):  # pyright: ignore
                return self._compiled(*args)
        except Exception as error:
            if not _is_compiler_error(error):
                raise
            self._compiled = None
            reason = str(error).strip().splitlines()[0]
            self._report(f"the model runs uncompiled, because compiling it failed: {reason}")
            return self._function(*args)


def _is_chosen_by_torch(folder: str | None) -> bool:
    """Whether a folder of compiled code is not the user's: torch sets the variable when an optimizer is created."""
    path = Path(folder or "")
    return not folder or (path.parent == Path(tempfile.gettempdir()) and path.name.startswith("torchinductor_"))


def _is_compiler_error(error: Exception) -> bool:
    # By name: importing the modules of these errors takes seconds.
    return type(error).__module__.startswith(("torch._dynamo", "torch._inductor"))
