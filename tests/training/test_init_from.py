"""Training from an existing model: what is inherited, what is resized and what is refused."""

import pytest
import torch

from tokenloom import api
from tokenloom.book import GPTModel
from tokenloom.config import Config
from tokenloom.data.tokenizers import load_tokenizer
from tokenloom.errors import CheckpointError, ConfigError
from tokenloom.run_folder import RunFolder
from tokenloom.training.init_from import configure_init_from, initial_optimizer_state
from tokenloom.training.optimizer import Optimizer
from tokenloom.weights.checkpoint import newest_checkpoint, save_checkpoint
from tokenloom.weights.load import load, load_optimizer
from tokenloom.weights.model_card import model_card

SHAPE = {"n_layer": 2, "n_head": 2, "n_embd": 16, "block_size": 16}
# A step that changes no weights: the result is what was inherited.
FROZEN = {"max_steps": 1, "batch_size": 2, "learning_rate": 1e-30, "muon_learning_rate": 1e-30, "min_lr": 0.0}
FROZEN |= {"weight_decay": 0.0, "device": "cpu"}


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    (folder / "text.txt").write_text("all work and no play makes Jack a dull boy <|user|> sure\n" * 60)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOKENLOOM_CACHE", str(folder / "cache"))
        yield folder / "text.txt"


@pytest.fixture(scope="module", params=["gpt2", "modern"])
def run(request, text, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "run"
    model = {**SHAPE, "family": request.param}
    train = {"max_steps": 4, "batch_size": 4, "save_interval": 2, "learning_rate": 3e-3, "device": "cpu"}
    sample = {"max_new_tokens": 0}
    api.train(text, out=out, tokenizer="byte", quiet=True, settings={"model": model, "train": train, "sample": sample})
    return out


def train_from(text, out, reference, **sections):
    settings = {"train": FROZEN | sections.pop("train", {}), "sample": {"max_new_tokens": 0}, **sections}
    return api.train(text, out=out, init_from=reference, quiet=True, settings=settings)


def test_weights_tokenizer_and_training_settings_are_inherited(text, run, tmp_path):
    train_from(text, tmp_path / "on", run)
    before, after = load(run), load(tmp_path / "on")
    assert after.model.config == before.model.config
    assert after.tokenizer.fingerprint == before.tokenizer.fingerprint
    for name, tensor in before.model.state_dict().items():
        torch.testing.assert_close(after.model.state_dict()[name], tensor, rtol=1e-6, atol=1e-8)
    saved = RunFolder(tmp_path / "on").config()
    assert saved.train.init_from == str(run)
    assert saved.train.optimizer == "muon"  # as in the referenced run


def test_the_origin_of_the_weights_is_said_wherever_the_run_is_described(text, run, tmp_path):
    train_from(text, tmp_path / "on", run)
    report = RunFolder(tmp_path / "on").report_file.read_text(encoding="utf-8")
    assert f"initialized from {run} and trained on" in report
    assert "from scratch" not in report
    assert f"| initialized from | {run} |" in model_card(load(tmp_path / "on"))
    (RunFolder(tmp_path / "on").report_file).unlink()
    api.resume(tmp_path / "on", settings={"train": {"max_steps": 4}}, quiet=True)
    assert RunFolder(tmp_path / "on").report_file.read_text(encoding="utf-8").count(f"initialized from {run}") == 1


def test_it_resumes_like_any_run(text, run, tmp_path):
    train_from(
        text, tmp_path / "on", f"{run}@step-2", train={"max_steps": 2, "save_interval": 1, "learning_rate": 1e-3}
    )
    (step_2,) = (tmp_path / "on" / "checkpoints").glob("step-00000002")
    expected = load(step_2).model.state_dict()
    train_from(
        text, tmp_path / "half", f"{run}@step-2", train={"max_steps": 2, "save_interval": 1, "learning_rate": 1e-3}
    )
    for path in (tmp_path / "half" / "checkpoints").glob("*2"):
        path.rename(tmp_path / path.name)
    api.resume(tmp_path / "half", quiet=True)
    for name, tensor in load(tmp_path / "half").model.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def test_new_tokens_start_at_the_mean_and_old_rows_stay(text, run, tmp_path):
    train_from(text, tmp_path / "on", run, data={"add_tokens": ["<|user|>"]})
    before, after = load(run).model.state_dict(), load(tmp_path / "on")
    assert after.tokenizer.encode("<|user|>") == [257]
    assert after.model.config.vocab_size == 258
    changed = [name for name, tensor in after.model.state_dict().items() if tensor.shape != before[name].shape]
    assert {name.partition(".")[0] for name in changed} <= {"wte", "lm_head", "values"}
    for name in changed:
        widened = after.model.state_dict()[name]
        torch.testing.assert_close(widened[:257], before[name], rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(widened[257], before[name].mean(dim=0), rtol=1e-5, atol=1e-8)


def test_a_padded_vocabulary_has_room_for_new_tokens(text, model_of, tmp_path):
    tokenizer = load_tokenizer("byte")
    model = model_of("gpt2", vocab_size=300)
    path = save_checkpoint(tmp_path, 1, model, tokenizer, state={}).path
    train_from(text, tmp_path / "on", path, data={"add_tokens": ["<|user|>"]})
    after = load(tmp_path / "on").model.state_dict()["wte.weight"]
    assert after.shape[0] == 300
    mean = model.wte.weight[:257].mean(dim=0)
    torch.testing.assert_close(after[257], mean, rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(after[258:], model.wte.weight[258:], rtol=1e-6, atol=1e-8)


def test_a_widened_model_goes_to_hugging_face_with_its_tokens(text, model_of, tmp_path):
    transformers = pytest.importorskip("transformers")
    model = model_of("gpt2", vocab_size=257)
    path = save_checkpoint(tmp_path, 1, model, load_tokenizer("byte"), state={}).path
    train_from(text, tmp_path / "on", path, data={"add_tokens": ["<|user|>"]})
    api.export(tmp_path / "on", tmp_path / "hf")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf", dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    ours = load(tmp_path / "on")
    ids = ours.tokenizer.encode("boy <|user|>")
    assert tokenizer("boy <|user|>").input_ids == ids
    logits = ours.model(torch.tensor([ids]))
    torch.testing.assert_close(theirs(torch.tensor([ids])).logits, logits, rtol=0, atol=1e-4)


def test_a_shorter_context_is_cropped_with_a_notice(run):
    config, notices = configure_init_from(
        str(run), {}, [{"model": {"block_size": 8}, "train": {"init_from": str(run)}}]
    )
    assert config.model.block_size == 8
    assert "cropped from 16 to 8" in notices[0]


def test_a_cropped_model_gives_the_same_logits_for_short_texts(text, run, tmp_path):
    train_from(text, tmp_path / "on", run, model={"block_size": 8})
    ids = torch.arange(8)[None]
    torch.testing.assert_close(load(tmp_path / "on").model(ids), load(run).model(ids), rtol=1e-5, atol=1e-6)


def test_a_longer_context_is_refused_where_positions_are_learned(run):
    overrides = [{"model": {"block_size": 32}, "train": {"init_from": str(run)}}]
    if load(run).model.config.family == "gpt2":
        with pytest.raises(ConfigError, match="longer than the 16 positions"):
            configure_init_from(str(run), {}, overrides)
    else:
        assert "grows from 16 to 32" in configure_init_from(str(run), {}, overrides)[1][0]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"model": {"n_layer": 3}}, "n_layer is 2"),
        ({"data": {"tokenizer": "gpt2"}}, "a different tokenizer"),
        ({"data": {"tokenizer": "char"}}, "a different tokenizer"),
    ],
)
def test_overrides_that_do_not_match_the_weights_are_refused(run, override, message):
    with pytest.raises(ConfigError, match=message):
        configure_init_from(str(run), {}, [override])
    same = [{"model": {"n_layer": 2}, "data": {"tokenizer": "byte"}}]
    assert configure_init_from(str(run), {}, same)[0].data.tokenizer == "byte"


def test_the_optimizer_state_is_inherited_if_configured(text, run, tmp_path):
    train_from(text, tmp_path / "on", run, train={"init_optimizer": True}, data={"add_tokens": ["<|user|>"]})
    config = RunFolder(tmp_path / "on").config()
    before, initial = load_optimizer(run), initial_optimizer_state(config)
    assert initial["adamw/exp_avg_sq/wte.weight"].shape == (258, 16)
    assert not initial["adamw/exp_avg_sq/wte.weight"][257].any()
    checkpoint, _ = newest_checkpoint(tmp_path / "on" / "checkpoints")
    assert checkpoint is not None
    after = checkpoint.optimizer_tensors()
    assert after["adamw/step/wte.weight"] == before["adamw/step/wte.weight"] + 1
    with pytest.raises(CheckpointError, match="has no optimizer"):
        train_from(text, tmp_path / "no", f"{run}@best", train={"init_optimizer": True})


def test_init_optimizer_needs_init_from():
    with pytest.raises(ConfigError, match="needs train.init_from"):
        Config.of({"train": {"init_optimizer": True}})


def test_an_inherited_optimizer_of_the_book_makes_the_same_next_step(tmp_path):
    cfg = {"vocab_size": 257, "context_length": 16, "emb_dim": 64, "n_heads": 1, "n_layers": 2}
    torch.manual_seed(3)
    theirs = GPTModel({**cfg, "drop_rate": 0.0, "qkv_bias": False})

    def loss(model, step):
        ids = torch.randint(257, (2, 17), generator=torch.Generator().manual_seed(step))
        return torch.nn.functional.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())

    # The book has three projection matrices where this model has one.
    parameters = {k: v.clone().requires_grad_() for k, v in theirs.state_dict().items() if not k.endswith("mask")}
    masks = {k: v for k, v in theirs.state_dict().items() if k.endswith("mask")}
    book = torch.optim.AdamW(parameters.values(), lr=1e-3, weight_decay=0.0)

    def update(step):
        theirs.load_state_dict({**{k: v.detach() for k, v in parameters.items()}, **masks})
        theirs.zero_grad()
        loss(theirs, step).backward()
        gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
        for name, parameter in parameters.items():
            parameter.grad = book_gradient(name, gradients)
        book.step()

    for step in range(3):
        update(step)
    state = {**{k: v.detach().clone() for k, v in parameters.items()}, **masks}
    saved = {"model_state_dict": state, "optimizer_state_dict": book.state_dict()}
    torch.save(saved, tmp_path / "book.pth")
    load_tokenizer("byte").save(tmp_path)

    ours = load(tmp_path / "book.pth").model
    still = {"optimizer": "adamw", "learning_rate": 1e-3, "weight_decay": 0.0, "schedule": "constant"}
    overrides = {"train": {**still, "warmup_steps": 0, "beta1": 0.9, "beta2": 0.999, "init_optimizer": True}}
    overrides["train"]["init_from"] = str(tmp_path / "book.pth")
    config, _ = configure_init_from(str(tmp_path / "book.pth"), {}, [overrides])
    optimizer = Optimizer(ours, config.train)
    optimizer.load_state_tensors(initial_optimizer_state(config))
    loss(ours, 3).backward()
    optimizer.step(0)
    update(3)
    torch.testing.assert_close(ours.wte.weight, parameters["tok_emb.weight"], rtol=0, atol=1e-6)
    theirs_q = parameters["trf_blocks.1.att.W_query.weight"]
    torch.testing.assert_close(ours.h[1].attn.c_attn.weight[:64], theirs_q, rtol=0, atol=1e-6)  # type: ignore[union-attr]


def book_gradient(name, gradients):
    """The gradient of one of the book's parameters, from gradients under this package's names."""
    from tokenloom.config import ModelConfig
    from tokenloom.weights.book_names import state_to_book

    shape = ModelConfig(family="gpt2", vocab_size=257, block_size=16, n_embd=64, n_head=1, n_layer=2, qkv_bias=False)
    return state_to_book(shape, gradients)[name]
