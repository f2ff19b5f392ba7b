"""Bonus: schedules, gradient clipping and the search for hyper-parameters."""

# %% warmup-and-cosine
from tokenloom.config import TrainConfig
from tokenloom.training.schedule import learning_rate

trimmings = TrainConfig(
    schedule="cosine",
    max_steps=135,
    warmup_steps=27,
    initial_lr=1e-5,
    learning_rate=1e-3,
    min_lr=1e-5,
)
for step in (0, 26, 81, 135):
    print(f"step {step:3}: {learning_rate(step, trimmings):.2e}")

# %% plot-schedules
import matplotlib.pyplot as plt

fig, ax = plt.subplots()
lines = {
    "constant": (":", "#9aa5b1"),
    "linear": ("--", "#2b7a3d"),
    "cosine": ("-", "#1f5aa6"),
    "wsd": ("-.", "#e07b1a"),
}
for schedule, (style, color) in lines.items():
    settings = trimmings.model_copy(update={"schedule": schedule})
    rates = [learning_rate(step, settings) for step in range(136)]
    ax.plot(rates, style, color=color, label=schedule)
ax.set_xlabel("step")
ax.set_ylabel("learning rate")
ax.legend()
plt.show()

# %% clip-gradients
import torch

weight = torch.nn.Parameter(torch.zeros(2))
weight.grad = torch.tensor([3.0, 4.0])
norm = torch.nn.utils.clip_grad_norm_([weight], max_norm=1.0)
print(f"norm before {norm:.1f}, after {weight.grad.norm():.1f}")
print("gradient", [round(value, 2) for value in weight.grad.tolist()])

# %% search
import itertools

import tokenloom as tl

results = []
for rate, decay in itertools.product((3e-4, 3e-3, 3e-2), (0.0, 0.1)):
    summary = tl.train(
        "the-verdict",
        out=f"runs/search-{rate:g}-{decay:g}",
        tokenizer="char",
        settings={
            "model": {
                "family": "gpt2",
                "block_size": 64,
                "n_layer": 2,
                "n_head": 2,
                "n_embd": 32,
            },
            "train": {
                "optimizer": "adamw",
                "learning_rate": rate,
                "weight_decay": decay,
                "max_steps": 100,
                "schedule": "cosine",
                "device": "cpu",
                "precision": "fp32",
            },
            "sample": {"max_new_tokens": 0},
        },
        quiet=True,
    )
    results.append((summary.val_loss, rate, decay))

for loss, rate, decay in sorted(results):
    print(f"validation loss {loss:.3f}  learning rate {rate:g}  weight decay {decay:g}")
