"""Safetensors files, alone and in shards: everything is read, and what is missing or corrupt is named."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from tokenloom.errors import CheckpointError, WeightsError
from tokenloom.weights.folder import read_folder, write_folder


def sharded(folder, model):
    write_folder(folder, model, eot_id=0)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    weight_map = {name: f"model-0000{1 + i % 3}-of-00003.safetensors" for i, name in enumerate(tensors)}
    for file in set(weight_map.values()):
        save_file({n: t for n, t in tensors.items() if weight_map[n] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return weight_map


def test_all_shards_are_read(tmp_path, model):
    sharded(tmp_path, model)
    ids = torch.arange(12)[None]
    assert torch.equal(read_folder(tmp_path).read()(ids), model(ids))


def test_a_missing_shard_is_named(tmp_path, model):
    sharded(tmp_path, model)
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(WeightsError, match="model-00002-of-00003.safetensors is missing"):
        read_folder(tmp_path)


def test_a_tensor_in_two_shards_is_refused(tmp_path, model):
    sharded(tmp_path, model)
    first, second = (tmp_path / f"model-0000{number}-of-00003.safetensors" for number in (1, 2))
    name, tensor = next(iter(load_file(first).items()))
    save_file({**load_file(second), name: tensor + 1}, second)
    with pytest.raises(WeightsError, match=f"00002-of-00003.safetensors contains {name}, which another shard"):
        read_folder(tmp_path)


def test_one_file_has_precedence_over_shards_as_in_transformers(tmp_path, model):
    sharded(tmp_path, model)
    with torch.no_grad():
        model.wte.weight[0, 0] = 5
    write_folder(tmp_path, model, eot_id=0)
    assert read_folder(tmp_path).read().wte.weight[0, 0] == 5


def test_an_index_may_not_refer_to_files_outside_its_folder(tmp_path, model):
    weight_map = sharded(tmp_path, model)
    name = next(iter(weight_map))
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {name: "../secret.safetensors"}}))
    with pytest.raises(WeightsError, match="not in its folder"):
        read_folder(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", '{"weight_map": 3}', "{}"])
def test_a_corrupt_index_is_refused(tmp_path, model, content):
    sharded(tmp_path, model)
    (tmp_path / "model.safetensors.index.json").write_text(content)
    with pytest.raises(WeightsError, match="not an index of weights"):
        read_folder(tmp_path)


def test_a_truncated_file_is_named(tmp_path, model):
    write_folder(tmp_path, model, eot_id=0)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(WeightsError, match="model.safetensors cannot be read"):
        read_folder(tmp_path)


def test_a_folder_without_weights_is_refused(tmp_path, model):
    write_folder(tmp_path, model, eot_id=0)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="has no model.safetensors"):
        read_folder(tmp_path)
