"""OpenAI's GPT-2 as it was published: seven files, of which TensorFlow wrote three (section 5.5)."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from tokenloom.config import Config
from tokenloom.data.tokenizers import Tokenizer, load_tokenizer
from tokenloom.data.tokenizers.bpe import GPT2_MERGES_SHA256
from tokenloom.errors import WeightsError
from tokenloom.weights.lazy_tensors import LazyModel, LazyOrTransposed, Transposed
from tokenloom.weights.tensor_bundle import BundleTensor, open_bundle

SETTINGS = {
    "n_vocab": "vocab_size",
    "n_ctx": "block_size",
    "n_embd": "n_embd",
    "n_head": "n_head",
    "n_layer": "n_layer",
}
_OUTSIDE = {"wte": "wte.weight", "wpe": "wpe.weight"}
_KINDS = {"g": "weight", "w": "weight", "b": "bias"}


def is_openai_folder(path: Path) -> bool:
    return (path / "hparams.json").is_file() and not (path / "config.json").exists()


def read_openai(folder: Path) -> LazyModel:
    """The model in a folder of OpenAI's, its bytes checked; raises `WeightsError` naming what is wrong."""
    tensors: dict[str, LazyOrTransposed] = {}
    for name, tensor in _variables(folder).items():
        tensor.check()
        ours, tensor = _our_name(name), tensor.without_leading_ones()
        # OpenAI's matrices are (inputs, outputs), ours nn.Linear's (outputs, inputs).
        tensors[ours] = Transposed(tensor) if name.endswith("/w") else tensor
    values = {ours: _hparams(folder)[theirs] for theirs, ours in SETTINGS.items()}
    fixed = {"family": "gpt2", "tie_embeddings": True, "qkv_bias": True, "dropout": 0.1}
    return LazyModel(Config.of({"model": {**values, **fixed}}).model, tensors, str(folder))


def check_openai(folder: Path) -> None:
    """Raises `WeightsError` unless every byte of the weights is the one that was written."""
    for tensor in _variables(folder).values():
        tensor.check()


def openai_tokenizer(folder: Path) -> Tokenizer:
    """GPT-2's tokenizer, if its merge list is the one in the folder; raises `WeightsError` for another."""
    file = folder / "vocab.bpe"
    if file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() != GPT2_MERGES_SHA256:
        raise WeightsError(
            f"{file} is not GPT-2's merge list. Fetch it again, or give the model as a Hugging Face folder."
        )
    return load_tokenizer("gpt2")


def parameters_as_book(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """OpenAI's settings, and its weights nested as the book's `download_and_load_gpt2` gives them (numpy, fp32)."""
    settings = _hparams(folder)
    params: dict[str, Any] = {"blocks": [{} for _ in range(settings["n_layer"])]}
    for name, tensor in _variables(folder).items():
        tensor.check()
        *path, last = name.removeprefix("model/").removeprefix("ln_f/").split("/")
        place = params
        if path and (block := re.fullmatch(r"h(\d+)", path[0])):
            place = params["blocks"][int(block[1])]
            path = path[1:]
        for part in path:
            place = place.setdefault(part, {})
        place[last] = tensor.without_leading_ones()[:].numpy()
    return settings, params


def _variables(folder: Path) -> dict[str, BundleTensor]:
    checkpoint = folder / "checkpoint"
    text = checkpoint.read_text(encoding="utf-8", errors="replace") if checkpoint.is_file() else ""
    named = re.search(r'^model_checkpoint_path:\s*"([^"]+)"', text, flags=re.MULTILINE)
    # The name alone: wherever the checkpoint lay when it was written, its files lie in this folder now.
    tensors = open_bundle(folder / (Path(named[1]).name if named else "model.ckpt"))
    strange = [name for name in tensors if not name.startswith("model/")]
    if strange:
        raise WeightsError(f"{folder} has the variable {strange[0]}, which GPT-2 has not. Use OpenAI's own files.")
    return tensors


def _our_name(name: str) -> str:
    parts = name.removeprefix("model/").split("/")
    if len(parts) == 1:
        return _OUTSIDE.get(parts[0], parts[0])
    block = re.fullmatch(r"h(\d+)", parts[0])
    place = [f"h.{block[1]}", *parts[1:-1]] if block else parts[:-1]
    return ".".join([*place, _KINDS.get(parts[-1], parts[-1])])


def _hparams(folder: Path) -> dict[str, int]:
    file = folder / "hparams.json"
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        return {name: int(values[name]) for name in SETTINGS}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{file} cannot be used: {error!r}. Fetch it again.") from None
