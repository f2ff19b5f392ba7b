"""GPT-2 as published by OpenAI: a TensorFlow checkpoint, settings and tokenizer in seven files (section 5.5)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, TypeAlias

from tokenloom.config import Config
from tokenloom.data.tokenizers import Tokenizer, load_tokenizer
from tokenloom.data.tokenizers.bpe import GPT2_MERGES_SHA256
from tokenloom.errors import WeightsError
from tokenloom.storage import sha256_of
from tokenloom.strict_json import load_json
from tokenloom.weights.lazy_tensors import LazyModel, StoredTensor, Transposed
from tokenloom.weights.tensor_bundle import ADVICE, BundleTensor, open_bundle, read_index

HPARAMS = "hparams.json"
MERGES = "vocab.bpe"
# Keys of hparams.json and fields of `ModelConfig`.
SETTINGS = {
    "n_vocab": "vocab_size",
    "n_ctx": "block_size",
    "n_embd": "n_embd",
    "n_head": "n_head",
    "n_layer": "n_layer",
}
NestedParameters: TypeAlias = dict[str, Any]
"""Arrays by name, dictionaries of them by module, and under "blocks" a list of these."""

_OUTSIDE_BLOCKS = {"wte": "wte.weight", "wpe": "wpe.weight"}
_KINDS = {"g": "weight", "w": "weight", "b": "bias"}


def is_openai_folder(path: Path) -> bool:
    """Whether a folder has OpenAI's hparams.json and no config.json of another format."""
    return (path / HPARAMS).is_file() and not (path / "config.json").exists()


def read_openai(folder: Path) -> LazyModel:
    """The model in a folder of OpenAI's files, with all checksums verified; raises `WeightsError`."""
    tensors: dict[str, StoredTensor] = {}
    for variable, bundled in _variables(folder).items():
        bundled.verify()
        tensor = bundled.without_leading_ones()
        # OpenAI's matrices are (inputs, outputs), nn.Linear's are (outputs, inputs).
        tensors[_parameter_name(variable)] = Transposed(tensor) if variable.endswith("/w") else tensor
    hparams = _hparams(folder / HPARAMS)
    settings = {field: hparams[key] for key, field in SETTINGS.items()}
    fixed = {"family": "gpt2", "tie_embeddings": True, "qkv_bias": True, "dropout": 0.1}
    return LazyModel(Config.of({"model": {**settings, **fixed}}).model, tensors, str(folder))


def verify_data(folder: Path, data_file: Path) -> None:
    """Verify the checksums of the tensors in a data file against the index in `folder`; raises `WeightsError`."""
    for tensor in _variables(folder, data_file).values():
        tensor.verify()


def verify_hparams(file: Path, index: Path) -> None:
    """Raise `WeightsError` if the settings in a hparams.json are not those of the tensors in an index."""
    settings, shapes = _hparams(file), {name: tuple(tensor.shape) for name, tensor in read_index(index).items()}
    expected = {
        "model/wte": (settings["n_vocab"], settings["n_embd"]),
        "model/wpe": (settings["n_ctx"], settings["n_embd"]),
    }
    layers = {name.split("/")[1] for name in shapes if re.match(r"model/h\d+/", name)}
    if len(layers) != settings["n_layer"] or any(shapes.get(name) != shape for name, shape in expected.items()):
        raise WeightsError(f"its settings are not those of {index.name}")


def openai_tokenizer(folder: Path) -> Tokenizer:
    """GPT-2's tokenizer; raises `WeightsError` if the folder has another merge list."""
    file = folder / MERGES
    if file.is_file() and sha256_of(file) != GPT2_MERGES_SHA256:
        raise WeightsError(
            f"{file} is not GPT-2's merge list. Delete it and download it again, or use a Hugging Face folder."
        )
    return load_tokenizer("gpt2")


def parameters_as_book(folder: Path) -> tuple[dict[str, int], NestedParameters]:
    """OpenAI's settings, and its weights nested as the book's `download_and_load_gpt2` returns them (NumPy, fp32)."""
    settings = _hparams(folder / HPARAMS)
    params: NestedParameters = {"blocks": [{} for _ in range(settings["n_layer"])]}
    for variable, tensor in _variables(folder).items():
        tensor.verify()
        *path, last = variable.removeprefix("model/").removeprefix("ln_f/").split("/")
        branch = params
        if path and (block := re.fullmatch(r"h(\d+)", path[0])):
            branch = params["blocks"][int(block[1])]
            path = path[1:]
        for key in path:
            branch = branch.setdefault(key, {})
        branch[last] = tensor.without_leading_ones()[:].numpy()
    return settings, params


def _variables(folder: Path, data_file: Path | None = None) -> dict[str, BundleTensor]:
    """The tensors of the checkpoint by the names of TensorFlow's variables."""
    checkpoint = folder / "checkpoint"
    text = checkpoint.read_text(encoding="utf-8", errors="replace") if checkpoint.is_file() else ""
    match = re.search(r'^model_checkpoint_path:\s*"([^"]+)"', text, flags=re.MULTILINE)
    # Without its directory: the files have been moved since the path was recorded.
    tensors = open_bundle(folder / (Path(match[1]).name if match else "model.ckpt"), data_file)
    for name in tensors:
        if not name.startswith("model/"):
            raise WeightsError(f"{folder} has the variable {name}, which is not one of GPT-2's. Use OpenAI's files.")
    return tensors


def _parameter_name(variable: str) -> str:
    parts = variable.removeprefix("model/").split("/")
    if len(parts) == 1:
        return _OUTSIDE_BLOCKS.get(parts[0], parts[0])
    block = re.fullmatch(r"h(\d+)", parts[0])
    module = [f"h.{block[1]}", *parts[1:-1]] if block else parts[:-1]
    return ".".join([*module, _KINDS.get(parts[-1], parts[-1])])


def _hparams(file: Path) -> dict[str, int]:
    try:
        values = load_json(file.read_text(encoding="utf-8"))
        return {name: int(values[name]) for name in SETTINGS}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{file} cannot be used: {error!r}. {ADVICE}") from None
