"""tokenloom inspect, piped and as JSON."""

import json
import tracemalloc

import pytest

from tokenloom import api
from tokenloom.cli.inspect import inspect
from tokenloom.cli.main import main
from tokenloom.cli.models import load_model
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


def test_json_is_printed_as_the_python_api_gives_it(checkpoint, capsys, tmp_path):
    (tmp_path / "text.txt").write_text("dull boy")
    printed = output(capsys, checkpoint, str(tmp_path / "text.txt"), "--json", "--top", "2")
    assert printed == json.dumps(api.inspect(checkpoint, "dull boy", top=2).to_json()) + "\n"


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_a_long_text_is_printed_without_the_whole_output_in_memory(checkpoint, monkeypatch, tmp_path, flags):
    (tmp_path / "text.txt").write_text("all work and no play makes Jack a dull boy\n" * 100)
    written = 0

    def write(text: str) -> int:
        nonlocal written
        written += len(text)
        return len(text)

    monkeypatch.setattr("sys.stdout.write", write)
    load_model(checkpoint, trust=False)  # what is allocated once
    tracemalloc.start()
    try:
        inspect(checkpoint, str(tmp_path / "text.txt"), **{flag.removeprefix("--"): True for flag in flags})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert written > 4000 * (1000 if flags else 50)
    assert peak < 4300 * 250 + 1_500_000  # of the scored tokens, and of the model and libraries


def test_the_table_lists_three_alternatives_besides_the_token(checkpoint, capsys, tmp_path):
    (tmp_path / "text.txt").write_text("dull boy")
    for flags, listed in (([], 3), (["--top", "50"], 3), (["--top", "1"], 1)):
        lines = output(capsys, checkpoint, str(tmp_path / "text.txt"), *flags).splitlines()[1:-1]
        counts = [len(line[60:].split('"')) // 2 for line in lines]
        assert max(counts) == listed
    with pytest.raises(SystemExit):
        main(["inspect", checkpoint, str(tmp_path / "text.txt"), "--top", "-1"])
    assert "top must be 0 or more" in capsys.readouterr().err
