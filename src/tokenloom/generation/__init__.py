"""Generation: sampling from logits, batched generation of ids with a key-value cache, and text."""
