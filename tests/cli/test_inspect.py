"""tokenloom inspect, piped and as JSON."""

import json

import pytest

from tokenloom.cli.main import main
from tokenloom.data.tokenizers import load_tokenizer
from tokenloom.weights.checkpoint import save_checkpoint


@pytest.fixture
def checkpoint(tmp_path, model_of):
    tokenizer = load_tokenizer("byte")
    model = model_of("gpt2", vocab_size=tokenizer.vocab_size)
    return str(save_checkpoint(tmp_path, 1, model, tokenizer, state={}).path)


def output(capsys, *argv):
    with pytest.raises(SystemExit) as left:
        main(["inspect", *argv])
    assert left.value.code == 0
    return capsys.readouterr().out


def test_piped_it_is_a_table_without_control_characters(checkpoint, capsys, tmp_path):
    (tmp_path / "text.txt").write_text("dull\tboy 👋")
    table = output(capsys, checkpoint, str(tmp_path / "text.txt"))
    assert "\x1b" not in table
    lines = table.splitlines()
    assert len(lines) == 1 + 12 + 1  # nine characters after the first, of which one has four bytes
    assert lines[4].startswith('"\\t"')
    assert "on 12 tokens, context 12, stride 12" in lines[-1]


def test_the_loss_is_that_of_evaluate(checkpoint, capsys, tmp_path):
    (tmp_path / "text.txt").write_text("all work and no play makes Jack a dull boy")
    inspection = json.loads(output(capsys, checkpoint, str(tmp_path / "text.txt"), "--json", "--stride", "4"))
    with pytest.raises(SystemExit):
        main(["evaluate", checkpoint, str(tmp_path / "text.txt"), "--json", "--stride", "4"])
    evaluation = json.loads(capsys.readouterr().out)
    assert inspection["loss"] == pytest.approx(evaluation["loss"], rel=1e-6)  # fp32 logits, summed in a different order
    assert (inspection["context"], inspection["stride"]) == (evaluation["context"], evaluation["stride"])
    assert len(inspection["tokens"][0]["top"]) == 10
