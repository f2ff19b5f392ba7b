"""GPT-2: the figures of chapter 5 to the last printed digit, initial weights, dropout and activation checkpointing."""

import math

import pytest
import torch
from torch import nn

from tokenloom.config import Config, ModelConfig
from tokenloom.config_files import read_preset
from tokenloom.data.batches import Batches
from tokenloom.data.tokenizers import load_tokenizer
from tokenloom.errors import ConfigError
from tokenloom.evaluation.loss import loss_over_batches
from tokenloom.model import build
from tokenloom.model.flops import count_parameters
from tokenloom.model.gpt2 import GPT2

SMALL = ModelConfig(family="gpt2", vocab_size=50, block_size=8, n_layer=2, n_head=2, n_embd=16, qkv_bias=False)
# Inputs and targets of the example in section 5.1.
INPUTS = torch.tensor([[16833, 3626, 6100], [40, 1107, 588]])
TARGETS = torch.tensor([[3626, 6100, 345], [1107, 588, 11311]])


@pytest.fixture(scope="module")
def book_model():
    """The chapter's model under `torch.manual_seed(123)`."""
    with torch.random.fork_rng():
        torch.manual_seed(123)
        return build(Config.of(read_preset("book-124m")).model).eval()


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("gpt2")


# The figures of chapter 5, by row of its table


def test_row_2_the_books_model_has_the_books_number_of_parameters(book_model):
    config = book_model.config
    assert sum(parameter.numel() for parameter in book_model.parameters()) == 162_419_712
    assert count_parameters(config) == 162_419_712
    assert count_parameters(config.model_copy(update={"block_size": 1024})) == 163_009_536
    assert count_parameters(config.model_copy(update={"block_size": 1024, "tie_embeddings": True})) == 124_412_160


@torch.no_grad()
def test_row_4_the_untrained_model_generates_the_text_in_the_book(book_model, tokenizer):
    ids = tokenizer.encode("Every effort moves you")
    assert ids == [6109, 3626, 6100, 345]
    for _ in range(10):
        ids.append(book_model(torch.tensor([ids]))[0, -1].argmax().item())
    assert tokenizer.decode(ids) == "Every effort moves you rentingetic wasnم refres RexMeCHicular stren"


@pytest.fixture(scope="module")
def logits(book_model):
    with torch.no_grad():
        return book_model(INPUTS)


@pytest.fixture(scope="module")
def likelihoods(logits):
    return logits.softmax(-1).gather(-1, TARGETS[..., None]).flatten()


def test_row_6_there_is_a_probability_for_every_token_of_the_vocabulary(logits, tokenizer):
    assert tokenizer.decode(INPUTS[0]) == "every effort moves"
    assert tokenizer.decode(INPUTS[1]) == "I really like"
    assert logits.softmax(-1).shape == (2, 3, 50257)


def test_row_7_the_most_likely_tokens_are_those_of_the_book(logits, tokenizer):
    predicted = logits.argmax(-1)
    assert predicted.tolist() == [[16657, 339, 42826], [49906, 29669, 41751]]
    assert tokenizer.decode(TARGETS[0]) == " effort moves you"
    assert tokenizer.decode(predicted[0]) == " Armed heNetflix"


def test_row_8_the_targets_are_as_unlikely_as_in_the_book(likelihoods):
    printed = ["7.4540e-05", "3.1061e-05", "1.1563e-05", "1.0337e-05", "5.6776e-05", "4.7559e-06"]
    for likelihood, digits in zip(likelihoods.tolist(), printed, strict=True):
        half_a_unit = 0.5 * 10 ** (int(digits[-3:]) - 4)  # the book prints four decimals
        assert likelihood == pytest.approx(float(digits), abs=2e-5 * float(digits) + half_a_unit)


def test_row_9_the_log_probabilities_and_their_mean_are_those_of_the_book(likelihoods):
    logs = likelihoods.log()
    printed = ["-9.5042", "-10.3796", "-11.3677", "-11.4798", "-9.7764", "-12.2561"]
    assert [f"{log:.4f}" for log in logs.tolist()] == printed
    assert f"{logs.mean():.4f}" == "-10.7940"


def test_row_10_the_cross_entropy_is_the_negative_mean(book_model, logits):
    flat = logits.flatten(0, 1)
    assert (flat.shape, TARGETS.flatten().shape) == ((6, 50257), (6,))
    assert f"{nn.functional.cross_entropy(flat, TARGETS.flatten()):.4f}" == "10.7940"
    with torch.no_grad():
        assert f"{book_model.loss(INPUTS, TARGETS):.4f}" == "10.7940"


def test_row_11_the_perplexity_is_that_of_the_book(book_model):
    with torch.no_grad():
        loss = book_model.loss(INPUTS, TARGETS).item()
    assert math.exp(loss) == pytest.approx(48725.8203, rel=2e-5)


def loader(tokens, batches):
    data = Batches(tokens, block_size=256, batch_size=2, seed=123)
    return [data.batch(step) for step in range(batches)]


def test_row_19_an_empty_loader_has_no_loss_and_a_short_one_is_used_completely(book_model, verdict_tokens):
    assert math.isnan(loss_over_batches(book_model, []))
    validation = loader(verdict_tokens["val"], 1)
    assert loss_over_batches(book_model, validation, num_batches=99) == loss_over_batches(book_model, validation)


@pytest.mark.parametrize(("part", "batches", "loss"), [("train", 9, 10.98758347829183), ("val", 1, 10.98110580444336)])
def test_row_20_the_loss_before_training_is_the_books(book_model, verdict_tokens, part, batches, loss):
    assert loss_over_batches(book_model, loader(verdict_tokens[part], batches)) == pytest.approx(loss, rel=2e-5)


# Initial weights


class BookBlock(nn.Module):
    """The layers of a block in the order in which the book's classes create them (chapters 3 and 4)."""

    def __init__(self, width, qkv_bias):
        super().__init__()
        self.W_query, self.W_key, self.W_value = (nn.Linear(width, width, bias=qkv_bias) for _ in range(3))
        self.out_proj = nn.Linear(width, width)
        self.layers = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))


@pytest.mark.parametrize("qkv_bias", [True, False])
@pytest.mark.parametrize("tied", [True, False])
def test_initial_weights_are_identical_to_those_of_the_book(qkv_bias, tied):
    config = SMALL.model_copy(update={"init": "book", "qkv_bias": qkv_bias, "tie_embeddings": tied})
    V, C = config.vocabulary, config.n_embd
    torch.manual_seed(5)
    tok_emb, pos_emb = nn.Embedding(V, C), nn.Embedding(config.block_size, C)
    blocks = [BookBlock(C, qkv_bias) for _ in range(config.n_layer)]
    out_head = tok_emb if tied else nn.Linear(C, V, bias=False)
    after_book = torch.rand(3)

    torch.manual_seed(5)
    model = GPT2(config)
    assert torch.equal(torch.rand(3), after_book)  # the same number of random numbers consumed
    assert torch.equal(model.wte.weight, tok_emb.weight)
    assert torch.equal(model.wpe.weight, pos_emb.weight)
    assert torch.equal(model.lm_head.weight, out_head.weight)
    for block, book in zip(model.h, blocks, strict=True):
        book_qkv = (book.W_query, book.W_key, book.W_value)
        assert torch.equal(block.attn.c_attn.weight, torch.cat([layer.weight for layer in book_qkv]))
        if qkv_bias:
            assert torch.equal(block.attn.c_attn.bias, torch.cat([layer.bias for layer in book_qkv]))
        pairs = [
            (block.attn.c_proj, book.out_proj),
            (block.mlp.c_fc, book.layers[0]),
            (block.mlp.c_proj, book.layers[2]),
        ]
        for layer, book_layer in pairs:
            assert torch.equal(layer.weight, book_layer.weight)
            assert torch.equal(layer.bias, book_layer.bias)


def test_initial_weights_have_the_standard_deviations_of_gpt2():
    config = SMALL.model_copy(update={"n_embd": 128, "vocab_size": 300, "block_size": 128, "qkv_bias": True})
    model = GPT2(config, torch.Generator().manual_seed(0))
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert (parameter == 0).all(), name
        elif ".ln_" in name or name.startswith("ln_f"):
            assert (parameter == 1).all(), name
        else:
            expected = 0.02 / math.sqrt(2 * config.n_layer) if "c_proj" in name else 0.02
            # The relative standard error of n samples is 1/√(2n): at most 0.6% for 16,384 or more; five times that.
            assert parameter.std().item() == pytest.approx(expected, rel=0.03), name
            assert abs(parameter.mean().item()) < 0.05 * expected, name


@pytest.mark.parametrize("init", ["gpt2", "book"])
def test_a_generator_determines_the_weights_and_the_default_one_is_not_used(init):
    config = SMALL.model_copy(update={"init": init})
    before = torch.random.get_rng_state()
    first, second, other = (GPT2(config, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), before)
    for name, parameter in first.state_dict().items():
        assert torch.equal(parameter, second.state_dict()[name])
    assert not torch.equal(first.wte.weight, other.wte.weight)


# Structure


def test_a_tied_head_is_the_embedding_itself():
    tied, untied = GPT2(SMALL), GPT2(SMALL.model_copy(update={"tie_embeddings": False}))
    assert tied.lm_head.weight is tied.wte.weight
    assert untied.lm_head.weight is not untied.wte.weight
    extra = SMALL.vocabulary * SMALL.n_embd
    assert sum(p.numel() for p in untied.parameters()) - sum(p.numel() for p in tied.parameters()) == extra


def test_the_vocabulary_size_must_be_set():
    with pytest.raises(ConfigError, match="vocab_size"):
        GPT2(ModelConfig(family="gpt2"))


def test_more_tokens_than_the_context_fail_an_assertion(model_of):
    with pytest.raises(AssertionError, match="17 tokens do not fit a context of 16"):
        model_of("gpt2")(torch.zeros(1, 17, dtype=torch.long))


def test_dropout_is_applied_only_in_training_mode(model_of):
    model, ids = model_of("gpt2", dropout=0.3), torch.arange(16)[None]
    assert torch.equal(model(ids), model(ids))
    assert torch.equal(model(ids), model_of("gpt2")(ids))
    model.train()
    assert not torch.equal(model(ids), model(ids))
