"""A model handed on: to Hugging Face, to llama.cpp, to PyTorch, to the book's own code."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import torch

from tokenloom.data.tokenizers.bpe import gpt2_tokenizer
from tokenloom.errors import UsageError, WeightsError
from tokenloom.weights.book_names import state_to_book
from tokenloom.weights.checkpoint import write_whole_file, write_whole_folder
from tokenloom.weights.folder import write_folder
from tokenloom.weights.gguf import GGUF, write_gguf
from tokenloom.weights.load import LoadedModel
from tokenloom.weights.model_card import model_card

Format = Literal["hf", "gguf", "pth", "book"]
FORMATS: tuple[str, ...] = get_args(Format)


def export_model(
    loaded: LoadedModel, out: Path, format: str, *, license: str | None = None, quantization: str | None = None
) -> list[str]:
    """Write a model to `out` and give what should be told about it; nothing that is there is overwritten.

    hf: a folder that `AutoModelForCausalLM` and `AutoTokenizer` open, with a model card (the GPT-2 family).
    gguf: a file for llama.cpp, its matrices in f32, f16 (if None) or q8_0 (the GPT-2 family with byte pairs).
    pth: a file of `torch.save`, with our names and the configuration, for either family.
    book: a file of `torch.save` that the book's GPTModel takes in its `load_state_dict`, strictly (the GPT-2 family).
    Raises `UsageError` and `WeightsError`.
    """
    if format not in FORMATS:
        raise UsageError(f'there is no format "{format}". Choose {", ".join(FORMATS)}.')
    if out.exists() and not (format == "hf" and out.is_dir() and not any(out.iterdir())):
        raise UsageError(f"{out} exists already. Choose another OUT.")
    endings = {"gguf": (GGUF,), "pth": (".pth", ".pt"), "book": (".pth", ".pt")}
    if format in endings and out.suffix.lower() not in endings[format]:
        ending = endings[format][0]
        raise UsageError(
            f"{format} writes one file, whose name should end in {ending}, got {out}. Name it {out}{ending}."
        )
    if quantization is not None and format != "gguf":
        raise UsageError(f"--quantization is for gguf; {format} keeps every bit. Leave it out, or use --format gguf.")
    if format == "gguf":
        write = partial(write_gguf, model=loaded.model, tokenizer=loaded.tokenizer, quantization=quantization or "f16")
        write_whole_file(out, write)
        return []
    if loaded.model.config.family != "gpt2" and format != "pth":
        raise WeightsError(
            f"the {loaded.model.config.family} family cannot be exported as {format}: nothing there computes it. "
            "Use --format pth."
        )
    if format == "hf":
        return _to_huggingface(loaded, out, license)
    content = _book_state(loaded) if format == "book" else _state_and_config(loaded)
    write_whole_file(out, lambda unfinished: torch.save(content, unfinished))
    if loaded.tokenizer.fingerprint == gpt2_tokenizer().fingerprint:
        return []
    return [f"{out.name} holds no tokenizer; this model's is {loaded.tokenizer.kind}, kept in {loaded.path}"]


def _to_huggingface(loaded: LoadedModel, out: Path, license: str | None) -> list[str]:
    def write(folder: Path) -> None:
        write_folder(folder, loaded.model, loaded.tokenizer.eot_id)
        loaded.tokenizer.save(folder)
        end = loaded.tokenizer.eot_id
        settings = {"bos_token_id": end, "eos_token_id": end, "pad_token_id": end}
        (folder / "generation_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        (folder / "README.md").write_text(model_card(loaded, license), encoding="utf-8")

    write_whole_folder(out, write)
    return [] if license else ["no licence is named in README.md; say --license before you publish it"]


def _state_and_config(loaded: LoadedModel) -> dict[str, object]:
    state = {name: tensor.detach() for name, tensor in loaded.model.state_dict().items()}
    return {"model_state_dict": state, "tokenloom": loaded.model.config.model_dump()}


def _book_state(loaded: LoadedModel) -> dict[str, object]:
    state = {name: tensor.detach() for name, tensor in loaded.model.state_dict().items()}
    # Copies: the book's parts of a tensor of ours, and a tied head, would share memory in the file.
    return {name: tensor.clone() for name, tensor in state_to_book(loaded.model.config, state).items()}
