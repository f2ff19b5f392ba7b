"""The names that a notebook of chapter 5 imports."""

import tokenloom.book


def test_the_public_names_are_those_of_the_book():
    assert sorted(tokenloom.book.__all__) == [
        "GPTModel",
        "TOY_LOGITS",
        "TOY_VOCABULARY",
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
    assert all(hasattr(tokenloom.book, name) for name in tokenloom.book.__all__)
