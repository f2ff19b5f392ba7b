"""Beyond the chapter: a model read token by token."""

# %% train-with-plot
import tokenloom as tl

summary = tl.train(
    "the-verdict",
    out="runs/verdict",
    tokenizer="bpe:512",
    settings={
        "model": {
            "family": "gpt2",
            "block_size": 64,
            "n_layer": 2,
            "n_head": 2,
            "n_embd": 64,
        },
        "train": {
            "max_steps": 120,
            "eval_interval": 20,
            "log_interval": 5,
            "keep_checkpoints": 10,
            "compile": False,
        },
        "sample": {"prompts": ["I had always"], "max_new_tokens": 30},
    },
)

# %% inspect
passage = "I had always thought Jack Gisburn rather a cheap genius, but the moon is cheese."
tl.inspect("runs/verdict", passage)

# %% inspect-numbers
inspection = tl.inspect("runs/verdict", passage, top=3)
hardest = max(inspection.tokens, key=lambda token: token.nats)
print(f"{hardest.text!r}: {hardest.nats:.1f} nats, rank {hardest.rank}")
print("instead:", [alternative.text for alternative in hardest.top])

# %% compare
tl.compare("runs/verdict@step-20", "runs/verdict", passage)
