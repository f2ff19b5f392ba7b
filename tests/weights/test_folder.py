"""Folders of weights: files and configurations that do not fit are named."""

import json
from pathlib import Path

import pytest

from tokenloom.errors import TokenloomError
from tokenloom.weights.folder import read_folder, write_folder


def edit_model(path: Path, **settings) -> None:
    """Change settings of the model, in the fields of Hugging Face as well if the folder has them."""
    config = json.loads((path / "config.json").read_text())
    config.get("tokenloom", {}).update(settings)
    names = {"n_layer": "num_hidden_layers"} if config["model_type"] == "qwen3" else {}
    settings = {names.get(name, name): value for name, value in settings.items()}
    config.update({name: value for name, value in settings.items() if name in config})
    (path / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("corrupt", "message"),
    [
        (lambda path: (path / "config.json").unlink(), "has no config.json"),
        (lambda path: (path / "model.safetensors").unlink(), "has no model.safetensors"),
        (lambda path: (path / "config.json").write_text("{"), "cannot be read"),
        (lambda path: (path / "config.json").write_text("[]"), "cannot be read"),
        (lambda path: (path / "model.safetensors").write_bytes(b"x" * 99), "cannot be read"),
        (lambda path: edit_model(path, n_layer=3), "lacks tensor h.2."),
        (lambda path: edit_model(path, n_layer=1), "has an unexpected tensor h.1."),
        (
            lambda path: edit_model(path, vocab_size=61),
            "tensor .* has shape .*its configuration gives",
        ),
        (lambda path: (path / "config.json").write_text('{"model_type": "llama"}'), 'contains a "llama"'),
    ],
)
def test_weights_that_do_not_fit_are_refused(tmp_path, model, corrupt, message):
    write_folder(tmp_path, model, eot_id=0)
    corrupt(tmp_path)
    with pytest.raises(TokenloomError, match=message) as refused:
        read_folder(tmp_path).read()
    assert "\n" not in str(refused.value)


def test_an_unknown_setting_of_tokenloom_is_refused(tmp_path, model_of):
    write_folder(tmp_path, model_of("gpt2"), eot_id=0)
    edit_model(tmp_path, stranger=1)
    with pytest.raises(TokenloomError, match="stranger"):
        read_folder(tmp_path)
