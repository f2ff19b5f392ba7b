"""5.2: training."""

# %% training-data
from pathlib import Path

import torch

from tokenloom.book import GPTModel, create_dataloader_v1, get_encoding
from tokenloom.data.corpora import corpus_file

GPT_CONFIG_124M = {
    "vocab_size": 50257,
    "context_length": 256,
    "emb_dim": 768,
    "n_heads": 12,
    "n_layers": 12,
    "drop_rate": 0.1,
    "qkv_bias": False,
}
file = Path("the-verdict.txt")
if not file.exists():
    file = corpus_file("the-verdict")
text = file.read_text(encoding="utf-8")
boundary = int(0.90 * len(text))
tokenizer = get_encoding("gpt2")

torch.manual_seed(123)
sizes = {"batch_size": 2, "max_length": 256, "stride": 256, "num_workers": 0}
train_loader = create_dataloader_v1(text[:boundary], **sizes, shuffle=True, drop_last=True)
val_loader = create_dataloader_v1(text[boundary:], **sizes, shuffle=False, drop_last=False)

# %% one-step
from tokenloom.book import calc_loss_batch

torch.manual_seed(123)
model = GPTModel(GPT_CONFIG_124M)
optimizer = torch.optim.AdamW(model.parameters(), lr=4e-4, weight_decay=0.1)
inputs, targets = next(iter(train_loader))

model.train()
for step in range(3):
    optimizer.zero_grad()  # gradients of the step before
    loss = calc_loss_batch(inputs, targets, model, "cpu")
    loss.backward()  # a gradient for every parameter
    optimizer.step()  # a small change of every parameter
    print(f"step {step}: loss {loss:.1f}")

# %% train [stored: train_losses val_losses tokens_seen]
from tokenloom.book import train_model_simple

torch.manual_seed(123)
model = GPTModel(GPT_CONFIG_124M)
optimizer = torch.optim.AdamW(model.parameters(), lr=4e-4, weight_decay=0.1)
train_losses, val_losses, tokens_seen = train_model_simple(
    model,
    train_loader,
    val_loader,
    optimizer,
    "cpu",
    num_epochs=10,
    eval_freq=5,
    eval_iter=5,
    start_context="Every effort moves you",
    tokenizer=tokenizer,
)

# %% plot-losses
import matplotlib.pyplot as plt

epochs = torch.linspace(0, 10, len(train_losses))
fig, ax = plt.subplots()
ax.plot(epochs, train_losses, color="#1f5aa6", label="training")
ax.plot(epochs, val_losses, "-.", color="#e07b1a", label="validation")
ax.set_xlabel("epochs")
ax.set_ylabel("loss (nats per token)")
ax.set_xticks(range(11))
top = ax.twiny()
top.plot(tokens_seen, train_losses, alpha=0)  # only for its scale
top.set_xlabel("tokens seen")
ax.legend()
plt.show()

# %% best-validation
steps = range(0, 90, 5)
best = min(zip(val_losses, steps, strict=True))
print(f"lowest validation loss {best[0]:.3f} at step {best[1]}")
print(f"at the end: training {train_losses[-1]:.3f}, validation {val_losses[-1]:.3f}")

# %% memorized [stored]
from tokenloom.book import generate_text_simple, text_to_token_ids, token_ids_to_text
from tokenloom.book.training_section import longest_overlap

model.eval()
prompt_ids = text_to_token_ids("Every effort moves you", tokenizer)
sample = token_ids_to_text(generate_text_simple(model, prompt_ids, 50, 256), tokenizer)
print(longest_overlap(sample, text))

# %% heat-of-training-text [stored]
from tokenloom.data.tokenizers import load_tokenizer
from tokenloom.evaluation.inspection import inspect_tokens

gpt2_tokenizer = load_tokenizer("gpt2")
passage = text[5000:5300]
inspect_tokens(model, gpt2_tokenizer.encode_array(passage), gpt2_tokenizer)

# %% heat-of-validation-text [stored]
passage = text[boundary + 300 : boundary + 600]
inspect_tokens(model, gpt2_tokenizer.encode_array(passage), gpt2_tokenizer)

# %% save-trained-model [stored]
torch.save(model.state_dict(), "model.pth")
