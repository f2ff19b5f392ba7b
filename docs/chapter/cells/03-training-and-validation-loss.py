"""5.1.3: the losses of the training and the validation set."""

# %% read-text
from pathlib import Path

from tokenloom.book import get_encoding
from tokenloom.data.corpora import corpus_file

file = Path("the-verdict.txt")
if not file.exists():
    file = corpus_file("the-verdict")  # downloaded once, and verified
text = file.read_text(encoding="utf-8")
tokenizer = get_encoding("gpt2")

print(f"{len(text):,} characters")
print(f"{len(tokenizer.encode(text)):,} tokens")

# %% text-ends
print(text[:99])
print(text[-99:])

# %% cost-of-llama
gpu_hours, gpus, dollars_per_hour = 184_320, 8, 30
print(f"{gpu_hours / gpus * dollars_per_hour:,.0f} dollars")

# %% split
boundary = int(0.90 * len(text))
train_text, val_text = text[:boundary], text[boundary:]
print(f"{boundary:,} characters for training")
tokens = [len(tokenizer.encode(part)) for part in (train_text, val_text)]
print(f"{tokens[0]:,} tokens for training, {tokens[1]:,} for validation")

# %% loaders
import torch

from tokenloom.book import create_dataloader_v1

torch.manual_seed(123)
sizes = {"batch_size": 2, "max_length": 256, "stride": 256, "num_workers": 0}
train_loader = create_dataloader_v1(train_text, **sizes, shuffle=True, drop_last=True)
val_loader = create_dataloader_v1(val_text, **sizes, shuffle=False, drop_last=False)
for name, loader in (("training", train_loader), ("validation", val_loader)):
    shapes = {tuple(tensor.shape) for batch in loader for tensor in batch}
    print(f"{name}: {len(loader)} batches, shapes {shapes}")

# %% token-totals
loaders = (train_loader, val_loader)
totals = [sum(inputs.numel() for inputs, _ in loader) for loader in loaders]
print(f"{totals[0]:,} + {totals[1]:,} = {sum(totals):,} tokens")

# %% long-context
for name, part in (("training", train_text), ("validation", val_text)):
    tokens = len(tokenizer.encode(part))
    print(f"{name}: {len(range(0, tokens - 1024, 1024))} windows of 1,024 tokens")

# %% losses-before-training
from tokenloom.book import GPTModel, calc_loss_loader

GPT_CONFIG_124M = {
    "vocab_size": 50257,
    "context_length": 256,
    "emb_dim": 768,
    "n_heads": 12,
    "n_layers": 12,
    "drop_rate": 0.1,
    "qkv_bias": False,
}
torch.manual_seed(123)
model = GPTModel(GPT_CONFIG_124M)
model.eval()

torch.manual_seed(123)  # the training loader shuffles
print("training  ", calc_loss_loader(train_loader, model, "cpu"))
print("validation", calc_loss_loader(val_loader, model, "cpu"))

# %% uniform-loss
import math

print(f"{math.log(50257):.4f}")

# %% device
device = "cpu"
if torch.cuda.is_available():
    device = "cuda"
elif torch.backends.mps.is_available():
    device = "mps"
print(device)
