"""Export to the formats of Hugging Face, llama.cpp, PyTorch and the book's own code."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from tokenloom.data.tokenizers.bpe import gpt2_tokenizer
from tokenloom.data.tokenizers.huggingface_files import TOKENIZER_JSON
from tokenloom.errors import UsageError, WeightsError
from tokenloom.weights.book_names import state_to_book
from tokenloom.weights.folder import write_folder
from tokenloom.weights.gguf import GGUF, write_gguf
from tokenloom.weights.load import LoadedModel
from tokenloom.weights.model_card import model_card
from tokenloom.weights.output import output_file, output_folder
from tokenloom.weights.torch_files import TORCH_SUFFIXES


def export_model(
    loaded: LoadedModel,
    out: Path,
    format: str | None = None,
    *,
    license: str | None = None,
    quantization: str | None = None,
) -> list[str]:
    """Write a model to `out` and return notices for the user; existing files are never overwritten.

    hf: a folder for `AutoModelForCausalLM` and `AutoTokenizer`, with a model card.
    gguf: a file for llama.cpp, with matrices in f32, f16 (the default) or q8_0 (byte-pair encoding only).
    pth: a file of `torch.save` with Tokenloom's names and the configuration.
    book: a file of `torch.save` that loads strictly into the book's GPTModel (GPT-2 family).
    Without a format, the suffix of `out` selects it (.gguf, .pth); the default is hf. Raises `UsageError` for invalid
    arguments, `WeightsError` for a model that the format does not support, and `CheckpointError` if writing fails.
    """
    name = format or _FORMAT_OF_SUFFIX.get(out.suffix.lower(), "hf")
    if format is None and out.suffix.lower() in _OTHER_SUFFIXES:
        raise UsageError(
            f"{out} would be a folder for transformers, not a {out.suffix} file. Name a folder, a .gguf or a .pth."
        )
    if name not in _FORMATS:
        raise UsageError(f'there is no format "{name}". Choose from {", ".join(FORMATS)}.')
    target = _FORMATS[name]
    if out.exists() and (target.suffixes or not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} already exists. Choose another OUT.")
    if target.suffixes and out.suffix.lower() not in target.suffixes:
        suffix = target.suffixes[0]
        raise UsageError(f"{name} writes a file whose name must end in {suffix}, got {out}. Name it {out}{suffix}.")
    if quantization is not None and name != "gguf":
        raise UsageError(f"--quantization applies only to gguf, not to {name}. Leave it out, or use --format gguf.")
    family = loaded.model.config.family
    if target.gpt2_only and family != "gpt2":
        raise WeightsError(
            f"the {family} family cannot be exported as {name}, which has no such architecture. Use --format pth."
        )
    return target.write(loaded, out, _Options(license, quantization))


@dataclass(frozen=True)
class _Options:
    license: str | None
    quantization: str | None


def _write_hf(loaded: LoadedModel, out: Path, options: _Options) -> list[str]:
    eot_id, bos_id = loaded.tokenizer.eot_id, loaded.tokenizer.bos_id
    settings = {"bos_token_id": bos_id, "eos_token_id": eot_id, "pad_token_id": eot_id}
    with output_folder(out) as folder:
        write_folder(folder, loaded.model, eot_id, bos_id)
        loaded.tokenizer.save(folder)
        (folder / "generation_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        card = model_card(loaded, options.license)
        (folder / "README.md").write_text(card, encoding="utf-8", errors="backslashreplace")
    return [] if options.license else ["README.md states no license; pass --license before you publish the model"]


def _write_gguf(loaded: LoadedModel, out: Path, options: _Options) -> list[str]:
    with output_file(out) as file:
        write_gguf(file, loaded.model, loaded.tokenizer, options.quantization or "f16")
    return []


def _write_pth(loaded: LoadedModel, out: Path, options: _Options) -> list[str]:
    state = {name: tensor.detach() for name, tensor in loaded.model.state_dict().items()}
    return _save(loaded, out, {"model_state_dict": state, "tokenloom": loaded.model.config.model_dump()})


def _write_book(loaded: LoadedModel, out: Path, options: _Options) -> list[str]:
    if loaded.model.config.gelu != "tanh":
        raise WeightsError(
            "this model computes the exact GELU and cannot be exported as book: the book's computes its tanh form. "
            "Use --format hf or pth."
        )
    state = {name: tensor.detach() for name, tensor in loaded.model.state_dict().items()}
    book_state = state_to_book(loaded.model.config, state)
    # Copies: the parts of a fused tensor, and a tied head, would share storage in the file.
    return _save(loaded, out, {name: tensor.clone() for name, tensor in book_state.items()})


def _save(loaded: LoadedModel, out: Path, content: Mapping[str, object]) -> list[str]:
    # Into an open file: given a path, torch.save stores the temporary name in the archive.
    with output_file(out) as path, path.open("wb") as file:
        torch.save(content, file)
    if loaded.tokenizer.fingerprint == gpt2_tokenizer().fingerprint:
        return []
    file = loaded.path / TOKENIZER_JSON
    advice = (
        f"Copy {file} into its folder" if file.is_file() else "Copy the tokenizer.json of the model into its folder"
    )
    return [f"{out.name} contains no tokenizer. {advice} before you use it as a model of Tokenloom"]


@dataclass(frozen=True)
class _Format:
    write: Callable[[LoadedModel, Path, _Options], list[str]]
    suffixes: tuple[str, ...] = ()
    """Accepted suffixes of its one file; none for a folder."""
    gpt2_only: bool = False
    """Whether to refuse other families."""


# To add an export format: a function that writes it, and a row here.
_FORMATS: Mapping[str, _Format] = {
    "hf": _Format(_write_hf),
    "gguf": _Format(_write_gguf, (GGUF,)),
    "pth": _Format(_write_pth, (".pth", ".pt")),
    "book": _Format(_write_book, (".pth", ".pt"), gpt2_only=True),
}
FORMATS = tuple(_FORMATS)
# Of files of weights that are not written: a folder of such a name would be taken for one.
_OTHER_SUFFIXES = (".onnx", ".safetensors", ".bin", ".ckpt", ".h5", ".tflite")
_FORMAT_OF_SUFFIX: Mapping[str, str] = {GGUF: "gguf", **dict.fromkeys(TORCH_SUFFIXES, "pth")}
