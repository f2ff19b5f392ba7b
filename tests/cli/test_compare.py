"""tokenloom compare: piped, as JSON, and the agreement with evaluate."""

import json
import shutil

import pytest

from tokenloom.cli.main import main
from tokenloom.data.tokenizers import load_tokenizer
from tokenloom.weights.checkpoint import save_checkpoint


@pytest.fixture
def checkpoints(tmp_path, model_of):
    tokenizer = load_tokenizer("byte")
    names = []
    for step, family in enumerate(("gpt2", "modern"), start=1):
        model = model_of(family, vocab_size=tokenizer.vocab_size)
        names.append(str(save_checkpoint(tmp_path, step, model, tokenizer, state={}).path))
    return names


@pytest.fixture
def run(tmp_path, model_of):
    tokenizer = load_tokenizer("byte")
    for step in (1, 2, 3):
        model = model_of("gpt2", vocab_size=tokenizer.vocab_size, seed=step)
        save_checkpoint(tmp_path / "run" / "checkpoints", step, model, tokenizer, state={})
    return tmp_path / "run"


def output(capsys, *argv):
    with pytest.raises(SystemExit) as left:
        main(argv)
    assert left.value.code == 0
    return capsys.readouterr().out


def test_piped_it_is_a_table_of_80_columns_without_control_characters(checkpoints, capsys):
    table = output(
        capsys, "compare", *checkpoints, "--text", "all work and\tno play makes Jack a dull boy, " * 3, "--words", "2"
    )
    assert "\x1b" not in table
    lines = table.splitlines()
    assert lines[0].split() == ["token", "nats", "in", "A", "nats", "in", "B", "difference"]
    assert max(len(line) for line in lines if not line.startswith(("A ", "B "))) <= 80
    for title in ("words that B gained on", "words that B lost on"):
        place = next(i for i, line in enumerate(lines) if line.startswith(title))
        assert 1 <= [*lines[place:], ""].index("") - 1 <= 2
    assert lines[-4].startswith("perplexity")


def test_its_losses_are_those_of_evaluate(checkpoints, capsys, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("all work and no play makes Jack a dull boy")
    comparison = json.loads(output(capsys, "compare", *checkpoints, str(text), "--json"))
    for column, checkpoint in enumerate(checkpoints):
        evaluation = json.loads(output(capsys, "evaluate", checkpoint, str(text), "--json"))
        total = sum(part["nats"][column] for part in comparison["parts"])
        # The documented tolerance: fp32 logits, summed in a different order.
        assert total == pytest.approx(evaluation["loss"] * evaluation["tokens"], rel=1e-6)
        assert comparison["models"][column]["bits_per_byte"] == pytest.approx(evaluation["bits_per_byte"], rel=1e-6)


@pytest.mark.parametrize("text", [("--text", "all work"), ("text.txt",)], ids=["text", "file"])
def test_of_a_run_alone_the_first_checkpoint_is_compared_with_the_newest(run, capsys, monkeypatch, text):
    monkeypatch.chdir(run.parent)
    (run.parent / "text.txt").write_text("all work")
    alone = output(capsys, "compare", "run", *text, "--json")
    assert alone == output(capsys, "compare", "run@step-1", "run@step-3", *text, "--json")
    shown = output(capsys, "compare", "run", *text).splitlines()[-2:]
    assert [line.split()[1] for line in shown] == ["run@step-1", "run@step-3"]


@pytest.mark.parametrize(
    ("model", "message"),
    [("run/checkpoints/step-00000001", "is not a run"), ("run", "has a single checkpoint, of step 3")],
)
def test_a_single_checkpoint_is_not_compared(run, capsys, monkeypatch, model, message):
    monkeypatch.chdir(run.parent)
    for step in (2, 3) if "/" in model else (1, 2):
        shutil.rmtree(run / "checkpoints" / f"step-{step:08d}")
    with pytest.raises(SystemExit) as left:
        main(["compare", model, "--text", "all work"])
    assert left.value.code == 2
    assert message in capsys.readouterr().err


def test_one_text_is_needed(checkpoints, capsys):
    with pytest.raises(SystemExit) as left:
        main(["compare", *checkpoints])
    assert left.value.code == 2
    assert "compare needs one text" in capsys.readouterr().err
