"""GGUF, the one file that llama.cpp reads: a GPT-2 with its tokenizer, in f32, f16 or q8_0.

Names and fields: the GGUF specification of ggml, and the architecture "gpt2" of the gguf package.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from tokenloom.config import Config, ModelConfig
from tokenloom.data.tokenizers import Tokenizer
from tokenloom.data.tokenizers.added_tokens import AddedTokens, with_added
from tokenloom.data.tokenizers.bpe import BytePairs, gpt2_tokenizer, merge_of, to_characters
from tokenloom.errors import CheckpointError, MissingExtraError, WeightsError
from tokenloom.model import Model
from tokenloom.weights.huggingface import without_empty_biases
from tokenloom.weights.lazy_tensors import LazyModel, LazyOrTransposed

GGUF = ".gguf"
Quantization = Literal["f32", "f16", "q8_0"]
QUANTIZATIONS: tuple[str, ...] = get_args(Quantization)

_ARCHITECTURE, _TOKENIZER, _PRETOKENIZER = "gpt2", "gpt2", "gpt-2"
_CONFIG = "tokenloom.config"  # what GGUF's own fields do not say, for the way back
_NAMES = {
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
_OURS = {theirs: ours for ours, theirs in _NAMES.items()}
_LARGEST_F16 = 65504.0
_BLOCK_OF_Q8_0 = 32  # numbers that share a scale


def write_gguf(path: Path, model: Model, tokenizer: Tokenizer, quantization: str = "f16") -> None:
    """Write a model of the GPT-2 family whose tokenizer llama.cpp knows.

    Matrices and the token embedding are written in `quantization`; gains, biases and positions stay f32. Raises
    `WeightsError` for what GGUF's "gpt2" cannot say.
    """
    gguf = _package()
    config = model.config
    _refuse_unless_sayable(config, tokenizer, quantization)
    file_types = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "q8_0": "MOSTLY_Q8_0"}
    writer = gguf.GGUFWriter(path, _ARCHITECTURE)
    try:
        writer.add_name(f"GPT-2 trained with Tokenloom, {config.n_layer} layers, {config.n_embd} wide")
        writer.add_context_length(config.block_size)
        writer.add_embedding_length(config.n_embd)
        writer.add_feed_forward_length(4 * config.n_embd)
        writer.add_block_count(config.n_layer)
        writer.add_head_count(config.n_head)
        writer.add_layer_norm_eps(1e-5)
        writer.add_file_type(gguf.LlamaFileType[file_types[quantization]])
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        writer.add_string(_CONFIG, json.dumps(config.model_dump()))
        _add_tokenizer(writer, tokenizer, config.vocabulary)
        for name, tensor in _tensors(model):
            kind = quantization if tensor.ndim == 2 and name != "position_embd.weight" else "f32"
            array, raw = _encoded(name, tensor.detach().float().contiguous().numpy(), kind)
            writer.add_tensor(name, array, raw_dtype=raw)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def read_gguf(path: Path) -> tuple[LazyModel, Tokenizer]:
    """The model and tokenizer in a GGUF of the architecture "gpt2", ours or llama.cpp's own conversion.

    Raises `WeightsError` for another architecture, tokenizer or quantization, and for a damaged file.
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
        raise WeightsError(f'{path} holds a "{fields.get("general.architecture")}". Supported in GGUF: gpt2.')
    tensors: dict[str, LazyOrTransposed] = {}
    for tensor in reader.tensors:
        if tensor.tensor_type.name.lower() not in QUANTIZATIONS:
            raise WeightsError(
                f"{path}: tensor {tensor.name} is {tensor.tensor_type.name}. Supported: {', '.join(QUANTIZATIONS)}."
            )
        tensors[_our_name(tensor.name, path)] = _InGguf(tensor)
    try:
        config = _config(fields, tensors)
        tokenizer = _tokenizer(fields, path)
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise WeightsError(f"{path} cannot be used: {error!r}. Convert the model again.") from None
    config, tensors = without_empty_biases(config, tensors)
    return LazyModel(config, tensors, str(path)), tokenizer


@dataclass(frozen=True)
class _InGguf:
    """A tensor in a mapped file, rows read and scaled back to f32 when they are asked for."""

    tensor: Any

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(int(size) for size in reversed(self.tensor.shape))

    def __getitem__(self, rows: slice, /) -> Tensor:
        from gguf.quants import dequantize

        return torch.from_numpy(np.array(dequantize(self.tensor.data[rows], self.tensor.tensor_type), np.float32))


def _package() -> Any:
    try:
        import gguf
    except ImportError:
        raise MissingExtraError("gguf", "gguf", "GGUF files") from None
    return gguf


def _refuse_unless_sayable(config: ModelConfig, tokenizer: Tokenizer, quantization: str) -> None:
    if quantization not in QUANTIZATIONS:
        raise WeightsError(f'GGUF is written in {", ".join(QUANTIZATIONS)}, not "{quantization}". Choose one of them.')
    if config.family != "gpt2":
        raise WeightsError(
            f"the {config.family} family cannot be exported as gguf: llama.cpp does not compute it. Use --format pth."
        )
    base = tokenizer.base if isinstance(tokenizer, AddedTokens) else tokenizer
    if not isinstance(base, BytePairs) or not base.merges:
        raise WeightsError(
            f"the tokenizer of this model ({tokenizer.kind}) cannot be said in GGUF: llama.cpp knows GPT-2's kind, "
            "byte pairs with merges (gpt2, bpe:N). Export it as hf or pth."
        )
    if quantization == "q8_0" and config.n_embd % _BLOCK_OF_Q8_0:
        raise WeightsError(
            f"q8_0 needs widths that are multiples of {_BLOCK_OF_Q8_0}, this model is {config.n_embd} wide. Use f16."
        )


def _add_tokenizer(writer: Any, tokenizer: Tokenizer, vocabulary: int) -> None:
    base = tokenizer.base if isinstance(tokenizer, AddedTokens) else tokenizer
    assert isinstance(base, BytePairs)
    written = [to_characters(token) for token in base.token_bytes[: base.eot_id]]
    special = [token.decode("utf-8") for token in tokenizer.token_bytes[base.eot_id :]]
    unused = [f"[PAD{i}]" for i in range(tokenizer.vocab_size, vocabulary)]
    types = _package().TokenType
    writer.add_tokenizer_model(_TOKENIZER)
    writer.add_tokenizer_pre(_PRETOKENIZER)
    writer.add_token_list([*written, *special, *unused])
    kinds = ((types.NORMAL, written), (types.CONTROL, special), (types.UNUSED, unused))
    writer.add_token_types([kind for kind, tokens in kinds for _ in tokens])
    writer.add_token_merges([f"{to_characters(left)} {to_characters(right)}" for left, right in base.merges])
    writer.add_bos_token_id(tokenizer.eot_id)
    writer.add_eos_token_id(tokenizer.eot_id)
    writer.add_add_bos_token(False)


def _tensors(model: Model) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and model.config.tie_embeddings:
            continue  # llama.cpp takes the embedding where there is no output
        place, _, kind = name.rpartition(".")
        block = re.fullmatch(r"h\.(\d+)\.(.+)", place)
        yield f"blk.{block[1]}.{_NAMES[block[2]]}.{kind}" if block else f"{_NAMES[place]}.{kind}", tensor
    if not model.config.qkv_bias:  # llama.cpp's gpt2 always has them
        for layer in range(model.config.n_layer):
            yield f"blk.{layer}.attn_qkv.bias", torch.zeros(3 * model.config.n_embd)


def _encoded(name: str, array: np.ndarray, kind: str) -> tuple[np.ndarray, Any]:
    gguf = _package()
    raw = gguf.GGMLQuantizationType[kind.upper()]
    largest = float(np.abs(array).max(initial=0.0))
    if kind != "f32" and not largest <= _LARGEST_F16:  # q8_0 has scales in f16
        raise WeightsError(f"tensor {name} has {largest:g}, too large for {kind}. Use --quantization f32.")
    return gguf.quants.quantize(array, raw), raw


def _our_name(name: str, path: Path) -> str:
    place, _, kind = name.rpartition(".")
    block = re.fullmatch(r"blk\.(\d+)\.(.+)", place)
    ours = _OURS.get(block[2] if block else place)
    if ours is None:
        raise WeightsError(f"{path} has tensor {name}, which a GPT-2 has not. Convert the model again.")
    return f"h.{block[1]}.{ours}.{kind}" if block else f"{ours}.{kind}"


def _config(fields: Mapping[str, Any], tensors: Mapping[str, LazyOrTransposed]) -> ModelConfig:
    if _CONFIG in fields:
        return Config.of({"model": json.loads(fields[_CONFIG])}).model
    names = {"context_length": "block_size", "embedding_length": "n_embd", "block_count": "n_layer"}
    values: dict[str, Any] = {ours: fields[f"{_ARCHITECTURE}.{name}"] for name, ours in names.items()}
    values |= {"family": "gpt2", "n_head": fields[f"{_ARCHITECTURE}.attention.head_count"], "dropout": 0.1}
    values |= {"vocab_size": len(fields["tokenizer.ggml.tokens"]), "tie_embeddings": "lm_head.weight" not in tensors}
    return Config.of({"model": values}).model


def _tokenizer(fields: Mapping[str, Any], path: Path) -> Tokenizer:
    kind = fields.get("tokenizer.ggml.model"), fields.get("tokenizer.ggml.pre")
    if kind != (_TOKENIZER, _PRETOKENIZER):
        raise WeightsError(f"{path} has the tokenizer {kind[0]} ({kind[1]}). Supported in GGUF: gpt2 (gpt-2).")
    tokens: list[str] = fields["tokenizer.ggml.tokens"]
    types: list[int] = fields["tokenizer.ggml.token_type"]
    merges = [merge_of(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    base = gpt2_tokenizer() if merges == gpt2_tokenizer().merges else BytePairs("bpe", merges=merges)
    if tokens[: base.eot_id] != [to_characters(token) for token in base.token_bytes[: base.eot_id]]:
        raise WeightsError(f"{path} numbers its tokens otherwise than its merges do. Convert the model again.")
    unused = _package().TokenType.UNUSED
    added = [token for token, kind in zip(tokens, types, strict=True) if kind != unused][base.vocab_size :]
    return with_added(base, added)
