"""GGUF, llama.cpp's file format: a model with its tokenizer, in f32, f16 or q8_0.

Names and fields follow ggml's GGUF specification and the gguf package.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tokenloom.config import ModelConfig
from tokenloom.data.tokenizers import Tokenizer
from tokenloom.errors import CheckpointError, MissingExtraError, WeightsError
from tokenloom.model import GPT
from tokenloom.saved_config import saved_model_config
from tokenloom.strict_json import load_json
from tokenloom.weights.gguf_architectures import ARCHITECTURES, OF_FAMILY, Architecture
from tokenloom.weights.gguf_tokenizer import add_tokenizer, check_tokenizer, read_tokenizer
from tokenloom.weights.huggingface import drop_zero_biases
from tokenloom.weights.lazy_tensors import LazyModel, StoredTensor

GGUF = ".gguf"
# Quantizations by name, each with its member of the gguf package's `LlamaFileType`.
_FILE_TYPES = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "q8_0": "MOSTLY_Q8_0"}
QUANTIZATIONS = tuple(_FILE_TYPES)

_CONFIG = "tokenloom.config"  # the complete configuration, of which GGUF's own fields hold only a part
_MAX_F16 = 65504.0
_Q8_0_BLOCK_SIZE = 32  # values that share a scale


def write_gguf(path: Path, model: GPT, tokenizer: Tokenizer, quantization: str = "f16") -> None:
    """Write a model whose tokenizer llama.cpp supports.

    Matrices and the token embedding are written in `quantization`; norms, biases and positions stay f32. Raises
    `WeightsError` for a model or tokenizer that GGUF cannot represent.
    """
    gguf = _package()
    config = model.config
    architecture = OF_FAMILY[config.family]
    _check_exportable(config, tokenizer, quantization)
    writer = gguf.GGUFWriter(path, architecture.name)
    try:
        writer.add_name(f"{architecture.name} exported with Tokenloom, {config.n_layer} layers, {config.n_embd} wide")
        for name, value in architecture.fields(config).items():
            add = writer.add_float32 if isinstance(value, float) else writer.add_uint32
            add(f"{architecture.name}.{name}", value)
        writer.add_file_type(gguf.LlamaFileType[_FILE_TYPES[quantization]])
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        writer.add_string(_CONFIG, json.dumps(config.model_dump()))
        add_tokenizer(writer, tokenizer, config.vocabulary)
        for name, tensor in _gguf_tensors(model, architecture):
            precision = quantization if tensor.ndim == 2 and name != "position_embd.weight" else "f32"
            array, raw_dtype = _quantized(name, tensor.detach().float().contiguous().numpy(), precision)
            writer.add_tensor(name, array, raw_dtype=raw_dtype)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def read_gguf(path: Path) -> tuple[LazyModel, Tokenizer]:
    """The model and tokenizer in a GGUF file of a supported architecture, written here or converted by llama.cpp.

    Raises `WeightsError` for another architecture, tokenizer or quantization, and for a corrupt file.
    """
    gguf = _package()
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist. Check the path.")
    try:
        reader = gguf.GGUFReader(path)
        fields = {name: field.contents() for name, field in reader.fields.items()}
    except (ValueError, IndexError, KeyError, OverflowError, OSError) as error:
        raise WeightsError(f"{path} cannot be read as GGUF: {error}. Use another copy.") from None
    architecture = ARCHITECTURES.get(str(fields.get("general.architecture")))
    if architecture is None:
        raise WeightsError(
            f'{path} contains a "{fields.get("general.architecture")}", which is not supported. '
            f"Supported: {', '.join(ARCHITECTURES)}."
        )
    _check_settings(architecture, fields, path)
    tensors: dict[str, StoredTensor] = {}
    for tensor in reader.tensors:
        if tensor.tensor_type.name.lower() not in QUANTIZATIONS:
            raise WeightsError(
                f"{path}: tensor {tensor.name} is {tensor.tensor_type.name}. Supported: {', '.join(QUANTIZATIONS)}."
            )
        name = architecture.parameter_name(tensor.name)
        if name is None:
            raise WeightsError(
                f"{path} has tensor {tensor.name}, which is not one of {architecture.name}'s. Convert the model again."
            )
        tensors[name] = _GGUFTensor(tensor)
    try:
        config = _config(architecture, fields, tensors)
        tokenizer = read_tokenizer(fields, path)
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise WeightsError(f"{path} cannot be used: {error!r}. Convert the model again.") from None
    config, tensors = drop_zero_biases(config, tensors)
    return LazyModel(config, tensors, str(path)), tokenizer


@dataclass(frozen=True)
class _GGUFTensor:
    """A tensor in a memory-mapped file, whose rows are dequantized to f32 on demand."""

    tensor: Any

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(int(size) for size in reversed(self.tensor.shape))

    def __getitem__(self, rows: slice, /) -> Tensor:
        from gguf.quants import dequantize

        return torch.as_tensor(np.array(dequantize(self.tensor.data[rows], self.tensor.tensor_type), np.float32))


def _package() -> Any:
    try:
        import gguf
    except ImportError:
        raise MissingExtraError("gguf", "gguf", "GGUF files") from None
    return gguf


def _check_exportable(config: ModelConfig, tokenizer: Tokenizer, quantization: str) -> None:
    if quantization not in QUANTIZATIONS:
        raise WeightsError(
            f'quantization "{quantization}" is not supported in GGUF. Choose one of {", ".join(QUANTIZATIONS)}.'
        )
    if config.gelu != "tanh":
        raise WeightsError(
            "this model computes the exact GELU and cannot be exported as gguf: llama.cpp's GPT-2 computes its tanh "
            "form. Use --format hf or pth."
        )
    check_tokenizer(tokenizer)
    widths = {
        "n_embd": config.n_embd,
        "n_head · head_dim": config.n_head * config.head_size,
        "n_inner": config.mlp_width,
    }
    for name, width in widths.items():
        if quantization == "q8_0" and width % _Q8_0_BLOCK_SIZE:
            raise WeightsError(
                f"q8_0 requires {name} to be a multiple of {_Q8_0_BLOCK_SIZE}, got {width}. Use --quantization f16."
            )


def _gguf_tensors(model: GPT, architecture: Architecture) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a model by GGUF's names."""
    config = model.config
    for name, tensor in model.state_dict().items():
        if name != "lm_head.weight" or not config.tie_embeddings:  # llama.cpp uses the embedding as output if tied
            yield architecture.tensor_name(name), tensor
    if config.family == "gpt2" and not config.qkv_bias:  # llama.cpp's gpt2 requires these biases
        for layer in range(config.n_layer):
            yield f"blk.{layer}.attn_qkv.bias", torch.zeros(3 * config.n_embd)


def _quantized(name: str, array: np.ndarray, precision: str) -> tuple[np.ndarray, Any]:
    """The array in a precision, and that precision as the gguf package's constant."""
    gguf = _package()
    raw_dtype = gguf.GGMLQuantizationType[precision.upper()]
    largest = float(np.abs(array).max(initial=0.0))
    if precision != "f32" and not largest <= _MAX_F16:  # the scales of q8_0 are f16
        raise WeightsError(f"tensor {name} has {largest:g}, too large for {precision}. Use --quantization f32.")
    return gguf.quants.quantize(array, raw_dtype), raw_dtype


def _check_settings(architecture: Architecture, fields: Mapping[str, Any], path: Path) -> None:
    """Raise `WeightsError` for a setting of the architecture with which the weights would compute something else."""
    values = _fields_of(architecture, fields)
    required = architecture.required(values)
    # The others are settings, or describe the shapes of the tensors, which are verified.
    known = {*architecture.fields(ModelConfig(family=architecture.family, vocab_size=1)), "vocab_size"}
    for name, value in values.items():
        if name in required:
            # The file has f32: its 1e-5 is not Python's.
            if required[name] is not None and not math.isclose(value, required[name], rel_tol=1e-6):
                raise _unsupported(architecture, name, value, path, f" Supported: {required[name]}.")
        elif name not in known:
            raise _unsupported(architecture, name, value, path)


def _unsupported(architecture: Architecture, name: str, value: object, path: Path, advice: str = "") -> WeightsError:
    return WeightsError(f"{path} has {architecture.name}.{name} {value!r}, which is not supported.{advice}")


def _config(architecture: Architecture, fields: Mapping[str, Any], tensors: Mapping[str, StoredTensor]) -> ModelConfig:
    if _CONFIG in fields:
        return saved_model_config(load_json(fields[_CONFIG]))
    return saved_model_config(
        {
            **architecture.settings(_fields_of(architecture, fields)),
            "family": architecture.family,
            "vocab_size": len(fields["tokenizer.ggml.tokens"]),
            "tie_embeddings": "lm_head.weight" not in tensors,
        }
    )


def _fields_of(architecture: Architecture, fields: Mapping[str, Any]) -> Mapping[str, Any]:
    prefix = f"{architecture.name}."
    return {name.removeprefix(prefix): value for name, value in fields.items() if name.startswith(prefix)}
