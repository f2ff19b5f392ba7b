"""5.5: OpenAI's weights."""

# %% split-qkv
import torch

width = 4
c_attn = torch.arange(width * 3 * width).view(width, 3 * width)  # (inputs, 3 x outputs)
query, key, value = c_attn.chunk(3, dim=-1)
print(list(c_attn.shape), "->", [list(part.shape) for part in (query, key, value)])
print(query.T)

# %% wrong-shape
from tokenloom import TokenloomError
from tokenloom.book import assign

try:
    assign(torch.zeros(768, 768), torch.zeros(1024, 1024))
except TokenloomError as error:
    print(error)

# %% download [network]
from tokenloom.book import download_and_load_gpt2

settings, params = download_and_load_gpt2("124M", models_dir="gpt2")
print(settings)
print(params["wte"][0, 0])

# %% load-weights [network]
from tokenloom.book import (
    GPTModel,
    generate,
    get_encoding,
    load_weights_into_gpt,
    text_to_token_ids,
    token_ids_to_text,
)

gpt = GPTModel(
    {
        "vocab_size": 50257,
        "context_length": 1024,
        "emb_dim": 768,
        "n_heads": 12,
        "n_layers": 12,
        "drop_rate": 0.1,
        "qkv_bias": True,
    }
)
load_weights_into_gpt(gpt, params)
gpt.eval()

tokenizer = get_encoding("gpt2")
torch.manual_seed(123)
output_ids = generate(
    gpt,
    text_to_token_ids("Every effort moves you", tokenizer),
    max_new_tokens=25,
    context_size=1024,
    top_k=50,
    temperature=1.5,
)
print(token_ids_to_text(output_ids, tokenizer))

# %% pretrained-losses [network]
from pathlib import Path

from tokenloom.book import calc_loss_loader, create_dataloader_v1
from tokenloom.data.corpora import corpus_file

file = Path("the-verdict.txt")
if not file.exists():
    file = corpus_file("the-verdict")
text = file.read_text(encoding="utf-8")
boundary = int(0.90 * len(text))
torch.manual_seed(123)
for name, part in (("training", text[:boundary]), ("validation", text[boundary:])):
    loader = create_dataloader_v1(part, batch_size=2, max_length=256, stride=256, shuffle=False)
    print(f"{name} {calc_loss_loader(loader, gpt, 'cpu'):.4f}")
