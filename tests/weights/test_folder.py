"""Folders of weights: files and configurations that do not fit are named."""

import json
from pathlib import Path

import pytest

from tokenloom.errors import TokenloomError
from tokenloom.weights.folder import read_folder, write_folder


def edited(path: Path, edit) -> Path:
    config = json.loads((path / "config.json").read_text())
    edit(config)
    (path / "config.json").write_text(json.dumps(config))
    return path


@pytest.mark.parametrize(
    ("corrupt", "message"),
    [
        (lambda path: (path / "config.json").unlink(), "has no config.json"),
        (lambda path: (path / "model.safetensors").unlink(), "has no model.safetensors"),
        (lambda path: (path / "config.json").write_text("{"), "cannot be read"),
        (lambda path: (path / "config.json").write_text("[]"), "cannot be read"),
        (lambda path: (path / "model.safetensors").write_bytes(b"x" * 99), "cannot be read"),
        (lambda path: edited(path, lambda c: c["tokenloom"].update(n_layer=3)), "lacks tensor h.2."),
        (lambda path: edited(path, lambda c: c["tokenloom"].update(n_layer=1)), "has an unexpected tensor h.1."),
        (
            lambda path: edited(path, lambda c: c["tokenloom"].update(vocab_size=61)),
            "tensor .* has shape .*config.json gives",
        ),
        (lambda path: edited(path, lambda c: c["tokenloom"].update(stranger=1)), "stranger"),
        (lambda path: (path / "config.json").write_text('{"model_type": "llama"}'), 'contains a "llama"'),
    ],
)
def test_weights_that_do_not_fit_are_refused(tmp_path, model, corrupt, message):
    write_folder(tmp_path, model, eot_id=0)
    corrupt(tmp_path)
    with pytest.raises(TokenloomError, match=message) as refused:
        read_folder(tmp_path).read()
    assert "\n" not in str(refused.value)
