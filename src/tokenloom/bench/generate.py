"""Greedy decoding with a GPT-2 of 124M parameters and random weights: ours, transformers, CTranslate2, llama.cpp.

200 tokens after a prompt of 32, prompt included in the time; with `batch` of them at once.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tokenloom.bench.harness import Contender, answer

PROMPT, NEW, VOCABULARY = 32, 200, 50257
PARAMETERS = 123_653_376  # that are read for a token: all but the positions
CONTENDERS = [
    Contender("transformers fp32", needs=("transformers",)),
    Contender("transformers bf16", needs=("transformers",)),
    Contender("ctranslate2 fp32", needs=("ctranslate2", "transformers")),
    Contender("ctranslate2 int8", needs=("ctranslate2", "transformers")),
    Contender("llama.cpp f32", needs=("llama_cpp", "gguf")),
    Contender("llama.cpp f16", needs=("llama_cpp", "gguf")),
    Contender("llama.cpp q8_0", needs=("llama_cpp", "gguf")),
    Contender("tokenloom fp32"),
    Contender("tokenloom bf16"),
    Contender("tokenloom int8"),
]


def bandwidth_use(
    name: str, tokens_per_sec: float, machine: Mapping[str, Any], options: Mapping[str, Any]
) -> tuple[float, str]:
    """The share of the machine's read bandwidth that reading the weights once a step amounts to."""
    kind = name.split()[-1]
    bytes_a_weight = {"fp32": 4.0, "f32": 4.0, "bf16": 2.0, "f16": 2.0, "int8": 1.0, "q8_0": 34 / 32}[kind]
    read = PARAMETERS * bytes_a_weight * tokens_per_sec / options["batch"]
    return read / 1e9 / machine["read_gb_per_s"], "memory bandwidth"


def write_models(folder: Path) -> None:
    """The same random model in every form, written by a process of its own, whose memory is then gone."""
    command = [sys.executable, "-m", "tokenloom.bench.generate", "write", json.dumps({"folder": str(folder)})]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def write(folder: str) -> dict[str, Any]:
    from tokenloom.config import Config
    from tokenloom.data.tokenizers import load_tokenizer
    from tokenloom.model import build
    from tokenloom.weights.export import export_model
    from tokenloom.weights.load import LoadedModel

    place = Path(folder)
    shape = {"family": "gpt2", "vocab_size": VOCABULARY, "block_size": 1024, "n_layer": 12, "n_head": 12, "n_embd": 768}
    model = build(Config.of({"model": shape}).model, torch.Generator().manual_seed(1)).eval()
    loaded = LoadedModel(model, load_tokenizer("gpt2"), place)
    export_model(loaded, place / "hf", "hf", license="unlicensed")
    if not Contender("", needs=("gguf",)).missing:
        for quantization in ("f32", "f16", "q8_0"):
            export_model(loaded, place / f"{quantization}.gguf", "gguf", quantization=quantization)
    if not Contender("", needs=("ctranslate2", "transformers")).missing:
        from ctranslate2.converters import TransformersConverter  # type: ignore[import-not-found]

        for quantization in ("float32", "int8"):
            TransformersConverter(str(place / "hf")).convert(str(place / quantization), quantization=quantization)
    return {}


def ours(folder: str, batch: int, precision: str) -> dict[str, Any]:
    from tokenloom.compute.runtime import choose_runtime
    from tokenloom.generation.engine import collect, generate
    from tokenloom.generation.inference_weights import for_decoding
    from tokenloom.sampling_params import SamplingParams
    from tokenloom.weights.load import load

    runtime = choose_runtime("cpu", "bf16" if precision == "int8" else precision)
    model = for_decoding(load(Path(folder, "hf")).model, runtime, "int8" if precision == "int8" else None)

    def run() -> int:
        steps = generate(model, _prompts(batch), max_new_tokens=NEW, sampling=SamplingParams(temperature=0.0), seed=0)
        return sum(len(completion.token_ids) for completion in collect(steps))

    return _timed(run)


def transformers(folder: str, batch: int, precision: str) -> dict[str, Any]:
    from transformers import AutoModelForCausalLM

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    model = AutoModelForCausalLM.from_pretrained(Path(folder, "hf"), dtype=dtype).eval()
    ids = torch.tensor(_prompts(batch))
    greedy = {"do_sample": False, "max_new_tokens": NEW, "min_new_tokens": NEW, "pad_token_id": 50256}

    def run() -> int:
        with torch.inference_mode():
            return model.generate(ids, attention_mask=torch.ones_like(ids), **greedy)[:, PROMPT:].numel()  # type: ignore[attr-defined]

    return _timed(run)


def ctranslate2(folder: str, batch: int, precision: str) -> dict[str, Any]:
    import ctranslate2  # type: ignore[import-not-found]

    from tokenloom.data.tokenizers import load_tokenizer
    from tokenloom.data.tokenizers.bpe import to_characters

    model = ctranslate2.Generator(str(Path(folder, precision)), device="cpu", intra_threads=torch.get_num_threads())
    tokens = [to_characters(token) for token in load_tokenizer("gpt2").token_bytes]
    prompts = [[tokens[i] for i in prompt] for prompt in _prompts(batch)]
    greedy = {"max_length": NEW, "min_length": NEW, "sampling_topk": 1, "include_prompt_in_result": False}

    def run() -> int:
        return sum(len(result.sequences_ids[0]) for result in model.generate_batch(prompts, **greedy))

    return _timed(run)


def llama(folder: str, batch: int, precision: str) -> dict[str, Any]:
    from llama_cpp import Llama  # type: ignore[import-not-found]

    if batch != 1:
        raise SystemExit("its Python package decodes one text at a time")
    model = Llama(str(Path(folder, f"{precision}.gguf")), n_ctx=512, n_threads=torch.get_num_threads(), verbose=False)
    (prompt,) = _prompts(1)

    def run() -> int:
        model.reset()
        made = model.generate(prompt, temp=0.0, top_k=1, repeat_penalty=1.0)
        return sum(1 for _ in zip(range(NEW), made, strict=False))

    return _timed(run)


def _prompts(batch: int) -> list[list[int]]:
    random = torch.Generator().manual_seed(5)
    return torch.randint(0, 50000, (batch, PROMPT), generator=random).tolist()


def _timed(run: Callable[[], int], repeats: int = 3) -> dict[str, Any]:
    tokens = run()
    rates = []
    for _ in range(repeats):
        before = time.perf_counter()
        tokens = run()
        rates.append(tokens / (time.perf_counter() - before))
    return {"tokens_per_sec": statistics.median(rates), "tokens": tokens}


if __name__ == "__main__":
    answer(
        {
            "write": write,
            **{f"transformers {p}": partial(transformers, precision=p) for p in ("fp32", "bf16")},
            "ctranslate2 fp32": partial(ctranslate2, precision="float32"),
            "ctranslate2 int8": partial(ctranslate2, precision="int8"),
            **{f"llama.cpp {p}": partial(llama, precision=p) for p in ("f32", "f16", "q8_0")},
            **{f"tokenloom {p}": partial(ours, precision=p) for p in ("fp32", "bf16", "int8")},
        }
    )
