"""tokenloom info: the installation, and a model."""

import json

import pytest

import tokenloom
from tokenloom.cli.main import main
from tokenloom.config_files import preset_names
from tokenloom.data.tokenizers import load_tokenizer
from tokenloom.model.flops import count_parameters
from tokenloom.weights.checkpoint import save_checkpoint


def output(capsys, *argv):
    with pytest.raises(SystemExit) as exit_info:
        main(["info", *argv])
    assert exit_info.value.code == 0
    return capsys.readouterr().out


def test_it_shows_the_installation(capsys):
    values = json.loads(output(capsys, "--json"))
    assert values["tokenloom"] == tokenloom.__version__
    assert list(values["presets"]) == preset_names()
    assert "python-docs" in values["corpora"]
    text = output(capsys)
    assert "modern-xs" in text
    assert "torch" in text


def test_it_shows_a_model(capsys, tmp_path, model_of):
    tokenizer = load_tokenizer("byte")
    model = model_of("gpt2", vocab_size=tokenizer.vocab_size)
    path = str(save_checkpoint(tmp_path, 1, model, tokenizer, state={}).path)
    values = json.loads(output(capsys, path, "--json"))
    assert values["path"] == path
    assert values["parameters"] == count_parameters(model.config)
    assert values["model"] == model.config.model_dump()
    text = output(capsys, path)
    assert f"parameters               {count_parameters(model.config):,}\n" in text
    assert f"training flops per token {values['training_flops_per_token']:,.0f}\n" in text
    assert "  tie_embeddings         false\n" in text
    assert "notices" not in text  # there are none
