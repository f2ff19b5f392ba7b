"""What token shards are prepared from: options, tokenizer and sources, comparable with existing shards."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence

from tokenloom.config import DataConfig
from tokenloom.data.documents import ReadOptions, ReadState
from tokenloom.data.shards_meta import VERSION, ShardsMeta, SourceMeta
from tokenloom.data.sources import NO_STREAMS, Source, find_sources
from tokenloom.data.streams import Streams
from tokenloom.data.tokenizers import make_tokenizer
from tokenloom.data.tokenizers.load import needs_training
from tokenloom.errors import DataError


class DatasetSpec:
    """Everything that the content of token shards depends on.

    Raises `DataError` for a source that cannot be found, `TokenizerError` for a tokenizer that cannot be made.
    """

    def __init__(self, data: DataConfig, streams: Streams = NO_STREAMS) -> None:
        self.data, self._streams = data, streams
        # Before the sources, because a misspelt name should fail before they are searched.
        self.tokenizer = (
            None if needs_training(data.tokenizer) else make_tokenizer(data.tokenizer, added=data.add_tokens)
        )
        """The tokenizer; None if it has to be trained on the text."""
        self.sources = find_sources(data.sources, streams)
        self.options: Mapping[str, object] = {
            "tokenizer": data.tokenizer,
            "add_tokens": list(data.add_tokens),
            "val_fraction": data.val_fraction,
            "text_key": data.text_key,
            "encoding_errors": data.encoding_errors,
            "endoftext": data.endoftext,
        }

    def to_json(self) -> str:
        """The specification as far as it is known without reading the text, in a canonical form."""
        fingerprint = self.tokenizer and self.tokenizer.fingerprint
        identities = [source.identity for source in self.sources]
        content = {"version": VERSION, **self.options, "fingerprint": fingerprint, "sources": identities}
        return json.dumps(content, sort_keys=True)

    @property
    def cache_key(self) -> str:
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:32]

    @property
    def work_key(self) -> str:
        """A key of work in progress: it stays the same when a source, or an option for reading it, is corrected."""
        names = [os.path.abspath(name) for name in self.data.sources]
        piped = [source.identity for source in self.sources] if self._streams else []
        content = [names, piped, self.data.tokenizer, self.data.add_tokens, self.data.val_fraction]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]

    def new_pass(self) -> ReadState:
        """The state of another pass over the sources."""
        return ReadState(ReadOptions(self.data.text_key, self.data.encoding_errors))

    def total_bytes(self) -> int | None:
        """The size of all sources; None if one is unknown."""
        sizes = [source.size for source in self.sources]
        return None if None in sizes else sum(size for size in sizes if size is not None)

    def check_unchanged(self, read: Sequence[SourceMeta]) -> None:
        """Raise `DataError` if a source is not what was read: the split and the text would not match."""
        before = {source.name: source for source in read}
        after = {source.name: source for source in find_sources(self.data.sources, self._streams)}
        for name in before | after:
            if name not in before or name not in after or not self._is_same(after[name], before[name]):
                raise DataError(f"{name} changed while it was read. Run the command again when nothing writes to it.")

    def find_mismatch(self, meta: ShardsMeta) -> str | None:
        """How existing shards differ from this specification, for an error message; None if they match."""
        for option, requested in self.options.items():
            actual = meta.request.get(option, [])  # shards of older versions have no `add_tokens`
            if actual != requested:
                return f"they were prepared with {option} {actual!r}, not {requested!r}"
        if self.tokenizer and self.tokenizer.fingerprint != meta.tokenizer.fingerprint:
            return f"tokenizer {self.data.tokenizer} has changed since"
        if len(meta.sources) != len(self.sources):
            return f"they were prepared from {len(meta.sources)} sources, not {len(self.sources)}"
        pairs = zip(self.sources, meta.sources, strict=True)
        changed = next((source.name for source, recorded in pairs if not self._is_same(source, recorded)), None)
        return None if changed is None else f"{changed} has changed since"

    def _is_same(self, source: Source, recorded: SourceMeta) -> bool:
        if source.identity == recorded.identity:
            return True
        if source.size != recorded.bytes:
            return False
        state = self.new_pass()  # a file that was moved, copied or touched is compared by content
        for _ in source.read(state):
            pass
        return state.sha256.get(source.name) == recorded.sha256
