"""tokenloom prepare: tokenize text into token shards."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from tokenloom.cli.flags import DataFlags, given
from tokenloom.cli.output import print_json, print_notice, print_result
from tokenloom.cli.parameters import OUTPUT, TEXT_SOURCES_HELP, Json, Refresh

if TYPE_CHECKING:
    from tokenloom.data.shards import Shards, Split


def prepare(
    *sources: Annotated[str, Parameter(help=TEXT_SOURCES_HELP)],
    out: Annotated[Path, Parameter(group=OUTPUT)],
    refresh: Refresh = False,
    json: Json = False,
    data: DataFlags | None = None,
) -> None:
    """Tokenize text into token shards, in parallel.

    An interrupted or failed call continues where it stopped when it is repeated; a completed one does nothing.

    Parameters
    ----------
    out
        Folder of the token shards.
    """
    from tokenloom import api
    from tokenloom.data.sources import source_notices

    for notice in source_notices(sources):
        print_notice(notice)
    shards = api.prepare(*sources, out=out, refresh=refresh, settings={"data": given(data)})
    for notice in shards.notices:
        print_notice(notice)
    if json:
        print_json(_to_json(shards))
        return
    print_result("already prepared, nothing to do" if shards.already_prepared else f"prepared {shards.path}")
    for name, split in (("train", shards.train), ("val", shards.val)):
        print_result(f"{name:5}  {split.n_tokens:,} tokens, {split.n_documents:,} documents, {split.n_bytes:,} bytes")
    print_result(f"Next: tokenloom train {shlex.quote(str(shards.path))}")


def _to_json(shards: Shards) -> dict[str, object]:
    return {
        "out": str(shards.path),
        "tokenizer": shards.tokenizer.kind,
        "vocab_size": shards.tokenizer.vocab_size,
        "already_prepared": shards.already_prepared,
        "train": _split_to_json(shards.train),
        "val": _split_to_json(shards.val),
        "fingerprint": shards.fingerprint,
    }


def _split_to_json(split: Split) -> dict[str, int]:
    return {"tokens": split.n_tokens, "documents": split.n_documents, "bytes": split.n_bytes}
