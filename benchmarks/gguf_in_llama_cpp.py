"""Agreement of greedy tokens between Tokenloom and llama.cpp, for GGUF files in f32, f16 and q8_0.

    pip install llama-cpp-python gguf      # compiles llama.cpp, which takes minutes
    python benchmarks/gguf_in_llama_cpp.py [--shape 124M] [--tokens 200]

Without --shape, a two-layer model is trained first (the-verdict, GPT-2 tokenizer). In f32 all tokens must agree; f16
and q8_0 may differ where two tokens are almost equally likely.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from llama_cpp import Llama

import tokenloom as tl
from tokenloom.config import Config
from tokenloom.model import build
from tokenloom.sampling_params import SamplingParams
from tokenloom.weights.load import LoadedModel

PROMPT = "Every effort moves you"
SHAPES = {
    "124M": {"family": "gpt2", "n_layer": 12, "n_head": 12, "n_embd": 768, "block_size": 1024},
    "qwen3": {"n_layer": 4, "n_head": 4, "n_kv_head": 2, "n_embd": 256, "block_size": 512, "tie_embeddings": False},
    "qwen3-tied": {"n_layer": 4, "n_head": 4, "n_embd": 128, "head_dim": 64, "block_size": 512},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES)
    parser.add_argument("--tokens", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        loaded = random_model(options.shape) if options.shape else trained_model(Path(folder))
        expected = tokenloom_tokens(loaded, options.tokens)
        for quantization in ("f32", "f16", "q8_0"):
            file = Path(folder, f"{quantization}.gguf")
            tl.export(loaded, file, quantization=quantization)
            tokens = llama_cpp_tokens(file, loaded, options.tokens)
            same = next((i for i, (a, b) in enumerate(zip(expected, tokens, strict=False)) if a != b), options.tokens)
            print(f"{quantization:5} {file.stat().st_size:>12,} bytes  first {same} of {options.tokens} tokens agree")
            if quantization == "f32" and same != options.tokens:
                raise SystemExit("f32: not all tokens agree")


def trained_model(folder: Path) -> LoadedModel:
    shape = {"family": "gpt2", "n_layer": 2, "n_head": 4, "n_embd": 128, "block_size": 512}
    train = {"max_steps": 100, "batch_size": 4, "optimizer": "adamw", "learning_rate": 1e-3}
    settings = {"model": shape, "train": train, "sample": {"max_new_tokens": 0}}
    tl.train("the-verdict", out=folder / "run", tokenizer="gpt2", settings=settings, quiet=True)
    return tl.load(folder / "run")


def random_model(shape: str) -> LoadedModel:
    """Weights are larger than at initialization, so that token probabilities differ more."""
    config = Config.of({"model": {"vocab_size": 50257, **SHAPES[shape]}}).model
    model = build(config, torch.Generator().manual_seed(1))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2))
    return LoadedModel(model.eval(), tl.load_tokenizer("gpt2"), Path())


def tokenloom_tokens(loaded: LoadedModel, count: int) -> list[int]:
    [[completion]] = tl.generate(loaded, PROMPT, max_new_tokens=count, sampling=SamplingParams(temperature=0.0))
    return completion.token_ids


def llama_cpp_tokens(file: Path, loaded: LoadedModel, count: int) -> list[int]:
    # Keys and values in f32 (type 0), as here; by default llama.cpp rounds them to f16.
    llama = Llama(str(file), n_ctx=loaded.model.config.block_size, verbose=False, type_k=0, type_v=0)
    prompt = llama.tokenize(PROMPT.encode(), add_bos=False, special=False)
    assert prompt == loaded.tokenizer.encode(PROMPT), "both tokenize the prompt the same way"
    stream = llama.generate(prompt, temp=0.0, top_k=1, repeat_penalty=1.0)
    return [token for token, _ in zip(stream, range(count), strict=False)]


if __name__ == "__main__":
    main()
