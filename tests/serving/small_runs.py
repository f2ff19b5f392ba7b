"""Small runs to serve: random weights, far enough from the initial ones that greedy texts differ."""

from pathlib import Path

import torch

from tokenloom.config import Config, ModelConfig
from tokenloom.data.tokenizers import Tokenizer, load_tokenizer
from tokenloom.model.gpt2 import GPT2
from tokenloom.run_folder import RunFolder
from tokenloom.run_records import RunIdentity
from tokenloom.weights.checkpoint import save_checkpoint

CONTEXT = 64
TOKENIZER = load_tokenizer("byte")


def random_model(seed: int = 7, tokenizer: Tokenizer = TOKENIZER, context: int = CONTEXT) -> GPT2:
    """A model of two layers with random weights."""
    random = torch.Generator().manual_seed(seed)
    config = ModelConfig(
        family="gpt2",
        vocab_size=tokenizer.vocab_size,
        block_size=context,
        n_layer=2,
        n_head=2,
        n_embd=16,
        tie_embeddings=False,
    )
    model = GPT2(config, random)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=random)
    return model.eval()


def save_run(folder: Path, *models: GPT2, first_step: int = 1, tokenizer: Tokenizer = TOKENIZER) -> Path:
    """A run with a checkpoint of each model, one step apart."""
    run = RunFolder(folder)
    if not run.has_files():
        folder.mkdir(parents=True, exist_ok=True)
        run.write_config(Config())
        run.write_identity(RunIdentity(dataset="d", tokenizer="t", model={}, seed=1, order=[], optimizer="muon"))
    for step, model in enumerate(models, start=first_step):
        save_checkpoint(run.checkpoints, step, model, tokenizer, state={})
    return folder
