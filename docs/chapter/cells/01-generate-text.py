"""5.1.1: text from a model that has not been trained."""

# %% versions
from importlib.metadata import version

for library in ("matplotlib", "numpy", "tiktoken", "torch"):
    print(library, version(library))

# %% configuration
GPT_CONFIG_124M = {
    "vocab_size": 50257,  # tokens of GPT-2
    "context_length": 256,  # 1024 in GPT-2
    "emb_dim": 768,
    "n_heads": 12,
    "n_layers": 12,
    "drop_rate": 0.1,
    "qkv_bias": False,
}

# %% untrained-model
import torch

from tokenloom.book import GPTModel

torch.manual_seed(123)
model = GPTModel(GPT_CONFIG_124M)
model.eval()

parameters = sum(parameter.numel() for parameter in model.parameters())
long_context = parameters + (1024 - 256) * 768
print(f"{parameters:,} parameters")
print(f"{long_context:,} with a context of 1,024 tokens")
print(f"{long_context - 50257 * 768:,} if input and output share one embedding")

# %% prompt-ids
from tokenloom.book import get_encoding, text_to_token_ids, token_ids_to_text

tokenizer = get_encoding("gpt2")
prompt = "Every effort moves you"
prompt_ids = text_to_token_ids(prompt, tokenizer)
print(prompt_ids)
print(list(prompt_ids.shape))

# %% round-trip
ids = text_to_token_ids("Hello<|endoftext|>you", tokenizer)
print(ids)
print(token_ids_to_text(ids, tokenizer))

# %% untrained-text
from tokenloom.book import generate_text_simple

output_ids = generate_text_simple(model, prompt_ids, max_new_tokens=10, context_size=256)
print(token_ids_to_text(output_ids, tokenizer))

# %% untrained-distribution
import matplotlib.pyplot as plt

with torch.no_grad():
    probabilities = model(prompt_ids)[0, -1].softmax(dim=-1)
most_likely = probabilities.topk(12)

fig, ax = plt.subplots()
ax.bar(range(12), most_likely.values, color="#1f5aa6")
ax.axhline(1 / 50257, color="#e07b1a", linestyle="--", label="1 / 50,257")
tokens = [repr(tokenizer.decode([id])) for id in most_likely.indices]
ax.set_xticks(range(12), tokens, rotation=45, ha="right")
ax.set_ylabel("probability of the next token")
ax.legend()
plt.show()
