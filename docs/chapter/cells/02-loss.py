"""5.1.2: the loss of generated text."""

# %% loss-model
import torch

from tokenloom.book import GPTModel, get_encoding, token_ids_to_text

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
tokenizer = get_encoding("gpt2")

# %% inputs-and-targets
inputs = torch.tensor(
    [
        [16833, 3626, 6100],  # "every effort moves"
        [40, 1107, 588],  # "I really like"
    ]
)
targets = torch.tensor(
    [
        [3626, 6100, 345],  # " effort moves you"
        [1107, 588, 11311],  # " really like chocolate"
    ]
)

# %% probabilities
with torch.no_grad():
    logits = model(inputs)
probas = torch.softmax(logits, dim=-1)
print(list(probas.shape))

# %% most-likely-tokens
predicted_ids = torch.argmax(probas, dim=-1)
print(predicted_ids.tolist())
print("target:", token_ids_to_text(targets[0], tokenizer))
print("output:", token_ids_to_text(predicted_ids[0], tokenizer))

# %% target-probabilities
target_probas = probas.gather(-1, targets.unsqueeze(-1)).squeeze(-1)  # (2, 3)
for row in target_probas:
    print(" ".join(f"{probability:.4e}" for probability in row))

# %% log-probabilities
log_probas = torch.log(target_probas.flatten())
print(" ".join(f"{value:.4f}" for value in log_probas))

# %% mean-log-probability
mean = log_probas.mean()
print(f"mean log-probability  {mean:.4f}")
print(f"loss                   {-mean:.4f}")

# %% surprise-curve
import matplotlib.pyplot as plt

p = torch.logspace(-6, 0, 200)
fig, ax = plt.subplots()
ax.semilogx(p, -p.log(), color="#1f5aa6")
ax.plot(target_probas.flatten(), -log_probas, "o", color="#e07b1a", label="the six targets")
ax.axhline(-mean, color="#e07b1a", linestyle="--", label="their mean: the loss")
ax.set_xlabel("probability of the target token")
ax.set_ylabel("-log(probability), in nats")
ax.legend()
plt.show()

# %% flat-shapes
logits_flat, targets_flat = logits.flatten(0, 1), targets.flatten()
print(list(logits.shape), "->", list(logits_flat.shape))
print(list(targets.shape), "->", list(targets_flat.shape))

# %% cross-entropy
loss = torch.nn.functional.cross_entropy(logits_flat, targets_flat)
print(f"{loss:.4f}")

# %% perplexity
print(f"{torch.exp(loss):.4f}")
