"""tokenloom export: a model handed on."""

from __future__ import annotations

import json as json_format
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tokenloom.cli.models import load_model


def export(
    model: str,
    out: Path,
    *,
    format: str | None = None,
    license: str | None = None,
    quantization: str | None = None,
    trust: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Hand a model on. Nothing that is there is overwritten.

    Parameters
    ----------
    model
        A run (or RUN@best, RUN@step-1000), a checkpoint, a folder of GPT-2 from Hugging Face or OpenAI, or a .pth.
    out
        The folder (hf) or file (gguf, pth, book) to write.
    format
        hf, gguf, pth or book; if left out, as OUT ends (.gguf, .pth), else hf.
    license
        What the model card states, such as apache-2.0.
    quantization
        f32, f16 (if left out) or q8_0, for gguf.
    trust
        Let a .pth that holds more than tensors run its own code while it is read.
    json
        Print one JSON object on stdout.
    """
    from tokenloom import api

    loaded = load_model(model, trust=trust)
    notices = api.export(loaded, out, format=format, license=license, quantization=quantization)
    for notice in notices:
        print(f"tokenloom: {notice}", file=sys.stderr)
    files = sorted(out.iterdir()) if out.is_dir() else [out]
    sizes = {str(file): file.stat().st_size for file in files}
    print(json_format.dumps({"files": sizes}) if json else "\n".join(f"{n:>14,}  {f}" for f, n in sizes.items()))
