"""5.3: decoding strategies."""

# %% toy-logits
import torch

from tokenloom.book import TOY_LOGITS, TOY_VOCABULARY

logits = torch.tensor(TOY_LOGITS)
for word, logit, probability in zip(TOY_VOCABULARY, logits, logits.softmax(dim=0), strict=True):
    print(f"{word:<8} {logit:6.2f} {probability:.4f}")

# %% greedy
print(TOY_VOCABULARY[int(logits.argmax())])

# %% sample-counts
from tokenloom.book import print_sampled_tokens

print_sampled_tokens(torch.softmax(logits, dim=0))

# %% temperature-counts
from tokenloom.book import sample_counts, softmax_with_temperature

for temperature in (1, 0.1, 5):
    probas = softmax_with_temperature(logits, temperature)
    print(f"temperature {temperature}:", sample_counts(probas))

# %% pizza
pizza = TOY_VOCABULARY.index("pizza")
print(f"{softmax_with_temperature(logits, 5)[pizza]:.4f}")

# %% plot-temperatures
import matplotlib.pyplot as plt

fig, ax = plt.subplots()
for number, (temperature, color) in enumerate(((1, "#1f5aa6"), (0.1, "#9aa5b1"), (5, "#e07b1a"))):
    positions = [position + (number - 1) * 0.27 for position in range(len(TOY_VOCABULARY))]
    heights = softmax_with_temperature(logits, temperature)
    ax.bar(positions, heights, 0.27, color=color, label=f"temperature {temperature}")
ax.set_xticks(range(len(TOY_VOCABULARY)), TOY_VOCABULARY, rotation=45, ha="right")
ax.set_ylabel("probability")
ax.legend()
plt.show()

# %% top-k
top_logits, top_positions = torch.topk(logits, 3)
print([round(value, 2) for value in top_logits.tolist()])
print(top_positions.tolist())

# %% top-k-probabilities
kept = torch.where(logits < top_logits[-1], float("-inf"), logits)
print(" ".join(f"{probability:.4f}" for probability in kept.softmax(dim=0)))

# %% generate [stored]
from tokenloom.book import GPTModel, generate, get_encoding, text_to_token_ids, token_ids_to_text

GPT_CONFIG_124M = {
    "vocab_size": 50257,
    "context_length": 256,
    "emb_dim": 768,
    "n_heads": 12,
    "n_layers": 12,
    "drop_rate": 0.1,
    "qkv_bias": False,
}
tokenizer = get_encoding("gpt2")
model = GPTModel(GPT_CONFIG_124M)
model.load_state_dict(torch.load("model.pth"))  # saved at the end of 5.2
model.eval()
prompt_ids = text_to_token_ids("Every effort moves you", tokenizer)

torch.manual_seed(123)
for temperature, top_k in ((0.0, None), (1.4, 25), (1.4, 25), (3.0, None)):
    output_ids = generate(model, prompt_ids, 15, context_size=256, temperature=temperature, top_k=top_k)
    print(f"temperature {temperature}, top-k {top_k}: {token_ids_to_text(output_ids, tokenizer)!r}")

# %% deterministic [stored]
greedy = generate(model, prompt_ids, 15, context_size=256, temperature=0.0)
only_one = generate(model, prompt_ids, 15, context_size=256, temperature=1.4, top_k=1)
print(torch.equal(greedy, only_one))
