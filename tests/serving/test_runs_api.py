"""Runs over HTTP: the table, files, records, series and samples of a run that is written meanwhile."""

import json
import math
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest
from small_runs import TOKENIZER, random_model, save_run

import tokenloom
from tokenloom import api
from tokenloom.cli.main import main
from tokenloom.metrics import METRICS, MetricsRecord
from tokenloom.run_folder import JsonlWriter, RunFolder, truncate_jsonl
from tokenloom.serving import run_replies
from tokenloom.strict_json import dump_json
from tokenloom.weights.checkpoint import save_checkpoint

TINY = {
    "model": {"family": "gpt2", "n_layer": 1, "n_head": 2, "n_embd": 16, "block_size": 16},
    "train": {"max_steps": 4, "batch_size": 2, "log_interval": 1, "save_interval": 2},
    "sample": {"max_new_tokens": 4},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """A folder with the finished run "short" and with "story", which was stopped."""
    folder = tmp_path_factory.mktemp("followed")
    (folder / "text.txt").write_text("all work and no play makes Jack a dull boy\n" * 100)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOKENLOOM_CACHE", str(folder / "cache"))
        api.train(folder / "text.txt", out=folder / "runs" / "short", tokenizer="byte", settings=TINY, quiet=True)
    save_run(folder / "runs" / "story", random_model())
    return folder / "runs"


def get(http: httpx2.Client, path: str, status: int = 200, **params) -> dict:
    reply = http.get(path, params=params)
    assert reply.status_code == status, reply.text
    return json.loads(reply.text, parse_constant=lambda constant: pytest.fail(f"{constant} is not JSON"))


def record(step: int, **values: float) -> MetricsRecord:
    return MetricsRecord(step=step, tokens=step * 8, epoch=step / 10, seconds=step / 2, **values)


def test_the_table_is_that_of_the_command(http, runs, capsys):
    served = get(http, "/api/runs")
    with pytest.raises(SystemExit):
        main(["runs", str(runs), "--json"])
    printed = {row["run"]: row for row in json.loads(capsys.readouterr().out)["runs"]}
    assert {row["run"]: row for row in served["runs"]} == printed
    assert printed["short"]["state"] == "finished"
    assert [metric["key"] for metric in served["metrics"]] == [metric.key for metric in METRICS.values()]


def test_a_run_has_its_files_and_checkpoints(http, runs):
    run, served = RunFolder(runs / "short"), get(http, "/api/runs/short")
    assert served["config"]["train"]["max_steps"] == 4
    assert served["summary"] == json.loads(run.summary_file.read_text())
    assert served["plan"] == json.loads(run.plan_file.read_text())
    assert served["baselines"] == json.loads(run.baselines_file.read_text())
    evaluated = {record.step: record for record in run.metrics() if record.val_loss is not None}
    steps = sorted({2, 4, run.summary().best_step, min(evaluated)}, reverse=True)
    ids = ["short@best", "short@first", *(f"short@step-{step}" for step in steps)]
    assert [one["id"] for one in served["models"]] == ids
    for model in served["models"]:
        record = evaluated.get(model["step"])
        expected = (None, None) if record is None else (record.val_loss, record.val_bits_per_byte)
        assert (model["val_loss"], model["val_bits_per_byte"]) == expected
    assert served["models"][0]["val_loss"] == run.summary().best_val_loss
    assert get(http, "/api/runs/story")["plan"] is None


def test_records_and_samples_are_those_in_the_files(http, runs):
    run = RunFolder(runs / "short")
    served = get(http, "/api/runs/short/records")
    assert served["records"] == [json.loads(line) for line in run.metrics_file.read_text().splitlines()]
    assert get(http, "/api/runs/short/records", cursor=served["cursor"])["records"] == []
    samples = get(http, "/api/runs/short/samples")
    assert samples["samples"] == [json.loads(line) for line in run.samples_file.read_text().splitlines()]
    assert get(http, "/api/runs/short/samples", cursor=samples["cursor"])["samples"] == []


def test_a_run_is_followed_while_it_is_written(http, runs):
    run = RunFolder(runs / "story")
    with run.locked():
        log = JsonlWriter(run.metrics_file)
        log.write(record(1, train_loss=3.0).to_json())
        first = get(http, "/api/runs/story/records")
        assert [one["step"] for one in first["records"]] == [1]
        assert get(http, "/api/runs/story")["row"]["state"] == "training"
        log.write(record(2, train_loss=math.inf).to_json())
        second = get(http, "/api/runs/story/records", cursor=first["cursor"])
        assert ([one["train/loss"] for one in second["records"]], second["reset"]) == (["NaN"], False)
        log.close()
    assert get(http, "/api/runs/story")["row"]["state"] == "diverged"
    truncate_jsonl(run.metrics_file, 1)
    third = get(http, "/api/runs/story/records", cursor=second["cursor"])
    assert ([one["step"] for one in third["records"]], third["reset"]) == ([1], True)
    assert get(http, "/api/runs/story")["row"]["state"] == "stopped"
    before = get(http, "/api/runs")["models_version"]
    assert get(http, "/api/runs")["models_version"] == before
    save_checkpoint(run.checkpoints, 9, random_model(), TOKENIZER, state={})
    assert get(http, "/api/runs")["models_version"] != before
    assert "story@step-9" in [model["id"] for model in get(http, "/v1/models")["data"]]


def test_series_continue_with_the_records_after_their_cursor(http, runs):
    run = RunFolder(runs / "story")
    run.metrics_file.write_text("".join(json.dumps(record(n, train_loss=1 / n).to_json()) + "\n" for n in range(1, 50)))
    served = get(http, "/api/runs/story/series", metric="train/loss", start=5, stop=7)
    series = served["series"]["train/loss"]
    assert (series["value"], series["bucketed"]) == ([1 / 5, 1 / 6, 1 / 7], False)
    assert served["axes"][series["axes"]]["step"] == [5, 6, 7]
    assert served["records"] == 49
    assert get(http, "/api/runs/story/records", cursor=served["cursor"])["records"] == []
    assert list(get(http, "/api/runs/story/series")["series"]) == ["train/loss"]
    assert get(http, "/api/runs/story/series", metric=["val/loss", "lr"])["series"]["lr"]["value"] == []


@pytest.mark.parametrize(
    ("path", "params", "reply"),
    [
        ("/api/runs", {}, run_replies.RunListReply),
        ("/api/runs/short", {}, run_replies.RunReply),
        ("/api/runs/story", {}, run_replies.RunReply),
        ("/api/runs/short/records", {}, run_replies.RecordsReply),
        ("/api/runs/story/records", {}, run_replies.RecordsReply),
        ("/api/runs/short/samples", {}, run_replies.SamplesReply),
        ("/api/runs/short/series", {}, run_replies.SeriesReply),
        ("/api/runs/story/series", {}, run_replies.SeriesReply),
        ("/api/differences", {"run": ["short", "story"]}, run_replies.DifferencesReply),
        ("/api/models", {}, run_replies.StoredModelsReply),
        ("/api/models/short", {}, run_replies.ModelConfigReply),
    ],
)
def test_replies_are_what_the_schema_says(http, runs, path, params, reply):
    infinite = record(1, train_loss=math.inf, val_loss=1000.0, val_perplexity=math.inf)
    RunFolder(runs / "story").metrics_file.write_text(dump_json(infinite.to_json()) + "\n")
    served = get(http, path, **params)
    model = reply.model_validate(served)
    required = {name for name, field in reply.model_fields.items() if field.is_required()}
    assert required <= served.keys() <= reply.model_fields.keys()
    # Nothing is converted but whole numbers to floats, which are equal, and tuples.
    assert json.loads(model.model_dump_json(exclude_unset=True)) == served
    operation = get(http, "/openapi.json")["paths"][path.replace("short", "{id}").replace("story", "{id}")]["get"]
    schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
    assert schema == {"$ref": f"#/components/schemas/{reply.__name__}"}


def test_the_settings_in_which_runs_differ(http):
    served = get(http, "/api/differences", run=["short", "story"])
    values = {one["key"]: one["values"] for one in served["differences"]}
    assert values["train.max_steps"] == [4, 1000]
    assert "train.seed" not in values
    assert get(http, "/api/differences", run=["short", "short"])["differences"] == []


def test_models_are_listed_with_what_is_in_memory(http):
    get(http, "/api/runs")
    http.post("/api/inspect", json={"model": "short", "text": "all work"})
    served = get(http, "/api/models")
    loaded = [model["id"] for model in served["models"] if model["memory_bytes"]]
    assert "short" in loaded
    assert served["memory_bytes"] > 0
    assert (served["memory_budget_bytes"], served["device"], served["precision"]) == (10**9, "cpu", "fp32")
    assert sum(use["memory_bytes"] for use in served["in_memory"]) == served["memory_bytes"]
    assert {"id": "short@step-4", "name": "short@step-4", "users": 0} in [
        {key: value for key, value in use.items() if key != "memory_bytes"} for use in served["in_memory"]
    ]


def test_a_model_has_its_configuration_and_its_shape(http, runs):
    model = get(http, "/api/models/short@best")
    assert (model["run"], model["config"]["n_layer"], model["config"]["vocab_size"]) == ("short", 1, 257)
    assert model["shape"] == {
        "family": "gpt2",
        "layers": 1,
        "heads": 2,
        "kv_heads": 2,
        "head_width": 8,
        "width": 16,
        "mlp_width": 64,
        "context": 16,
        "vocabulary": 257,
        "parameters": RunFolder(runs / "short").plan().parameters,
    }


def test_a_model_in_memory_whose_checkpoint_was_removed_has_no_id(http, runs):
    folder = save_run(runs / "brief", random_model())
    http.post("/api/inspect", json={"model": "brief", "text": "all work"})
    shutil.rmtree(folder)
    in_memory = get(http, "/api/models")["in_memory"]
    assert [(use["id"], use["name"]) for use in in_memory if "short" not in use["name"]] == [(None, "step-00000001")]
    http.post("/api/inspect", json={"model": "short", "text": "all work"})  # whatever is loaded next drops it
    assert [use["id"] for use in get(http, "/api/models")["in_memory"]] == ["short@step-4"]


@pytest.mark.parametrize(
    ("path", "params", "status", "param"),
    [
        ("/api/runs/none", {}, 404, None),
        ("/api/runs/none/records", {}, 404, None),
        ("/api/runs/..%2F..%2Fruns%2Fshort", {}, 404, None),
        ("/api/runs/%2Fetc", {}, 404, None),
        ("/api/models/none", {}, 404, "model"),
        ("/api/differences", {"run": ["short", "none"]}, 404, None),
        ("/api/differences", {"run": ["short"]}, 400, "run"),
        ("/api/runs/short/records", {"cursor": "x"}, 400, "cursor"),
        ("/api/runs/short/samples", {"cursor": "1.2"}, 400, "cursor"),
        ("/api/runs/short/series", {"metric": "loss"}, 400, "metric"),
        ("/api/runs/short/series", {"start": -1}, 400, "start"),
        ("/api/runs/short/series", {"stop": "1e400"}, 400, "stop"),
        ("/api/runs/short/series", {"buckets": 0}, 400, "buckets"),
        ("/api/runs/short/series", {"buckets": 10**30}, 400, "buckets"),
    ],
)
def test_mistakes_are_named(http, path, params, status, param):
    reply = http.get(path, params=params)
    assert reply.status_code == status, reply.text
    error = reply.json()["error"]
    assert error["message"]
    assert error["param"] == param


def test_data_needs_the_key(runs, server_of):
    with server_of(runs, api_key="secret") as server, httpx2.Client(base_url=server.url, timeout=30) as http:
        for path in ("/api/runs", "/api/runs/short", "/api/runs/short/records", "/api/models"):
            assert http.get(path).status_code == 401
            assert http.get(path, headers={"Authorization": "Bearer secret"}).status_code == 200
        assert http.post("/api/inspect", json={"text": "some text"}).status_code == 401


def test_a_cursor_of_another_file_begins_again(http, runs):
    served = get(http, "/api/runs/short/records", cursor="1.2.3")
    assert served["reset"]
    assert len(served["records"]) == len(RunFolder(runs / "short").metrics())


def test_a_broken_run_is_listed_and_refused_by_name(http, runs):
    broken = RunFolder(save_run(runs / "broken", random_model()))
    broken.config_file.write_text("[train\n")
    try:
        assert "config.toml" in next(row for row in get(http, "/api/runs")["runs"] if row["run"] == "broken")["problem"]
        assert get(http, "/api/runs/broken")["row"]["problem"]
        error = get(http, "/api/differences", status=409, run=["short", "broken"])["error"]
        assert error["code"] == "corrupt_run"
    finally:
        broken.config_file.unlink()
    assert "broken" not in [row["run"] for row in get(http, "/api/runs")["runs"]]
    get(http, "/api/runs/broken", status=404)


def test_many_clients_read_one_run_while_it_is_written(http, runs):
    run = RunFolder(runs / "story")
    run.metrics_file.unlink(missing_ok=True)
    log = JsonlWriter(run.metrics_file)
    before = get(http, "/api/runs/story/records")["cursor"]

    def follow(_: int) -> list[int]:
        steps, cursor = [], before
        while not steps or steps[-1] < 200:
            served = get(http, "/api/runs/story/records", cursor=cursor)
            get(http, "/api/runs/story/series")
            steps += [one["step"] for one in served["records"]]
            cursor = served["cursor"]
        return steps

    with ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(follow, number) for number in range(4)]
        for step in range(1, 201):
            log.write(record(step, train_loss=1.0).to_json())
        assert all(client.result(timeout=60) == list(range(1, 201)) for client in clients)
    log.close()


def test_a_run_that_trains_in_another_process_is_followed_to_its_end(http, runs):
    source = str(Path(tokenloom.__file__).parent.parent)
    environment = {**os.environ, "PYTHONPATH": source, "TOKENLOOM_CACHE": str(runs.parent / "cache")}
    flags = (
        "--model.n-layer 1 --model.n-head 2 --model.n-embd 16 --model.block-size 16 --tokenizer byte "
        "--train.max-steps 30 --train.log-interval 1 --train.save-interval 10 --train.eval-interval 10 "
        "--train.batch-size 2 --sample.max-new-tokens 4"
    )
    command = [sys.executable, "-m", "tokenloom", "train", "text.txt", "--out", "runs/live", *flags.split()]
    trains = subprocess.Popen(command, cwd=runs.parent, env=environment, stderr=subprocess.DEVNULL)
    states, steps, cursor, names = set(), [], None, set()
    deadline = time.monotonic() + 120
    while trains.poll() is None and time.monotonic() < deadline:
        if http.get("/api/runs/live").status_code == 200:
            states.add(get(http, "/api/runs/live")["row"]["state"])
            served = get(http, "/api/runs/live/records", **({"cursor": cursor} if cursor else {}))
            assert not served["reset"]
            steps += [one["step"] for one in served["records"]]
            cursor = served["cursor"]
            reply = http.post("/api/next-token", json={"model": "live", "text": "all"})
            assert reply.status_code in (200, 404)  # 404 until there is a checkpoint
            if reply.status_code == 200:
                names.add(reply.json()["model"])
        time.sleep(0.05)
    assert trains.wait(timeout=10) == 0
    served = get(http, "/api/runs/live/records", cursor=cursor)
    assert steps + [one["step"] for one in served["records"]] == list(range(1, 31))
    assert "training" in states
    assert get(http, "/api/runs/live")["row"]["state"] == "finished"
    last = http.post("/api/next-token", json={"model": "live", "text": "all"}).json()["model"]
    assert last == "live@step-30"
    assert names <= {"live@step-10", "live@step-20", "live@step-30"}
