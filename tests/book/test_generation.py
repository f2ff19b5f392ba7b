"""Generated tokens equal those of the book's loops."""

import pytest
import torch

from tokenloom.book import generate, generate_and_print_sample, generate_text_simple, get_encoding


def test_greedy_decoding_equals_the_loop_of_the_book(model):
    ids = torch.tensor([[6109, 3626, 6100, 345], [40, 1107, 588, 257]])
    plain = ids
    with torch.no_grad():
        for _ in range(40):  # past the context of 32
            plain = torch.cat([plain, model(plain[:, -32:])[:, -1].argmax(dim=-1, keepdim=True)], dim=1)
    assert torch.equal(generate_text_simple(model, ids, max_new_tokens=40, context_size=32), plain)


def test_sampling_uses_torchs_default_generator(model):
    ids = torch.tensor([[6109, 3626, 6100, 345]])
    torch.manual_seed(123)
    plain = ids
    with torch.no_grad():
        for _ in range(12):
            logits = model(plain[:, -32:])[:, -1]
            top = logits.topk(25).values
            logits = torch.where(logits < top[:, -1:], -torch.inf, logits) / 1.4
            plain = torch.cat([plain, torch.multinomial(logits.softmax(dim=-1), 1)], dim=1)
    torch.manual_seed(123)
    assert torch.equal(generate(model, ids, 12, 32, temperature=1.4, top_k=25), plain)


@pytest.mark.parametrize("context", [32, 8])
@pytest.mark.parametrize("options", [{}, {"temperature": 1.0, "top_k": 3}])
def test_each_row_of_a_batch_stops_independently(model, context, options):
    """The book's own compares the whole batch with the end at once."""
    ids = torch.tensor([[6109, 3626], [40, 1107]])
    torch.manual_seed(3)
    free = generate(model, ids, 12, context, **options)
    end = int(free[0, 5])  # a token that the first row writes as its fourth
    torch.manual_seed(3)
    ended = generate(model, ids, 12, context, eos_id=end, **options)
    written = free[0, 2:].tolist()
    stop = written.index(end)
    assert ended[0, 2 : 2 + stop].tolist() == written[:stop]
    assert set(ended[0, 2 + stop :].tolist()) <= {end}
    if end not in free[1, 2:]:
        assert torch.equal(ended[1], free[1])


def test_a_sample_is_one_line(model, capsys):
    generate_and_print_sample(model, get_encoding("gpt2"), "cpu", "It was")
    assert len(capsys.readouterr().out.splitlines()) == 1
