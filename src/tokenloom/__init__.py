"""Pretrain GPT language models from scratch, evaluate them, generate text with them, and export them.

import tokenloom as tl
tl.train("book.txt", out="runs/book")
tl.generate("runs/book", "Once upon a time")
"""

from __future__ import annotations

from importlib import import_module

__version__ = "0.1.0"

# The module of each public name. Imported on first access, because torch takes seconds to import and --help needs none
# of it.
_MODULES = {
    "Config": "tokenloom.config",
    "GPT2": "tokenloom.model",
    "Modern": "tokenloom.model",
    "SamplingParams": "tokenloom.sampling_params",
    "TokenloomError": "tokenloom.errors",
    "compare": "tokenloom.api",
    "evaluate": "tokenloom.api",
    "export": "tokenloom.api",
    "find_copied": "tokenloom.evaluation.copied_text",
    "generate": "tokenloom.api",
    "inspect": "tokenloom.api",
    "load": "tokenloom.weights.load",
    "load_tokenizer": "tokenloom.data.tokenizers",
    "prepare": "tokenloom.api",
    "resume": "tokenloom.api",
    "search": "tokenloom.tuning.search",
    "serve": "tokenloom.serving.launch",
    "train": "tokenloom.api",
}

__all__ = [
    "GPT2",
    "Config",
    "Modern",
    "SamplingParams",
    "TokenloomError",
    "__version__",
    "compare",
    "evaluate",
    "export",
    "find_copied",
    "generate",
    "inspect",
    "load",
    "load_tokenizer",
    "prepare",
    "resume",
    "search",
    "serve",
    "train",
]

TYPE_CHECKING = False  # not imported from typing, which takes longer than the start of the command
if TYPE_CHECKING:
    from tokenloom.api import compare, evaluate, export, generate, inspect, prepare, resume, train
    from tokenloom.config import Config
    from tokenloom.data.tokenizers import load_tokenizer
    from tokenloom.errors import TokenloomError
    from tokenloom.evaluation.copied_text import find_copied
    from tokenloom.model import GPT2, Modern
    from tokenloom.sampling_params import SamplingParams
    from tokenloom.serving.launch import serve
    from tokenloom.tuning.search import search
    from tokenloom.weights.load import load


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'tokenloom' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return __all__
