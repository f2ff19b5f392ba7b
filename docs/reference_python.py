"""The page of the Python API: every public name with its signature and docstring, and what the functions return."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from reference_text import fields_table, plain

import tokenloom
from tokenloom.evaluation.comparison import ComparedModel, ComparedNats, Comparison, TokenPart, WordPart, WordTotal
from tokenloom.evaluation.inspection import Inspection, ScoredToken, TokenAlternative
from tokenloom.evaluation.measurement import Evaluation, Measurement
from tokenloom.generation.text import TextCompletion
from tokenloom.run_records import Baselines, RunSummary
from tokenloom.tuning.result import SearchResult, TrialResult
from tokenloom.weights.load import LoadedModel

INTRODUCTION = """\
# Python API

```python
import tokenloom as tl
```

Importing `tokenloom` loads nothing else; torch is loaded when a name is used first. Whatever is wrong with input, files
or the machine is a `TokenloomError`; anything else is a bug. A `ModelReference` is what the command line calls MODEL,
as text or `Path`, or a model that `tl.load` returned, which is not loaded again. `Settings` are nested like the
[configuration](configuration.md): `{"train": {"max_steps": 100}}`.
"""
# What the functions return or take, in the order of the page.
CLASSES = (
    RunSummary,
    Baselines,
    Measurement,
    Evaluation,
    TextCompletion,
    Inspection,
    ScoredToken,
    TokenAlternative,
    Comparison,
    ComparedModel,
    ComparedNats,
    TokenPart,
    WordPart,
    WordTotal,
    LoadedModel,
    SearchResult,
    TrialResult,
)


def page() -> str:
    parts = [INTRODUCTION, "## Functions\n"]
    values = {name: getattr(tokenloom, name) for name in tokenloom.__all__ if name != "__version__"}
    functions = {name: value for name, value in values.items() if inspect.isfunction(value)}
    for name, function in functions.items():
        parts += [f"### {name}\n", f"```python\n{_signature(name, function)}\n```\n", _docstring(function)]
    parts.append("## Classes\n")
    for name, kind in values.items():
        if name not in functions:
            parts += [f"### {name}\n", _docstring(kind)]
            if name == "SamplingParams":
                parts.append(fields_table(kind) + "\n")
            if name == "Config":
                parts.append("The fields are those of the [configuration](configuration.md).\n")
    parts += ["`tokenloom.__version__` is the version, as text.\n", "## Results\n"]
    for kind in CLASSES:
        parts += [f"### {kind.__name__}\n", _docstring(kind), fields_table(kind) + "\n"]
    return "\n".join(parts)


def _signature(name: str, function: Callable[..., object]) -> str:
    """The signature, with one parameter on each line."""
    signature = inspect.signature(function)
    lines: list[str] = []
    keyword_only = False
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not keyword_only:
            keyword_only = True
            if not any(other.kind is parameter.VAR_POSITIONAL for other in signature.parameters.values()):
                lines.append("*")
        lines.append(str(parameter).replace("'", ""))
    inside = "".join(f"    {line},\n" for line in lines)
    returned = signature.return_annotation
    return f"tl.{name}(\n{inside}) -> {returned if isinstance(returned, str) else returned.__name__}"


def _docstring(value: object) -> str:
    return f"{plain(inspect.getdoc(value) or '')}\n"
