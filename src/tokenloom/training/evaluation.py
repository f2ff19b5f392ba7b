"""The validation loss of a model in training, and samples of its text."""

from __future__ import annotations

from collections.abc import Callable

from tokenloom.compute.sharded_tensors import whole_on_main
from tokenloom.config import SampleConfig
from tokenloom.errors import TrainingError, WeightsError
from tokenloom.evaluation.loss import measure
from tokenloom.evaluation.measurement import Measurement
from tokenloom.generation.text import generate_text
from tokenloom.model import GPT
from tokenloom.run_records import SampleRecord
from tokenloom.sampling_params import SamplingParams
from tokenloom.training.step import TrainState
from tokenloom.weights.lazy_tensors import LazyModel

FINAL_SAMPLES = 3  # for each prompt, after the last step


def evaluate(
    state: TrainState, batches: int | None = None, *, progress: Callable[[int, int], None] | None = None
) -> Measurement | None:
    """Validation loss over as many windows as `batches` steps train on, or over the whole text; None without text.

    Micro-batches and ranks only determine how many windows are computed at a time: each rank computes its share, and
    the sums over all of them are returned. `progress` is called with the numbers of finished and of all windows.
    """
    if state.validation is None:
        return None
    with state.runtime.autocast():
        return measure(
            state.model,
            state.validation,
            context=min(state.config.model.block_size, len(state.validation) - 1),
            batch_size=state.micro_batch_size,
            byte_lengths=state.tokenizer.byte_lengths,
            max_windows=None if batches is None else batches * state.config.train.batch_size,
            progress=progress,
            world=state.world,
        )


def generate_samples(state: TrainState, *, max_new_tokens: int | None = None, count: int = 1) -> list[SampleRecord]:
    """Text generated after each of the configured prompts, with the same seed at every call and in every process.

    If the model is sharded, rank 0 gathers and uses the whole model, and the others return no samples.

    A `count` above 1 adds samples with the next seeds, before that with the configured one; greedy decoding has a
    single result. `max_new_tokens` defaults to the configured number. Raises `TrainingError` if the logits are
    not finite.
    """
    sample = state.config.sample
    max_new_tokens = sample.max_new_tokens if max_new_tokens is None else max_new_tokens
    if max_new_tokens == 0:
        return []
    model = _whole_model(state)
    if model is None:
        return []
    seeds = range(sample.seed, sample.seed + (count if sample.temperature > 0 else 1))
    try:
        with state.runtime.autocast():
            completions = {
                seed: generate_text(
                    model,
                    state.tokenizer,
                    sample.prompts,
                    max_new_tokens=max_new_tokens,
                    sampling=sampling_params(sample),
                    seed=seed,
                )
                for seed in reversed(seeds)
            }
    except WeightsError as error:
        raise TrainingError(f"no sample can be generated at step {state.counters.step:,}: {error}") from None
    return [
        SampleRecord(
            step=state.counters.step,
            tokens=state.counters.tokens,
            seed=seed,
            prompt=prompt,
            text=completion.text,
        )
        for seed, texts in completions.items()
        for prompt, (completion,) in zip(sample.prompts, texts, strict=True)
    ]


def sampling_params(sample: SampleConfig) -> SamplingParams:
    """How samples are drawn; raises `UsageError` for values out of range."""
    return SamplingParams(temperature=sample.temperature, top_k=sample.top_k)


def _whole_model(state: TrainState) -> GPT | None:
    """The model; if it is sharded, a whole copy on rank 0, and None on the others."""
    if not state.is_sharded:
        return state.model
    tensors = state.model.state_dict()
    if state.config.model.tie_embeddings:
        del tensors["lm_head.weight"]
    gathered = whole_on_main(tensors, state.world)
    if not state.world.is_main:
        return None
    return LazyModel(state.config.model, gathered, "the model in training").read().to(state.runtime.device)
