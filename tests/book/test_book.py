"""The book's functions, called as in its notebook; its results are checked in test_replay.py."""

import math

import numpy as np
import pytest
import torch

from tokenloom.book import (
    TOY_LOGITS,
    GPTModel,
    assign,
    calc_loss_batch,
    calc_loss_loader,
    create_dataloader_v1,
    evaluate_model,
    generate,
    generate_and_print_sample,
    generate_text_simple,
    get_encoding,
    load_weights_into_gpt,
    plot_losses,
    print_sampled_tokens,
    softmax_with_temperature,
    text_to_token_ids,
    token_ids_to_text,
    train_model,
    train_model_simple,
)
from tokenloom.data.tokenizers import load_tokenizer
from tokenloom.errors import CheckpointError, DataError, UsageError, WeightsError

SETTINGS = {
    "vocab_size": 50257,
    "context_length": 32,
    "emb_dim": 48,
    "n_heads": 4,
    "n_layers": 2,
    "drop_rate": 0.1,
    "qkv_bias": False,
}
TEXT = "".join(f"It was night {n}, and {n * n} stars were out.\n" for n in range(120))


@pytest.fixture
def model() -> GPTModel:
    torch.manual_seed(123)
    return GPTModel(SETTINGS).eval()


def loaders():
    torch.manual_seed(123)
    sizes = {"batch_size": 2, "max_length": 32, "stride": 32, "num_workers": 0}
    boundary = int(0.9 * len(TEXT))
    return (
        create_dataloader_v1(TEXT[:boundary], **sizes, drop_last=True, shuffle=True),
        create_dataloader_v1(TEXT[boundary:], **sizes, drop_last=False, shuffle=False),
    )


def test_the_state_dict_has_the_books_names_and_order(model):
    block = ["att.mask", "att.W_query.weight", "att.W_key.weight", "att.W_value.weight", "att.out_proj.weight",
             "att.out_proj.bias", "ff.layers.0.weight", "ff.layers.0.bias", "ff.layers.2.weight", "ff.layers.2.bias",
             "norm1.scale", "norm1.shift", "norm2.scale", "norm2.shift"]  # fmt: skip
    blocks = [f"trf_blocks.{i}.{name}" for i in range(2) for name in block]
    head = ["final_norm.scale", "final_norm.shift", "out_head.weight"]
    assert list(model.state_dict()) == ["tok_emb.weight", "pos_emb.weight", *blocks, *head]
    assert model.pos_emb.weight.shape[0] == 32
    assert model.tok_emb.weight.shape == model.out_head.weight.shape == (50257, 48)


def test_a_saved_model_comes_back_by_load_state_dict(model, tmp_path):
    torch.save(model.state_dict(), tmp_path / "model.pth")
    again = GPTModel(SETTINGS)
    again.load_state_dict(torch.load(tmp_path / "model.pth", map_location="cpu", weights_only=True))
    ids = torch.arange(20)[None]
    assert torch.equal(again.eval()(ids), model(ids))
    with pytest.raises(RuntimeError, match="ln_f"):
        again.load_state_dict({n: t for n, t in model.state_dict().items() if n != "final_norm.scale"})


def test_the_books_own_class_gives_the_same_logits():
    ch04 = pytest.importorskip("llms_from_scratch.ch04", reason="the book's package is not installed")
    torch.manual_seed(5)
    theirs = ch04.GPTModel(SETTINGS).eval()
    torch.manual_seed(5)
    ours = GPTModel(SETTINGS).eval()
    ids = torch.arange(30).view(2, 15)
    torch.testing.assert_close(ours(ids), theirs(ids), rtol=0, atol=1e-5)  # fused products sum in another order
    theirs.load_state_dict(ours.state_dict())
    assert list(ours.state_dict()) == list(theirs.state_dict())


@pytest.mark.parametrize("change", [{"emb_dims": 3}, {"n_heads": None}])
def test_a_wrong_configuration_is_named(change):
    settings = {key: value for key, value in {**SETTINGS, **change}.items() if value is not None}
    with pytest.raises(UsageError, match=next(iter(change))):
        GPTModel(settings)


@pytest.mark.parametrize("tokenizer", [get_encoding("gpt2"), load_tokenizer("gpt2")], ids=["tiktoken", "ours"])
def test_text_becomes_a_batch_of_one_and_text_again(tokenizer):
    text = "Every effort<|endoftext|> moves you"
    ids = text_to_token_ids(text, tokenizer)
    assert ids.shape[0] == 1
    assert 50256 in ids
    assert token_ids_to_text(ids, tokenizer) == text


def test_an_encoding_that_the_book_does_not_use_is_refused():
    with pytest.raises(UsageError, match="cl100k"):
        get_encoding("cl100k_base")


def test_windows_start_at_multiples_of_the_stride_and_targets_are_one_further():
    loader = create_dataloader_v1(TEXT, batch_size=1, max_length=16, stride=5, shuffle=False)
    ids = load_tokenizer("gpt2").encode(TEXT)
    assert len(loader) == math.ceil((len(ids) - 16) / 5)
    for i, (x, y) in enumerate(loader):
        assert x[0].tolist() == ids[5 * i : 5 * i + 16]
        assert y[0].tolist() == ids[5 * i + 1 : 5 * i + 17]


def test_a_text_shorter_than_a_window_is_refused():
    with pytest.raises(DataError, match="too few for one window"):
        create_dataloader_v1("too short", max_length=256)


def test_losses_of_batches_and_of_loaders_agree(model):
    train, val = loaders()
    batches = [calc_loss_batch(x, y, model, "cpu").item() for x, y in val]
    # A sum over targets divided once, against torch's mean: the last bits differ.
    assert calc_loss_loader(val, model, "cpu") == pytest.approx(sum(batches) / len(batches), rel=1e-6)
    assert calc_loss_loader(val, model, "cpu", num_batches=1) == pytest.approx(batches[0], rel=1e-6)
    assert calc_loss_loader(val, model, "cpu", num_batches=999) == calc_loss_loader(val, model, "cpu")
    assert math.isnan(calc_loss_loader([], model, "cpu"))
    model.train()
    losses = evaluate_model(model, train, val, "cpu", eval_iter=1)
    assert losses[1] == pytest.approx(batches[0], rel=1e-6)  # without dropout
    assert model.training


def test_greedy_text_is_what_the_plain_loop_of_the_book_writes(model):
    ids = torch.tensor([[6109, 3626, 6100, 345], [40, 1107, 588, 257]])
    plain = ids
    with torch.no_grad():
        for _ in range(40):  # past the context of 32
            plain = torch.cat([plain, model(plain[:, -32:])[:, -1].argmax(dim=-1, keepdim=True)], dim=1)
    assert torch.equal(generate_text_simple(model, ids, max_new_tokens=40, context_size=32), plain)


def test_sampled_text_follows_torchs_random_stream(model):
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
def test_each_row_of_a_batch_ends_by_itself(model, context, options):
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


def test_training_prints_the_books_lines_and_learns(model, capsys):
    torch.manual_seed(123)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.1)
    train, val = loaders()
    losses, val_losses, seen = train_model_simple(
        model, train, val, optimizer, "cpu", num_epochs=2, eval_freq=5, eval_iter=2,
        start_context="It was", tokenizer=get_encoding("gpt2"),
    )  # fmt: skip
    steps = 2 * len(train)
    assert len(losses) == len(val_losses) == len(seen) == math.ceil(steps / 5)
    assert seen == [64 * (step + 1) for step in range(0, steps, 5)]
    assert losses[-1] < losses[0] - 2
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"Ep 1 (Step 000000): Train loss {losses[0]:.3f}, Val loss {val_losses[0]:.3f}"
    assert sum(line.startswith("It was") for line in lines) == 2


def test_the_loop_of_appendix_d_warms_up_and_decays_as_the_book(model, capsys):
    train, val = loaders()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    epochs, warmup = 3, 7
    *_, rates = train_model(
        model, train, val, optimizer, "cpu", epochs, 50, 1, "It was", get_encoding("gpt2"),
        warmup_steps=warmup, initial_lr=1e-5, min_lr=1e-5,
    )  # fmt: skip
    total = epochs * len(train)
    assert len(rates) == total
    assert rates[0] == 1e-5
    assert rates[warmup] == pytest.approx(1e-3)  # the peak comes at step `warmup`, not before
    assert rates[1] - rates[0] == pytest.approx((1e-3 - 1e-5) / warmup)
    half = warmup + (total - warmup) / 2
    cosine = 1e-5 + (1e-3 - 1e-5) * 0.5 * (1 + math.cos(math.pi * (math.floor(half) - warmup) / (total - warmup)))
    assert rates[math.floor(half)] == pytest.approx(cosine)
    assert all(later < earlier for earlier, later in zip(rates[warmup:], rates[warmup + 1 :], strict=False))


def test_no_warmup_is_no_division_by_zero(model, capsys):
    train, val = loaders()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    *_, rates = train_model(
        model, train, val, optimizer, "cpu", 1, 50, 1, "It was", get_encoding("gpt2"), warmup_steps=0
    )
    assert rates[0] == pytest.approx(1e-3)


def test_a_sample_is_one_line(model, capsys):
    generate_and_print_sample(model, get_encoding("gpt2"), "cpu", "It was")
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_the_toy_words_are_printed_with_their_counts(capsys):
    logits = torch.tensor(TOY_LOGITS)
    print_sampled_tokens(softmax_with_temperature(logits, 0.1))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 9
    assert sum(int(line.split(" x ")[0]) for line in lines) == 1000


def test_the_plot_is_written(tmp_path):
    plot_losses(
        torch.linspace(0, 2, 4), [10, 20, 30, 40], [3.0, 2.0, 1.5, 1.0], [3.0, 2.5, 2.4, 2.6], tmp_path / "p.pdf"
    )
    assert (tmp_path / "p.pdf").read_bytes().startswith(b"%PDF")


def test_assign_refuses_another_shape():
    assert torch.equal(assign(torch.zeros(2, 3), np.ones((2, 3))), torch.ones(2, 3))
    with pytest.raises(WeightsError, match="Shape mismatch"):
        assign(torch.zeros(2, 3), np.ones((3, 2)))


def openai_parameters(width=48, layers=2, vocabulary=50257, context=32):
    random = np.random.default_rng(0)

    def array(*shape):
        return random.standard_normal(shape).astype(np.float32) * 0.1

    def linear(inputs, outputs):
        return {"w": array(inputs, outputs), "b": array(outputs)}

    blocks = [
        {
            "attn": {"c_attn": linear(width, 3 * width), "c_proj": linear(width, width)},
            "mlp": {"c_fc": linear(width, 4 * width), "c_proj": linear(4 * width, width)},
            "ln_1": {"g": array(width), "b": array(width)},
            "ln_2": {"g": array(width), "b": array(width)},
        }
        for _ in range(layers)
    ]
    return {"wte": array(vocabulary, width), "wpe": array(context, width), "g": array(width), "b": array(width),
            "blocks": blocks}  # fmt: skip


def test_openais_weights_are_put_where_they_belong():
    gpt = GPTModel({**SETTINGS, "qkv_bias": True})
    params = openai_parameters()
    load_weights_into_gpt(gpt, params)
    state = gpt.state_dict()
    _, k, _ = np.split(params["blocks"][1]["attn"]["c_attn"]["w"], 3, axis=-1)
    assert torch.equal(state["trf_blocks.1.att.W_key.weight"], torch.from_numpy(k.T.copy()))
    assert torch.equal(state["trf_blocks.0.norm1.scale"], torch.from_numpy(params["blocks"][0]["ln_1"]["g"]))
    assert torch.equal(state["out_head.weight"], torch.from_numpy(params["wte"]))


def test_openais_weights_of_another_size_are_refused():
    gpt = GPTModel({**SETTINGS, "qkv_bias": True})
    with pytest.raises(CheckpointError, match=r"wpe.weight"):
        load_weights_into_gpt(gpt, openai_parameters(context=64))
