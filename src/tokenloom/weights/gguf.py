"""GGUF, llama.cpp's file format: a GPT-2 with its tokenizer, in f32, f16 or q8_0.

Names and fields follow ggml's GGUF specification and the architecture "gpt2" of the gguf package.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tokenloom.config import Config, ModelConfig
from tokenloom.data.tokenizers import Tokenizer
from tokenloom.errors import CheckpointError, MissingExtraError, WeightsError
from tokenloom.model import GPT
from tokenloom.strict_json import load_json
from tokenloom.weights.gguf_tokenizer import add_tokenizer, check_tokenizer, read_tokenizer
from tokenloom.weights.huggingface import LAYER_NORM_EPSILON, drop_zero_biases
from tokenloom.weights.lazy_tensors import LazyModel, StoredTensor

GGUF = ".gguf"
# Quantizations by name, each with its member of the gguf package's `LlamaFileType`.
_FILE_TYPES = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "q8_0": "MOSTLY_Q8_0"}
QUANTIZATIONS = tuple(_FILE_TYPES)

_ARCHITECTURE = "gpt2"
_CONFIG = "tokenloom.config"  # the complete configuration, of which GGUF's own fields hold only a part
# Module names of Tokenloom and of GGUF.
_GGUF_NAMES = {
    "wte": "token_embd",
    "wpe": "position_embd",
    "ln_f": "output_norm",
    "lm_head": "output",
    "ln_1": "attn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}
_MODULES = {gguf_name: module for module, gguf_name in _GGUF_NAMES.items()}
# Fields that only describe the shapes of the tensors, which are verified.
_SHAPE_FIELDS = (
    "context_length",
    "embedding_length",
    "block_count",
    "attention.head_count",
    "vocab_size",
)
_MAX_F16 = 65504.0
_Q8_0_BLOCK_SIZE = 32  # values that share a scale


def write_gguf(path: Path, model: GPT, tokenizer: Tokenizer, quantization: str = "f16") -> None:
    """Write a model of the GPT-2 family whose tokenizer llama.cpp supports.

    Matrices and the token embedding are written in `quantization`; layer norms, biases and positions stay f32. Raises
    `WeightsError` for a model or tokenizer that GGUF's "gpt2" cannot represent.
    """
    gguf = _package()
    config = model.config
    _check_exportable(config, tokenizer, quantization)
    writer = gguf.GGUFWriter(path, _ARCHITECTURE)
    try:
        writer.add_name(f"GPT-2 exported with Tokenloom, {config.n_layer} layers, {config.n_embd} wide")
        writer.add_context_length(config.block_size)
        writer.add_embedding_length(config.n_embd)
        writer.add_feed_forward_length(4 * config.n_embd)
        writer.add_block_count(config.n_layer)
        writer.add_head_count(config.n_head)
        writer.add_layer_norm_eps(LAYER_NORM_EPSILON)
        writer.add_file_type(gguf.LlamaFileType[_FILE_TYPES[quantization]])
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        writer.add_string(_CONFIG, json.dumps(config.model_dump()))
        add_tokenizer(writer, tokenizer, config.vocabulary)
        for name, tensor in _gguf_tensors(model):
            precision = quantization if tensor.ndim == 2 and name != "position_embd.weight" else "f32"
            array, raw_dtype = _quantized(name, tensor.detach().float().contiguous().numpy(), precision)
            writer.add_tensor(name, array, raw_dtype=raw_dtype)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def read_gguf(path: Path) -> tuple[LazyModel, Tokenizer]:
    """The model and tokenizer in a GGUF file of the architecture "gpt2", written here or converted by llama.cpp.

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
    if fields.get("general.architecture") != _ARCHITECTURE:
        raise WeightsError(
            f'{path} contains a "{fields.get("general.architecture")}", which is not supported. Supported: gpt2.'
        )
    _check_settings(fields, path)
    tensors: dict[str, StoredTensor] = {}
    for tensor in reader.tensors:
        if tensor.tensor_type.name.lower() not in QUANTIZATIONS:
            raise WeightsError(
                f"{path}: tensor {tensor.name} is {tensor.tensor_type.name}. Supported: {', '.join(QUANTIZATIONS)}."
            )
        tensors[_parameter_name(tensor.name, path)] = _GGUFTensor(tensor)
    try:
        config = _config(fields, tensors)
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
    if config.family != "gpt2":
        raise WeightsError(
            f"the {config.family} family cannot be exported as gguf: llama.cpp does not support it. Use --format pth."
        )
    if config.gelu != "tanh":
        raise WeightsError(
            "this model computes the exact GELU and cannot be exported as gguf: llama.cpp's GPT-2 computes its tanh "
            "form. Use --format hf or pth."
        )
    check_tokenizer(tokenizer)
    if quantization == "q8_0" and config.n_embd % _Q8_0_BLOCK_SIZE:
        raise WeightsError(
            f"q8_0 requires n_embd to be a multiple of {_Q8_0_BLOCK_SIZE}, got {config.n_embd}. Use --quantization f16."
        )


def _gguf_tensors(model: GPT) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a model by GGUF's names."""
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and model.config.tie_embeddings:
            continue  # without an output tensor, llama.cpp uses the embedding
        module, _, kind = name.rpartition(".")
        block = re.fullmatch(r"h\.(\d+)\.(.+)", module)
        yield f"blk.{block[1]}.{_GGUF_NAMES[block[2]]}.{kind}" if block else f"{_GGUF_NAMES[module]}.{kind}", tensor
    if not model.config.qkv_bias:  # llama.cpp's gpt2 requires these biases
        for layer in range(model.config.n_layer):
            yield f"blk.{layer}.attn_qkv.bias", torch.zeros(3 * model.config.n_embd)


def _quantized(name: str, array: np.ndarray, precision: str) -> tuple[np.ndarray, Any]:
    """The array in a precision, and that precision as the gguf package's constant."""
    gguf = _package()
    raw_dtype = gguf.GGMLQuantizationType[precision.upper()]
    largest = float(np.abs(array).max(initial=0.0))
    if precision != "f32" and not largest <= _MAX_F16:  # the scales of q8_0 are f16
        raise WeightsError(f"tensor {name} has {largest:g}, too large for {precision}. Use --quantization f32.")
    return gguf.quants.quantize(array, raw_dtype), raw_dtype


def _parameter_name(gguf_name: str, path: Path) -> str:
    """The name in `Model.state_dict` of a tensor in a GGUF file."""
    gguf_module, _, kind = gguf_name.rpartition(".")
    block = re.fullmatch(r"blk\.(\d+)\.(.+)", gguf_module)
    module = _MODULES.get(block[2] if block else gguf_module)
    if module is None:
        raise WeightsError(f"{path} has tensor {gguf_name}, which is not one of GPT-2's. Convert the model again.")
    return f"h.{block[1]}.{module}.{kind}" if block else f"{module}.{kind}"


def _check_settings(fields: Mapping[str, Any], path: Path) -> None:
    """Raise `WeightsError` for a setting of the architecture with which the weights would compute something else."""
    prefix = f"{_ARCHITECTURE}."
    values = {name.removeprefix(prefix): value for name, value in fields.items() if name.startswith(prefix)}
    supported: dict[str, Any] = {
        "attention.layer_norm_epsilon": LAYER_NORM_EPSILON,
        "feed_forward_length": 4 * values.get("embedding_length", 0),
        "attention.head_count_kv": values.get("attention.head_count"),
        "attention.causal": True,
    }
    for name, value in values.items():
        if name in _SHAPE_FIELDS:
            continue
        # The file has f32: its 1e-5 is not Python's.
        is_supported = math.isclose(value, supported[name], rel_tol=1e-6) if name in supported else False
        if not is_supported:
            expected = f" Supported: {supported[name]}." if name in supported else ""
            raise WeightsError(f"{path} has {prefix}{name} {value!r}, which is not supported.{expected}")


def _config(fields: Mapping[str, Any], tensors: Mapping[str, StoredTensor]) -> ModelConfig:
    if _CONFIG in fields:
        return Config.of({"model": load_json(fields[_CONFIG])}).model
    settings = {
        "family": "gpt2",
        "vocab_size": len(fields["tokenizer.ggml.tokens"]),
        "block_size": fields[f"{_ARCHITECTURE}.context_length"],
        "n_layer": fields[f"{_ARCHITECTURE}.block_count"],
        "n_head": fields[f"{_ARCHITECTURE}.attention.head_count"],
        "n_embd": fields[f"{_ARCHITECTURE}.embedding_length"],
        "dropout": 0.1,
        "tie_embeddings": "lm_head.weight" not in tensors,
    }
    return Config.of({"model": settings}).model
