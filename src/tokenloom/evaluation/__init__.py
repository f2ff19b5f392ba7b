"""Evaluation of a model on a text: loss and perplexity, predictions token by token, comparison of models, baselines."""
