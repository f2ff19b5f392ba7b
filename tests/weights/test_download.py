"""Downloads of GPT-2, from a local server that drops connections, sends wrong bytes, stalls and refuses."""

import hashlib
import http.server
import json
import shutil
import threading
import time
from pathlib import Path

import pytest
import torch

from tokenloom.book import download_and_load_gpt2
from tokenloom.data.tokenizers import load_tokenizer
from tokenloom.data.tokenizers.bpe import to_byte_level
from tokenloom.errors import WeightsError
from tokenloom.weights import download
from tokenloom.weights.export import export_model
from tokenloom.weights.load import LoadedModel, load

WRITTEN = Path(__file__).parent / "openai-checkpoints" / "gpt2"
DATA = download.OPENAI_DATA


class Server:
    """Serves a folder, with ranges; `faults` lists what to do wrong with a file, `requests` what was requested."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.requests, self.faults = folder, [], {}
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                server.answer(self, body=False)

            def do_GET(self) -> None:
                server.answer(self, body=True)

            def log_message(self, *args: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, request: http.server.BaseHTTPRequestHandler, body: bool) -> None:
        file = self.folder / request.path.lstrip("/").partition("?")[0]
        span = request.headers.get("Range")
        self.requests.append((request.command, file.name, span))
        fault = self.faults.get(file.name, [])
        what = fault.pop(0) if fault and body else None
        if not file.is_file() or isinstance(what, int):
            request.send_response(what if isinstance(what, int) else 404)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        content = file.read_bytes()
        start = int(span.removeprefix("bytes=").rstrip("-")) if span and what != "no ranges" else 0
        if start >= len(content):
            request.send_response(416)
            request.send_header("Content-Range", f"bytes */{len(content)}")
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        digest = hashlib.sha256(content).hexdigest()
        for name, value in (("ETag", f'"{digest}"'), ("X-Repo-Commit", "a" * 40), ("X-Linked-ETag", f'"{digest}"')):
            request.send_header(name, value)
        if what == "wrong bytes":
            content = content[:100] + b"\0\1\2\3" * 8 + content[132:]
        rest = content[start:]
        request.send_header("Content-Length", str(len(rest)))
        request.end_headers()
        if not body:
            return
        if what in ("dropped", "slow"):
            request.wfile.write(rest[: len(rest) // 2])
            request.wfile.flush()
            if what == "slow":
                time.sleep(1.0)
            request.close_connection = True
            request.connection.close()
            return
        request.wfile.write(rest)

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server with OpenAI's files of a tiny GPT-2 as 124M."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("TOKENLOOM_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "served" / "124M"
    shutil.copytree(WRITTEN, folder)
    gpt2 = load_tokenizer("gpt2")
    written = {to_byte_level(token): i for i, token in enumerate(gpt2.token_bytes[: gpt2.eot_id])}
    (folder / "encoder.json").write_text(json.dumps({**written, "<|endoftext|>": 50256}))
    merges = [" ".join(pair) for pair in gpt2.to_json()["model"]["merges"]]
    (folder / "vocab.bpe").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    (folder / "model.ckpt.meta").write_bytes(b"\x0a\x07a graph")
    started = Server(tmp_path / "served")
    monkeypatch.setenv("TOKENLOOM_GPT2_URL", started.url)
    monkeypatch.setitem(download.OPENAI_BYTES, "124M", (folder / DATA).stat().st_size)
    monkeypatch.setattr(download, "BACKOFF", 0.01)
    monkeypatch.setattr(download, "CHUNK_BYTES", 1024)
    monkeypatch.setattr(download, "TIMEOUT", (2.0, 0.3))
    yield started
    started.stop()


def test_openais_files_are_downloaded_once(server):
    calls = []
    folder = download.download_model("openai:124M", progress=lambda *figures: calls.append(figures))
    for name in download.OPENAI_FILES:
        assert (folder / name).read_bytes() == (server.folder / "124M" / name).read_bytes()
    size = download.OPENAI_BYTES["124M"]
    assert calls[-1] == (f"downloading {DATA}", size, size)
    assert len(server.requests) == 7
    assert download.download_model("openai:124M") == folder
    assert len(server.requests) == 7
    assert not list(folder.glob("*.part"))


def test_the_books_function_returns_settings_and_nested_weights(server, tmp_path):
    settings, params = download_and_load_gpt2("124M", tmp_path / "models")
    assert settings["n_layer"] == len(params["blocks"]) == 2
    assert (tmp_path / "models" / "124M" / DATA).is_file()
    with pytest.raises(WeightsError, match="no GPT-2 of size"):
        download_and_load_gpt2("125M", tmp_path)


@pytest.mark.parametrize("fault", ["dropped", "slow"])
def test_a_broken_connection_is_resumed(server, fault):
    server.faults[DATA] = [fault, fault]
    folder = download.download_model("openai:124M")
    assert (folder / DATA).read_bytes() == (server.folder / "124M" / DATA).read_bytes()
    spans = [span for _, name, span in server.requests if name == DATA]
    half = download.OPENAI_BYTES["124M"] // 2 // download.CHUNK_BYTES * download.CHUNK_BYTES
    assert spans[:2] == [None, f"bytes={half}-"]
    assert len(spans) == 3


def test_a_connection_that_keeps_breaking_is_reported(server):
    server.faults[DATA] = ["dropped"] * (download.RETRIES + 1)
    with pytest.raises(WeightsError, match=f"cannot download {DATA}.*no connection"):
        download.download_model("openai:124M")
    assert [name for _, name, _ in server.requests].count(DATA) == download.RETRIES + 1


def test_a_server_without_ranges_sends_the_whole_file_again(server):
    server.faults[DATA] = ["dropped", "no ranges"]
    folder = download.download_model("openai:124M")
    assert (folder / DATA).read_bytes() == (server.folder / "124M" / DATA).read_bytes()


def test_partial_files_of_an_earlier_call_are_reused(server):
    server.faults[DATA] = ["dropped", 403]
    with pytest.raises(WeightsError, match=r"cannot download model\.ckpt\.data.*answered 403"):
        download.download_model("openai:124M")
    before = len(server.requests)
    download.download_model("openai:124M")
    half = download.OPENAI_BYTES["124M"] // 2 // download.CHUNK_BYTES * download.CHUNK_BYTES
    assert server.requests[before:] == [("GET", DATA, f"bytes={half}-")]


@pytest.mark.parametrize("name", [DATA, "model.ckpt.index", "vocab.bpe", "encoder.json"])
def test_wrong_bytes_are_not_kept(server, name):
    server.faults[name] = ["wrong bytes"]
    with pytest.raises(WeightsError, match=f"cannot download {name}"):
        download.download_model("openai:124M")
    folder = download.cache_folder() / "models" / "openai-124M"
    assert not (folder / name).exists()
    assert download.download_model("openai:124M") == folder


JUNK = [
    b"",
    b"<!DOCTYPE html>\n<html><body>Sign in to continue</body></html>\n",
    b'{"error": "quota exceeded"}',
    b"\n<html>",
]


@pytest.mark.parametrize("junk", JUNK)
@pytest.mark.parametrize("name", download.OPENAI_FILES)
def test_junk_with_status_200_is_never_put_in_place(server, name, junk):
    served = server.folder / "124M" / name
    valid = served.read_bytes()
    served.write_bytes(junk)
    with pytest.raises(WeightsError, match=f"cannot download {name} of openai:124M: what http"):
        download.download_model("openai:124M")
    folder = download.cache_folder() / "models" / "openai-124M"
    assert not (folder / name).exists()
    assert not (folder / f"{name}.part").exists()
    assert not (folder / download.COMPLETE).exists()
    served.write_bytes(valid)
    assert (download.download_model("openai:124M") / name).read_bytes() == valid


@pytest.mark.parametrize("has_record", [True, False])
def test_seven_junk_files_are_replaced(server, has_record):
    """Earlier versions recorded files that were already there as complete."""
    folder = download.cache_folder() / "models" / "openai-124M"
    folder.mkdir(parents=True)
    for name in download.OPENAI_FILES:
        (folder / name).write_bytes(JUNK[1])
    if has_record:
        (folder / download.COMPLETE).write_text(json.dumps({name: len(JUNK[1]) for name in download.OPENAI_FILES}))
    download.download_model("openai:124M")
    for name in download.OPENAI_FILES:
        assert (folder / name).read_bytes() == (server.folder / "124M" / name).read_bytes()


def test_valid_files_that_are_already_there_are_verified_and_not_downloaded(server):
    folder = download.cache_folder() / "models" / "openai-124M"
    shutil.copytree(server.folder / "124M", folder)
    assert download.download_model("openai:124M") == folder
    assert server.requests == []


def test_an_invalid_file_that_cannot_be_replaced_is_named(server):
    folder = download.download_model("openai:124M")
    (folder / "hparams.json").write_text("{}")
    server.faults["hparams.json"] = [403]
    with pytest.raises(WeightsError, match=r"hparams\.json is invalid.*answered 403"):
        download.download_model("openai:124M")


def test_files_of_another_size_of_gpt2_are_refused(server):
    hparams = json.loads((server.folder / "124M" / "hparams.json").read_text())
    (server.folder / "124M" / "hparams.json").write_text(json.dumps({**hparams, "n_layer": 24}))
    with pytest.raises(WeightsError, match=r"its settings are not those of model\.ckpt\.index"):
        download.download_model("openai:124M")


def test_an_interrupted_verification_leaves_no_unverified_file(server, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(download, "verify_data", interrupt)
        with pytest.raises(KeyboardInterrupt):
            download.download_model("openai:124M")
    folder = download.cache_folder() / "models" / "openai-124M"
    assert not (folder / DATA).exists()
    download.download_model("openai:124M")
    assert (folder / DATA).read_bytes() == (server.folder / "124M" / DATA).read_bytes()


def test_the_second_server_is_used_if_the_first_refuses(server, monkeypatch):
    monkeypatch.delenv("TOKENLOOM_GPT2_URL")
    monkeypatch.setattr(download, "OPENAI_SERVERS", (f"{server.url}/nothing", server.url))
    download.download_model("openai:124M")
    assert [name for _, name, _ in server.requests[:2]] == ["checkpoint", "checkpoint"]


def test_a_busy_server_is_retried_and_an_unreachable_one_is_named(server, monkeypatch):
    server.faults["hparams.json"] = [503, 503]
    download.download_model("openai:124M")
    server.stop()
    monkeypatch.setenv("TOKENLOOM_CACHE", str(download.cache_folder()) + "-other")
    with pytest.raises(WeightsError, match="no connection to http://127"):
        download.download_model("openai:124M")


def test_a_corrupt_file_of_a_complete_folder_is_detected_when_it_is_read(server):
    folder = download.download_model("openai:124M")
    content = bytearray((folder / DATA).read_bytes())
    content[500] ^= 1
    (folder / DATA).write_bytes(content)
    with pytest.raises(WeightsError, match=f"{DATA}: the checksum of .* Delete it and download it again"):
        load("openai:124M")
    (folder / DATA).unlink()
    download.download_model("openai:124M")
    assert (folder / DATA).read_bytes() == (server.folder / "124M" / DATA).read_bytes()


@pytest.mark.parametrize("name", ["openai:1M", "openai:"])
def test_an_unknown_name_gets_the_list_of_names(name):
    with pytest.raises(WeightsError, match="openai:1558M"):
        load(name)


def test_a_folder_of_that_name_takes_precedence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gpt2").mkdir()
    assert not download.is_model_name("gpt2")
    assert download.is_model_name("gpt2-xl")


@pytest.fixture
def hub(server, tmp_path, model_of, monkeypatch):
    """The same server as a hub that has a small model of GPT-2's vocabulary."""
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    tokenizer = load_tokenizer("gpt2")
    model = model_of("gpt2", vocab_size=tokenizer.vocab_size)
    place = tmp_path / "served" / "openai-community" / "gpt2" / "resolve" / "main"
    export_model(LoadedModel(model, tokenizer, tmp_path), place, "hf", license="mit")
    (place / "tokenizer_config.json").unlink()  # which a tokenizer of another origin lacks
    server.model, server.place = model, place
    return server


def test_gpt2_comes_from_the_hub_once(hub, tmp_path):
    folder = download.download_model("gpt2", cache=tmp_path / "hub")
    assert torch.equal(load(folder).model.wte.weight, hub.model.wte.weight)
    assert load(folder).tokenizer is load_tokenizer("gpt2")
    before = len(hub.requests)
    assert download.download_model("gpt2", cache=tmp_path / "hub") == folder
    assert len(hub.requests) == before


def test_a_broken_connection_to_the_hub_is_resumed(hub, tmp_path):
    hub.faults["model.safetensors"] = ["dropped"]
    folder = download.download_model("gpt2", cache=tmp_path / "hub")
    assert (folder / "model.safetensors").read_bytes() == (hub.place / "model.safetensors").read_bytes()


def test_wrong_bytes_from_the_hub_are_not_kept(hub, tmp_path):
    hub.faults["model.safetensors"] = ["wrong bytes"]
    with pytest.raises(WeightsError, match="is corrupt: its hash"):
        download.download_model("gpt2", cache=tmp_path / "hub")
    folder = download.download_model("gpt2", cache=tmp_path / "hub")
    assert (folder / "model.safetensors").read_bytes() == (hub.place / "model.safetensors").read_bytes()


def test_an_error_page_in_the_cache_of_the_hub_is_replaced(hub, tmp_path):
    folder = download.download_model("gpt2", cache=tmp_path / "hub")
    for name in download.HUB_FILES:
        (folder / name).write_bytes(JUNK[1])
        folder = download.download_model("gpt2", cache=tmp_path / "hub")
        assert (folder / name).read_bytes() == (hub.place / name).read_bytes()


def test_a_missing_model_and_an_unreachable_hub_are_reported(hub, tmp_path, monkeypatch):
    with pytest.raises(WeightsError, match="answered 404"):
        download.download_model("gpt2-xl", cache=tmp_path / "hub")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(WeightsError, match="no connection to the Hub"):
        download.download_model("gpt2", cache=tmp_path / "hub")


def test_nothing_is_requested_offline(hub, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match="HF_HUB_OFFLINE"):
        download.download_model("gpt2", cache=tmp_path / "hub")
    assert hub.requests == []
