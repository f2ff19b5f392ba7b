"""Sampling from the toy vocabulary of section 5.3."""

import torch

from tokenloom.book import TOY_LOGITS, print_sampled_tokens, softmax_with_temperature


def test_the_words_are_printed_with_their_counts(capsys):
    logits = torch.tensor(TOY_LOGITS)
    print_sampled_tokens(softmax_with_temperature(logits, 0.1))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 9
    assert sum(int(line.split(" x ")[0]) for line in lines) == 1000
