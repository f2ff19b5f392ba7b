"""tokenloom export: convert a model to another format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tokenloom.cli.models import load_model
from tokenloom.cli.output import print_json, print_notice, print_result
from tokenloom.cli.parameters import ARGUMENTS, OUTPUT, Json, ModelArgument, Trust


def export(
    model: ModelArgument,
    out: Annotated[Path, Parameter(group=ARGUMENTS)],
    *,
    format: Annotated[str | None, Parameter(group=OUTPUT)] = None,
    quantization: Annotated[str | None, Parameter(group=OUTPUT)] = None,
    license: Annotated[str | None, Parameter(group=OUTPUT)] = None,
    trust: Trust = False,
    json: Json = False,
) -> None:
    """Export a model for Hugging Face transformers, llama.cpp, PyTorch or the book's code.

    Existing files are never overwritten.

    Parameters
    ----------
    out
        Folder (hf) or file (gguf, pth, book) to write.
    format
        hf, gguf, pth or book. Defaults to the format of OUT's suffix (.gguf, .pth), otherwise hf.
    quantization
        Data type of the matrices in a gguf file: f32, f16 or q8_0. Defaults to f16.
    license
        License to state in the model card, such as apache-2.0.
    """
    from tokenloom import api

    loaded = load_model(model, trust=trust)
    notices = api.export(loaded, out, format=format, license=license, quantization=quantization)
    for notice in notices:
        print_notice(notice)
    files = sorted(out.iterdir()) if out.is_dir() else [out]
    sizes = {str(file): file.stat().st_size for file in files}
    if json:
        print_json({"files": sizes})
    else:
        print_result("\n".join(f"{size:>14,}  {file}" for file, size in sizes.items()))
