"""From text to batches: corpora, sources, tokenizers, shards, batches."""
