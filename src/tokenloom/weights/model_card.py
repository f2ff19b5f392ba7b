"""The README of an exported model: what is known of how it was made, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenloom import __version__
from tokenloom.config import Config
from tokenloom.config_files import read_toml
from tokenloom.model.flops import count_parameters
from tokenloom.weights.load import LoadedModel


def model_card(loaded: LoadedModel, license: str | None = None) -> str:
    """A model card in Markdown with the front matter that the hub reads."""
    config = loaded.model.config
    front = {"library_name": "transformers", "pipeline_tag": "text-generation", "tags": ["gpt2", "tokenloom"]}
    front |= {"license": license} if license else {}
    facts = {
        "parameters": f"{count_parameters(config):,}",
        "layers, heads, width": f"{config.n_layer}, {config.n_head}, {config.n_embd}",
        "context": f"{config.block_size:,} tokens",
        "vocabulary": f"{config.vocabulary:,} ({loaded.tokenizer.kind})",
        "licence": license or "not stated",
        **_training(loaded.path.parent.parent),
    }
    rows = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    return f"""---
{json.dumps(front, indent=2)}
---

# A GPT-2 trained with Tokenloom {__version__}

| | |
|---|---|
{rows}

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model, tokenizer = AutoModelForCausalLM.from_pretrained("."), AutoTokenizer.from_pretrained(".")
```

It continues text in the manner of what it was trained on, and knows nothing else. What it writes is not checked.
"""


def _training(run: Path) -> dict[str, str]:
    """What a run's folder tells of the training; nothing for a model that belongs to none."""
    if not ((run / "config.toml").is_file() and (run / "identity.json").is_file()):
        return {}
    config = Config.of(read_toml(run / "config.toml"))
    identity: dict[str, Any] = json.loads((run / "identity.json").read_text())
    file = run / "summary.json"
    summary: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    facts: dict[str, str | None] = {
        "data": " ".join(config.data.sources),
        "sha256 of the data": identity.get("dataset"),
        "started from": config.train.init_from,
        "seed": str(config.train.seed),
        "command": f"`{summary['command']}`" if "command" in summary else None,
    }
    named = {"steps": "steps", "tokens": "tokens seen"}
    facts |= {name: f"{summary[key]:,}" for key, name in named.items() if summary.get(key) is not None}
    losses = {
        "train_loss": "training loss (nats per token, last steps)",
        "val_loss": "validation loss (nats per token, at the end)",
        "val_perplexity": f"perplexity (context and stride {config.model.block_size:,})",
        "val_bits_per_byte": "bits per byte",
    }
    facts |= {name: f"{summary[key]:.4f}" for key, name in losses.items() if summary.get(key) is not None}
    return {name: value for name, value in facts.items() if value}
