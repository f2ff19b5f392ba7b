"""The models of the server: their ids, the checkpoints of a run that trains, and what stays in memory."""

import errno
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from tokenloom.compute.runtime import choose_runtime
from tokenloom.config import Config
from tokenloom.data.tokenizers import load_tokenizer
from tokenloom.errors import CheckpointError
from tokenloom.run_folder import RunFolder
from tokenloom.run_records import RunIdentity
from tokenloom.serving import models
from tokenloom.serving.errors import ModelNotFound, RequestError
from tokenloom.serving.models import ModelStore
from tokenloom.weights.checkpoint import MANIFEST, rotate_checkpoints, save_checkpoint
from tokenloom.weights.safetensors_files import WEIGHTS

TOKENIZER = load_tokenizer("byte")


@pytest.fixture
def save(model_of):
    """Write a checkpoint of a run, whose weights are zero but for one that is `value`."""
    model = model_of("gpt2", vocab_size=TOKENIZER.vocab_size)

    def write(run: Path, step: int, value: float = 0.0, kind: str = "step") -> Path:
        folder = RunFolder(run)
        if not folder.has_files():
            run.mkdir(parents=True, exist_ok=True)
            folder.write_config(Config())
            folder.write_identity(RunIdentity(dataset="d", tokenizer="t", model={}, seed=1, order=[], optimizer="muon"))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
            model.ln_f.bias.fill_(value or step)
        return save_checkpoint(folder.checkpoints, step, model, TOKENIZER, state={}, kind=kind).path

    return write


@pytest.fixture
def store_of():
    def create(*named: Path | str, runs: Path | None = None, memory_bytes: int | None = 10**9) -> ModelStore:
        return ModelStore(named, runs, memory_bytes, runtime=choose_runtime("cpu", "fp32"))

    return create


def value_of(store: ModelStore, id: str | None) -> float:
    """Which checkpoint is loaded for an id."""
    with store.acquire(store.resolve(id)) as acquired:
        return acquired.loaded.model.ln_f.bias[0].item()


def ids(store: ModelStore) -> list[str]:
    return [ref.id for ref in store.list()]


def ids_of(run: str, step: int) -> list[str]:
    """The ids of a run with one checkpoint."""
    return [run, f"{run}@first", f"{run}@step-{step}"]


def test_a_run_has_its_newest_checkpoint_its_best_and_every_step(save, store_of, tmp_path):
    for step in (10, 20):
        save(tmp_path / "book", step)
    save(tmp_path / "book", 15, kind="best")
    store = store_of(tmp_path / "book")
    assert ids(store) == ["book", "book@best", "book@first", "book@step-20", "book@step-15", "book@step-10"]
    newest = store.resolve("book")
    assert (newest.name, newest.step, newest.run, newest.id) == ("book@step-20", 20, "book", "book")
    assert abs(newest.created - newest.path.stat().st_mtime) < 10
    assert [value_of(store, id) for id in ids(store)] == [20, 15, 10, 20, 15, 10]
    assert store.resolve(None) == newest


def test_a_run_is_followed_while_it_trains(save, store_of, tmp_path):
    runs = tmp_path / "runs"
    store = store_of(runs=runs)
    assert store.list() == []
    with pytest.raises(ModelNotFound, match="no model yet"):
        store.resolve(None)
    save(runs / "book", 10)
    assert value_of(store, "book") == 10
    with store.acquire(store.resolve("book")) as earlier:
        save(runs / "book", 20)
        assert value_of(store, "book") == 20
        assert value_of(store, "book@step-10") == 10
        rotate_checkpoints(runs / "book" / "checkpoints", 1)
        with pytest.raises(
            ModelNotFound, match=r'no model "book@step-10"\. Available: book, book@first, book@step-20\.'
        ):
            store.resolve("book@step-10")
        assert earlier.loaded.model.ln_f.bias[0].item() == 10  # a request keeps its weights to its end


def test_a_checkpoint_that_is_removed_after_it_was_resolved_is_replaced_by_the_next(save, store_of, tmp_path):
    save(tmp_path / "book", 10)
    store = store_of(tmp_path / "book")
    newest, pinned = store.resolve("book"), store.resolve("book@step-10")
    shutil.rmtree(save(tmp_path / "book", 20).parent / "step-00000010")
    with store.acquire(newest) as acquired:
        assert (acquired.ref.step, acquired.ref.id) == (20, "book")
    with pytest.raises(ModelNotFound, match="book@step-20"):
        store.acquire(pinned)


@pytest.mark.parametrize("missing", [MANIFEST, WEIGHTS])
def test_a_checkpoint_that_is_half_written_is_not_listed(save, store_of, tmp_path, missing):
    save(tmp_path / "book", 10)
    (save(tmp_path / "book", 20) / missing).unlink()
    store = store_of(tmp_path / "book")
    assert ids(store) == ids_of("book", 10)
    assert value_of(store, "book") == 10


def test_a_corrupt_checkpoint_is_skipped_when_its_content_is_read(save, store_of, tmp_path):
    save(tmp_path / "book", 10)
    weights = save(tmp_path / "book", 20) / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-4] + b"\1\2\3\4")
    store = store_of(tmp_path / "book")
    assert value_of(store, "book") == 10
    assert ids(store) == ids_of("book", 10)
    with pytest.raises(ModelNotFound):
        store.resolve("book@step-20")


def test_a_checkpoint_that_replaces_one_of_the_same_name_is_loaded(save, store_of, tmp_path):
    save(tmp_path / "book", 10, 1.0)
    store = store_of(tmp_path / "book")
    assert value_of(store, "book@step-10") == 1
    shutil.rmtree(tmp_path / "book")
    save(tmp_path / "book", 10, 2.0)
    assert value_of(store, "book@step-10") == 2


def test_a_run_that_replaces_its_checkpoints_all_the_time_is_always_served(save, store_of, tmp_path):
    save(tmp_path / "book", 1)
    store, stop = store_of(tmp_path / "book"), threading.Event()

    def ask(_: int) -> list[float]:
        steps: list[float] = []
        while not stop.is_set():
            with store.acquire(store.resolve("book")) as acquired:
                assert acquired.loaded.model.ln_f.bias[0].item() == acquired.ref.step
                steps.append(acquired.ref.step)
            assert len(ids(store)) >= 1
        return steps

    with ThreadPoolExecutor(3) as pool:
        clients = [pool.submit(ask, number) for number in range(3)]
        for step in range(2, 25):
            save(tmp_path / "book", step)
            rotate_checkpoints(tmp_path / "book" / "checkpoints", 1)
        stop.set()
        for client in clients:
            steps = client.result(timeout=60)
            assert steps == sorted(steps)
            assert steps[-1] > 1
    assert value_of(store, "book") == 24
    assert [use.path.name for use in store.in_memory()] == ["step-00000024"]


def test_runs_of_one_name_have_different_ids(save, store_of, tmp_path):
    for number, folder in enumerate(("a", "b", "runs"), start=1):
        save(tmp_path / folder / "book", number)
    store = store_of(tmp_path / "a" / "book", tmp_path / "b" / "book", runs=tmp_path / "runs")
    assert list(store.runs()) == ["book", "b/book", "runs/book"]
    assert [value_of(store, id) for id in ("book", "b/book", "runs/book@step-3")] == [1, 2, 3]


def test_a_run_that_is_named_and_in_the_folder_is_listed_once(save, store_of, tmp_path):
    save(tmp_path / "runs" / "book", 10)
    save(tmp_path / "runs" / "other", 20)
    store = store_of(tmp_path / "runs" / "book@step-10", runs=tmp_path / "runs")
    assert sorted(ids(store)) == [*ids_of("book", 10), *ids_of("other", 20)]
    assert ids(store)[0] == "book@step-10"
    assert sorted(store.runs()) == ["book", "other"]


def test_a_run_may_be_called_like_a_checkpoint_of_another(save, store_of, tmp_path):
    save(tmp_path / "book@step-3", 7)
    save(tmp_path / "book", 3)
    store = store_of(runs=tmp_path)
    assert value_of(store, "book@step-3@step-7") == 7
    assert value_of(store, "book") == 3
    assert len(set(ids(store))) == len(ids(store))


def test_a_pinned_reference_offers_that_checkpoint_only(save, store_of, tmp_path):
    for step in (10, 20):
        path = save(tmp_path / "book", step)
    assert ids(store_of(f"{tmp_path / 'book'}@step-10")) == ["book@step-10"]
    assert ids(store_of(path)) == ["book@step-20"]


def test_a_folder_that_is_no_run_has_its_own_name(save, store_of, tmp_path):
    shutil.copytree(save(tmp_path / "book", 10), tmp_path / "exports" / "my model")
    store = store_of(tmp_path / "exports" / "my model", runs=tmp_path)
    assert ids(store) == ["my model", *ids_of("book", 10)]
    assert store.resolve(None).run is None
    assert value_of(store, None) == 10
    shutil.rmtree(tmp_path / "exports")
    with pytest.raises(ModelNotFound, match=r"Available: book"):
        store.resolve("my model")


def test_clients_cannot_name_paths(save, store_of, tmp_path):
    save(tmp_path / "book", 10)
    store = store_of(runs=tmp_path)
    for id in ("", str(tmp_path / "book"), "../book", "./book", "book/", "book@step-010", "book@", "gpt2", "book\0"):
        with pytest.raises(ModelNotFound):
            store.resolve(id)


def test_a_model_that_does_not_exist_is_refused_at_the_start(store_of, tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        store_of(tmp_path / "nowhere")


def test_a_model_that_cannot_be_loaded_is_an_unavailable_one(save, store_of, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(save(tmp_path / "book", 10), folder)
    store = store_of(folder)
    (folder / WEIGHTS).write_bytes(b"no tensors")
    with pytest.raises(RequestError, match="cannot be loaded") as raised:
        store.acquire(store.resolve("model"))
    assert raised.value.status == 503


def test_a_checkpoint_that_could_not_be_opened_once_is_loaded_by_the_next_request(
    save, store_of, tmp_path, monkeypatch
):
    save(tmp_path / "book", 10)
    store = store_of(tmp_path / "book")
    with monkeypatch.context() as patch:
        patch.setattr(models, "resolve_model", raise_too_many_files)
        with pytest.raises(RequestError, match="cannot be loaded.*Too many open files") as raised:
            store.acquire(store.resolve("book"))
    assert raised.value.status == 503
    assert value_of(store, "book") == 10


def raise_too_many_files(*_):
    raise OSError(errno.EMFILE, "Too many open files")


def test_threads_that_ask_for_one_model_load_it_once(save, store_of, tmp_path, monkeypatch):
    save(tmp_path / "book", 10)
    store, loads, together = store_of(tmp_path / "book"), [], threading.Barrier(8)

    def resolve_model(path: str):
        loads.append(path)
        return resolve(path)

    resolve = models.resolve_model
    monkeypatch.setattr(models, "resolve_model", resolve_model)

    def acquire(_: int):
        together.wait()
        return store.acquire(store.resolve("book"))

    with ThreadPoolExecutor(8) as pool:
        acquired = list(pool.map(acquire, range(8)))
    assert len(loads) == 1
    assert len({id(one.loaded.model) for one in acquired}) == 1
    assert [use.users for use in store.in_memory()] == [8]
    for one in acquired:
        one.release()
        one.release()
    assert [use.users for use in store.in_memory()] == [0]


def test_the_least_recently_used_models_are_dropped_but_none_in_use(save, store_of, tmp_path):
    for step in (10, 20, 30):
        save(tmp_path / "book", step)
    everything = store_of(tmp_path / "book")
    value_of(everything, "book")
    [use] = everything.in_memory()
    assert use.bytes > 4 * 2 * 257 * 16  # embedding and head, in fp32
    store = store_of(tmp_path / "book", memory_bytes=int(2.5 * use.bytes))
    for step in (10, 20, 10, 30):
        value_of(store, f"book@step-{step}")
    assert [use.path.name for use in store.in_memory()] == ["step-00000010", "step-00000030"]
    small = store_of(tmp_path / "book", memory_bytes=0)
    with small.acquire(small.resolve("book@step-10")) as a, small.acquire(small.resolve("book@step-20")) as b:
        assert a.loaded is not b.loaded
        assert len(small.in_memory()) == 2
    assert small.in_memory() == []


def test_a_model_whose_files_are_gone_does_not_stay_in_memory(save, store_of, tmp_path):
    save(tmp_path / "book", 10)
    store = store_of(tmp_path / "book")
    value_of(store, "book")
    shutil.rmtree(save(tmp_path / "book", 20).parent / "step-00000010")
    value_of(store, "book")
    assert [use.path.name for use in store.in_memory()] == ["step-00000020"]


def test_the_configuration_is_known_without_loading(save, store_of, tmp_path):
    save(tmp_path / "book", 10)
    store = store_of(tmp_path / "book")
    ref = store.resolve("book")
    assert store.config(ref).block_size == 16
    assert store.in_memory() == []
    shutil.rmtree(save(tmp_path / "book", 20).parent / "step-00000010")
    assert store.config(ref).block_size == 16
    shutil.rmtree(tmp_path / "book")
    with pytest.raises(ModelNotFound):
        store.config(ref)


def test_a_name_that_is_not_utf8_gets_an_id_of_plain_characters(save, store_of, tmp_path):
    name = "caf\udce9"
    try:
        save(tmp_path / name, 10)
    except OSError:
        pytest.skip("the file system does not permit such a name")
    store = store_of(runs=tmp_path)
    assert ids(store) == ids_of("caf\\udce9", 10)
    assert value_of(store, "caf\\udce9") == 10
