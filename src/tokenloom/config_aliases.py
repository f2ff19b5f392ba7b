"""Names that other tools use for our settings, and the suggestion of ours when one of them is typed."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

# Names in the book, nanoGPT, nanochat, litgpt and transformers.
CONFIG_ALIASES: Mapping[str, str] = {
    "max_iters": "train.max_steps",
    "num_steps": "train.max_steps",
    "num_iterations": "train.max_steps",
    "num_train_epochs": "train.max_steps",
    "num_epochs": "train.max_steps",
    "max_epochs": "train.max_steps",
    "epochs": "train.max_steps",
    "gpu": "train.device",
    "cuda": "train.device",
    "lr": "train.learning_rate",
    "lr_decay_iters": "train.max_steps",
    "warmup_iters": "train.warmup_steps",
    "warmup": "train.warmup_steps",
    "wd": "train.weight_decay",
    "clip": "train.grad_clip",
    "max_norm": "train.grad_clip",
    "max_grad_norm": "train.grad_clip",
    "eval_iters": "train.eval_batches",
    "eval_iter": "train.eval_batches",
    "eval_freq": "train.eval_interval",
    "eval_steps": "train.eval_interval",
    "save_steps": "train.save_interval",
    "save_total_limit": "train.keep_checkpoints",
    "logging_steps": "train.log_interval",
    "gradient_accumulation_steps": "train.batch_size",
    "per_device_train_batch_size": "train.micro_batch_size",
    "device_batch_size": "train.micro_batch_size",
    "global_batch_size": "train.batch_size",
    "dtype": "train.precision",
    "context_length": "model.block_size",
    "max_seq_len": "model.block_size",
    "sequence_len": "model.block_size",
    "seq_len": "model.block_size",
    "n_ctx": "model.block_size",
    "n_positions": "model.block_size",
    "emb_dim": "model.n_embd",
    "d_model": "model.n_embd",
    "hidden_size": "model.n_embd",
    "n_heads": "model.n_head",
    "num_heads": "model.n_head",
    "num_attention_heads": "model.n_head",
    "num_key_value_heads": "model.n_kv_head",
    "n_layers": "model.n_layer",
    "num_layers": "model.n_layer",
    "num_hidden_layers": "model.n_layer",
    "depth": "model.n_layer",
    "drop_rate": "model.dropout",
    "bias": "model.qkv_bias",
    "train_ratio": "data.val_fraction",
    "val_ratio": "data.val_fraction",
    "dataset": "data.sources",
}


def nearest_key(name: str, keys: Sequence[str]) -> str | None:
    """The key (`section.field`) that `name` most likely stands for; None if nothing is similar.

    Aliases come first, then the same field in another section, then the closest spelling.
    """
    name = name.replace("-", "_").lower()
    field = name.rpartition(".")[2]
    same_field = [key for key in keys if key.partition(".")[2] == field]
    similar = difflib.get_close_matches(name, keys, n=1, cutoff=0.6)
    candidates = [CONFIG_ALIASES.get(field), *same_field, *similar]
    return next(filter(None, candidates), None)


def unknown_table(name: str, tables: Sequence[str]) -> str:
    """The message about a table of a configuration file that does not exist."""
    nearest = difflib.get_close_matches(name, tables, n=1)
    hint = f" Did you mean [{nearest[0]}]?" if nearest else ""
    return f"unknown table [{name}].{hint} There are {', '.join(f'[{table}]' for table in tables)}."
