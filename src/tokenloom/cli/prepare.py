"""tokenloom prepare: text in, token shards out."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from tokenloom.cli.flags import DataFlags, given
from tokenloom.cli.stdin import source_names


def prepare(
    *sources: str,
    out: Path,
    tokenizer: str | None = None,
    add_token: Annotated[list[str] | None, Parameter(negative="")] = None,
    workers: int | None = None,
    val_fraction: float | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
    data: DataFlags | None = None,  # type: ignore[valid-type]
) -> None:
    """Turn text into token shards: once, in parallel, taken up again where a killed call left off.

    Parameters
    ----------
    sources
        Files, folders, globs, - (stdin), hf:NAME, or a named corpus.
    out
        Folder of the shards; the same call again does nothing.
    tokenizer
        gpt2, char, byte, bpe:N or the path of a tokenizer.json.
    add_token
        A token to add to the tokenizer's, such as <|user|>; may be given more than once.
    workers
        Processes; one for each core if left out.
    val_fraction
        Share kept for validation.
    json
        Print one JSON object with the counts on stdout.
    """
    from tokenloom import api

    shortcuts = {"workers": workers, "val_fraction": val_fraction, "add_tokens": add_token}
    settings = {"data": given(data) | {name: value for name, value in shortcuts.items() if value is not None}}
    shards = api.prepare(*source_names(sources), out=out, tokenizer=tokenizer, settings=settings)
    counts: dict[str, Any] = {
        "out": str(shards.path),
        "tokenizer": shards.tokenizer.kind,
        "vocab_size": shards.tokenizer.vocab_size,
        "already_prepared": shards.already_prepared,
        **{
            name: {"tokens": split.n_tokens, "documents": split.n_documents, "bytes": split.n_bytes}
            for name, split in (("train", shards.train), ("val", shards.val))
        },
        "fingerprint": shards.fingerprint,
    }
    if json:
        print(json_format.dumps(counts))
        return
    print("already prepared, nothing to do" if shards.already_prepared else f"prepared {shards.path}")
    for name in ("train", "val"):
        split = counts[name]
        print(f"{name:5}  {split['tokens']:,} tokens, {split['documents']:,} documents, {split['bytes']:,} bytes")
    print(f"Next: tokenloom train {shards.path}")
