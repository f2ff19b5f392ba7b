"""Data: text sources, tokenizers, token shards and batches."""
