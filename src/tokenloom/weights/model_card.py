"""The README of an exported model: its architecture, and how it was trained if its run is there."""

from __future__ import annotations

import json
from collections.abc import Mapping

from tokenloom import __version__
from tokenloom.model.flops import count_parameters
from tokenloom.run_folder import RunFolder
from tokenloom.weights.load import LoadedModel


def model_card(loaded: LoadedModel, license: str | None = None) -> str:
    """A model card in Markdown, with the front matter that the Hugging Face Hub reads."""
    config = loaded.model.config
    architecture = {"gpt2": "GPT-2", "modern": "Qwen3"}[config.family]
    front: dict[str, object] = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": [architecture.lower().replace("-", ""), "tokenloom"],
    }
    if license:
        front["license"] = license
    run = RunFolder.of_checkpoint(loaded.path)
    facts = {
        "parameters": f"{count_parameters(config):,}",
        "layers, heads, width": f"{config.n_layer}, {config.n_head}, {config.n_embd}",
        "context": f"{config.block_size:,} tokens",
        "vocabulary": f"{config.vocabulary:,} ({loaded.tokenizer.kind})",
        "license": license or "not stated",
        **(_training_facts(run) if run else {}),
    }
    rows = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    return f"""---
{json.dumps(front, indent=2)}
---

# A {architecture} {"trained" if run else "exported"} with Tokenloom {__version__}

| | |
|---|---|
{rows}

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model, tokenizer = AutoModelForCausalLM.from_pretrained("."), AutoTokenizer.from_pretrained(".")
```

This is a base model: it continues text in the style of its training data. Its output may be wrong or offensive.
"""


def _training_facts(run: RunFolder) -> Mapping[str, str]:
    """Data, settings and final figures of a run, as far as they are recorded."""
    config, identity, summary = run.config(), run.identity(), run.summary()
    facts: dict[str, str | None] = {
        "data": " ".join(config.data.sources),
        "sha256 of the data": identity.dataset if identity else None,
        "initialized from": config.train.init_from,
        "seed": str(config.train.seed),
    }
    if summary is not None:
        losses = {
            "training loss (nats per token, last steps)": summary.train_loss,
            "validation loss (nats per token, whole validation text)": summary.val_loss,
            f"perplexity (context and stride {config.model.block_size:,})": summary.val_perplexity,
            "bits per byte": summary.val_bits_per_byte,
        }
        facts |= {
            "command": f"`{summary.command}`" if summary.command else None,
            "steps": f"{summary.steps:,}" if summary.steps is not None else None,
            "tokens seen": f"{summary.tokens:,}" if summary.tokens is not None else None,
            **{name: f"{value:.4f}" for name, value in losses.items() if value is not None},
        }
    return {name: value for name, value in facts.items() if value}
