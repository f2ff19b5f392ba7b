"""5.4: saving and loading."""

# %% small-model
import torch

from tokenloom.book import GPTModel, calc_loss_batch

CONFIG = {
    "vocab_size": 50257,
    "context_length": 256,
    "emb_dim": 48,
    "n_heads": 4,
    "n_layers": 2,
    "drop_rate": 0.1,
    "qkv_bias": False,
}
torch.manual_seed(123)
model = GPTModel(CONFIG)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
ids = torch.randint(0, 50257, (2, 17))


def train_one_step(model, optimizer):
    model.train()
    torch.manual_seed(7)  # the same dropout in every call
    optimizer.zero_grad()
    calc_loss_batch(ids[:, :-1], ids[:, 1:], model, "cpu").backward()
    optimizer.step()


train_one_step(model, optimizer)

# %% save-weights
torch.save(model.state_dict(), "small-model.pth")

loaded = GPTModel(CONFIG)
loaded.load_state_dict(torch.load("small-model.pth", weights_only=True))
model.eval()
loaded.eval()
with torch.no_grad():
    print("same logits:", torch.equal(model(ids), loaded(ids)))

# %% save-both
torch.save(
    {"model_state_dict": model.state_dict(), "optimizer_state_dict": optimizer.state_dict()},
    "model_and_optimizer.pth",
)

# %% load-both
checkpoint = torch.load("model_and_optimizer.pth", weights_only=True)
loaded = GPTModel(CONFIG)
loaded.load_state_dict(checkpoint["model_state_dict"])
loaded_optimizer = torch.optim.AdamW(loaded.parameters(), lr=5e-4, weight_decay=0.1)
loaded_optimizer.load_state_dict(checkpoint["optimizer_state_dict"])
print("learning rate:", loaded_optimizer.param_groups[0]["lr"])

# %% continue-training
train_one_step(model, optimizer)
train_one_step(loaded, loaded_optimizer)
pairs = zip(model.parameters(), loaded.parameters(), strict=True)
print("same weights with the optimizer's state:", all(torch.equal(a, b) for a, b in pairs))

# %% without-optimizer-state
loaded.load_state_dict(checkpoint["model_state_dict"])
fresh_optimizer = torch.optim.AdamW(loaded.parameters(), lr=1e-3, weight_decay=0.1)
train_one_step(loaded, fresh_optimizer)
pairs = zip(model.parameters(), loaded.parameters(), strict=True)
print("same weights without it:", all(torch.equal(a, b) for a, b in pairs))
