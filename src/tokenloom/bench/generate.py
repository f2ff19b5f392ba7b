"""Greedy decoding with GPT-2 124M and random weights: Tokenloom, transformers, CTranslate2 and llama.cpp.

200 tokens after a prompt of 32 tokens; the time includes processing the prompt.
"""

# Some parts of torch's API are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path

import torch

from tokenloom.bench.harness import Implementation, Metrics, missing_packages, run_task, worker_main
from tokenloom.bench.machine import Machine, Utilization

PROMPT_TOKENS, NEW_TOKENS = 32, 200
VOCAB_SIZE, LAYERS, HEADS, WIDTH = 50257, 12, 12, 768
PARAMETERS_READ = 123_653_376  # for each token: all but the position embeddings
GGUF_QUANTIZATIONS = ("f32", "f16", "q8_0")
BYTES_PER_WEIGHT = {"fp32": 4.0, "f32": 4.0, "bf16": 2.0, "f16": 2.0, "int8": 1.0, "q8_0": 34 / 32}
IMPLEMENTATIONS = (
    Implementation("transformers fp32", requires=("transformers",)),
    Implementation("transformers bf16", requires=("transformers",)),
    Implementation("ctranslate2 fp32", requires=("ctranslate2", "transformers")),
    Implementation("ctranslate2 int8", requires=("ctranslate2", "transformers")),
    Implementation("llama.cpp f32", requires=("llama_cpp", "gguf")),
    Implementation("llama.cpp f16", requires=("llama_cpp", "gguf")),
    Implementation("llama.cpp q8_0", requires=("llama_cpp", "gguf")),
    Implementation("tokenloom fp32"),
    Implementation("tokenloom bf16"),
    Implementation("tokenloom int8"),
)


def bandwidth_utilization(name: str, tokens_per_sec: float, machine: Machine, *, batch: int) -> Utilization:
    """The share of the memory bandwidth that reading all weights once per step takes."""
    read = PARAMETERS_READ * BYTES_PER_WEIGHT[name.split()[-1]] * tokens_per_sec / batch
    return Utilization(read / 1e9 / machine.read_gb_per_s, "peak memory bandwidth")


def write_models(folder: Path) -> None:
    """Write the same random model in the format of each installed library."""
    run_task("generate", "write", {"folder": str(folder)})


def tokenloom(folder: str, batch: int, precision: str) -> Metrics:
    from tokenloom.compute.runtime import choose_runtime
    from tokenloom.generation.engine import collect, generate
    from tokenloom.generation.inference_weights import copy_for_inference
    from tokenloom.sampling_params import SamplingParams
    from tokenloom.weights.load import load

    runtime = choose_runtime("cpu", "bf16" if precision == "int8" else precision)
    model = copy_for_inference(load(Path(folder, "hf")).model, runtime, "int8" if precision == "int8" else None)
    greedy = SamplingParams(temperature=0.0)

    def run() -> int:
        steps = generate(model, _prompts(batch), max_new_tokens=NEW_TOKENS, sampling=greedy, seed=0)
        return sum(len(completion.token_ids) for completion in collect(steps))

    return _measure_rate(run)


def transformers(folder: str, batch: int, precision: str) -> Metrics:
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    model_class = import_module("transformers").AutoModelForCausalLM
    model = model_class.from_pretrained(Path(folder, "hf"), dtype=dtype).eval()
    ids = torch.tensor(_prompts(batch))
    greedy = {"do_sample": False, "max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS, "pad_token_id": 50256}

    def run() -> int:
        with torch.inference_mode():
            return model.generate(ids, attention_mask=torch.ones_like(ids), **greedy)[:, PROMPT_TOKENS:].numel()

    return _measure_rate(run)


def ctranslate2(folder: str, batch: int, precision: str) -> Metrics:
    from tokenloom.data.tokenizers import load_tokenizer
    from tokenloom.data.tokenizers.bpe import to_byte_level

    generator_class = import_module("ctranslate2").Generator
    model = generator_class(str(Path(folder, precision)), device="cpu", intra_threads=torch.get_num_threads())
    tokens = [to_byte_level(token) for token in load_tokenizer("gpt2").token_bytes]
    prompts = [[tokens[i] for i in prompt] for prompt in _prompts(batch)]
    greedy = {"max_length": NEW_TOKENS, "min_length": NEW_TOKENS, "sampling_topk": 1}

    def run() -> int:
        results = model.generate_batch(prompts, include_prompt_in_result=False, **greedy)
        return sum(len(result.sequences_ids[0]) for result in results)

    return _measure_rate(run)


def llama_cpp(folder: str, batch: int, precision: str) -> Metrics:
    if batch != 1:
        raise SystemExit("llama-cpp-python decodes one sequence at a time")
    model_path = str(Path(folder, f"{precision}.gguf"))
    threads = {"n_threads": torch.get_num_threads(), "n_threads_batch": torch.get_num_threads()}
    model = import_module("llama_cpp").Llama(model_path, n_ctx=512, **threads, verbose=False)
    (prompt,) = _prompts(1)

    def run() -> int:
        model.reset()
        tokens = model.generate(prompt, temp=0.0, top_k=1, repeat_penalty=1.0)
        return sum(1 for _ in zip(range(NEW_TOKENS), tokens, strict=False))

    return _measure_rate(run)


def _write(folder: str) -> Metrics:
    from tokenloom.config import Config
    from tokenloom.data.tokenizers import load_tokenizer
    from tokenloom.model import build
    from tokenloom.weights.export import export_model
    from tokenloom.weights.load import LoadedModel

    path = Path(folder)
    shape = {"n_layer": LAYERS, "n_head": HEADS, "n_embd": WIDTH, "vocab_size": VOCAB_SIZE, "block_size": 1024}
    model = build(Config.of({"model": {"family": "gpt2", **shape}}).model, torch.Generator().manual_seed(1)).eval()
    loaded = LoadedModel(model, load_tokenizer("gpt2"), path)
    export_model(loaded, path / "hf", "hf", license="unlicensed")
    if not missing_packages(("gguf",)):
        for quantization in GGUF_QUANTIZATIONS:
            export_model(loaded, path / f"{quantization}.gguf", "gguf", quantization=quantization)
    if not missing_packages(("ctranslate2", "transformers")):
        converter_class = import_module("ctranslate2.converters").TransformersConverter
        for quantization in ("float32", "int8"):
            converter_class(str(path / "hf")).convert(str(path / quantization), quantization=quantization)
    return {}


def _prompts(batch: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(5)
    return torch.randint(0, 50000, (batch, PROMPT_TOKENS), generator=generator).tolist()


def _measure_rate(run: Callable[[], int], repeats: int = 3) -> Metrics:
    """Median tokens per second after one warm-up run; `run` returns the number of tokens that it generated."""
    tokens = run()
    rates: list[float] = []
    for _ in range(repeats):
        started = time.perf_counter()
        tokens = run()
        rates.append(tokens / (time.perf_counter() - started))
    return {"tokens_per_sec": statistics.median(rates), "tokens": tokens}


TASKS = {
    "write": _write,
    **{f"transformers {p}": partial(transformers, precision=p) for p in ("fp32", "bf16")},
    "ctranslate2 fp32": partial(ctranslate2, precision="float32"),
    "ctranslate2 int8": partial(ctranslate2, precision="int8"),
    **{f"llama.cpp {p}": partial(llama_cpp, precision=p) for p in GGUF_QUANTIZATIONS},
    **{f"tokenloom {p}": partial(tokenloom, precision=p) for p in ("fp32", "bf16", "int8")},
}

if __name__ == "__main__":
    worker_main(TASKS)
