"""tokenloom compare: piped, as JSON, and the agreement with evaluate."""

import json

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


def test_one_text_is_needed(checkpoints, capsys):
    with pytest.raises(SystemExit) as left:
        main(["compare", *checkpoints])
    assert left.value.code == 2
    assert "compare needs one text" in capsys.readouterr().err
