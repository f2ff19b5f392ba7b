"""The functions and classes of the book's chapter 5, under the book's names.

The code cells of the chapter run after changing only their import lines. Signatures, printed lines and the use of
torch's random number generator are those of the book, so that its results are reproduced (Raschka, Build a Large
Language Model (From Scratch), chapter 5 and appendix D). To train your own models, use `tokenloom.train`.
"""

from tokenloom.book.data import (
    create_dataloader_v1,
    get_encoding,
    text_to_token_ids,
    token_ids_to_text,
)
from tokenloom.book.generation import (
    generate,
    generate_and_print_sample,
    generate_text_simple,
)
from tokenloom.book.model import (
    GPTModel,
    assign,
    download_and_load_gpt2,
    load_weights_into_gpt,
    model_config,
)
from tokenloom.book.toy_vocabulary import (
    TOY_LOGITS,
    TOY_VOCABULARY,
    print_sampled_tokens,
    sample_counts,
    softmax_with_temperature,
)
from tokenloom.book.training import (
    calc_loss_batch,
    calc_loss_loader,
    evaluate_model,
    plot_losses,
    train_model,
    train_model_simple,
)

__all__ = [
    "TOY_LOGITS",
    "TOY_VOCABULARY",
    "GPTModel",
    "assign",
    "calc_loss_batch",
    "calc_loss_loader",
    "create_dataloader_v1",
    "download_and_load_gpt2",
    "evaluate_model",
    "generate",
    "generate_and_print_sample",
    "generate_text_simple",
    "get_encoding",
    "load_weights_into_gpt",
    "model_config",
    "plot_losses",
    "print_sampled_tokens",
    "sample_counts",
    "softmax_with_temperature",
    "text_to_token_ids",
    "token_ids_to_text",
    "train_model",
    "train_model_simple",
]
