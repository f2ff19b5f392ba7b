"""GPT-2 by name, from a server on loopback that drops, lies, stalls and says no."""

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
    """Serves a folder, with ranges; `mishaps` says what goes wrong with a file, `asked` what was asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked, self.mishaps = folder, [], {}
        this = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                this.answer(self, body=False)

            def do_GET(self) -> None:
                this.answer(self, body=True)

            def log_message(self, *args: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, request: http.server.BaseHTTPRequestHandler, body: bool) -> None:
        file = self.folder / request.path.lstrip("/").partition("?")[0]
        span = request.headers.get("Range")
        self.asked.append((request.command, file.name, span))
        mishap = self.mishaps.get(file.name, [])
        what = mishap.pop(0) if mishap and body else None
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
    (folder / "model.ckpt.meta").write_bytes(b"a graph that nobody reads")
    started = Server(tmp_path / "served")
    monkeypatch.setenv("TOKENLOOM_GPT2_URL", started.url)
    monkeypatch.setitem(download.OPENAI_BYTES, "124M", (folder / DATA).stat().st_size)
    monkeypatch.setattr(download, "BACKOFF", 0.01)
    monkeypatch.setattr(download, "CHUNK_BYTES", 1024)
    monkeypatch.setattr(download, "TIMEOUT", (2.0, 0.3))
    yield started
    started.stop()


def test_openais_files_are_fetched_once_and_then_nothing_is_asked(server):
    told = []
    folder = download.download_model("openai:124M", progress=lambda *figures: told.append(figures))
    for name in download.OPENAI_FILES:
        assert (folder / name).read_bytes() == (server.folder / "124M" / name).read_bytes()
    size = download.OPENAI_BYTES["124M"]
    assert told[-1] == (f"downloading {DATA}", size, size)
    assert len(server.asked) == 7
    assert download.download_model("openai:124M") == folder
    assert len(server.asked) == 7
    assert not list(folder.glob("*.part"))


def test_the_chapters_function_gives_settings_and_nested_weights(server, tmp_path):
    settings, params = download_and_load_gpt2("124M", tmp_path / "models")
    assert settings["n_layer"] == len(params["blocks"]) == 2
    assert (tmp_path / "models" / "124M" / DATA).is_file()
    with pytest.raises(WeightsError, match="no GPT-2 of size"):
        download_and_load_gpt2("125M", tmp_path)


@pytest.mark.parametrize("mishap", ["dropped", "slow"])
def test_a_broken_connection_goes_on_where_it_was(server, mishap):
    server.mishaps[DATA] = [mishap, mishap]
    folder = download.download_model("openai:124M")
    assert (folder / DATA).read_bytes() == (server.folder / "124M" / DATA).read_bytes()
    spans = [span for _, name, span in server.asked if name == DATA]
    half = download.OPENAI_BYTES["124M"] // 2 // download.CHUNK_BYTES * download.CHUNK_BYTES
    assert spans[:2] == [None, f"bytes={half}-"]
    assert len(spans) == 3


def test_a_server_without_ranges_sends_it_all_again(server):
    server.mishaps[DATA] = ["dropped", "no ranges"]
    folder = download.download_model("openai:124M")
    assert (folder / DATA).read_bytes() == (server.folder / "124M" / DATA).read_bytes()


def test_what_an_earlier_call_fetched_is_kept(server):
    server.mishaps[DATA] = ["dropped", 403]
    with pytest.raises(WeightsError, match=r"cannot download model\.ckpt\.data.*answered 403"):
        download.download_model("openai:124M")
    before = len(server.asked)
    download.download_model("openai:124M")
    half = download.OPENAI_BYTES["124M"] // 2 // download.CHUNK_BYTES * download.CHUNK_BYTES
    assert server.asked[before:] == [("GET", DATA, f"bytes={half}-")]


@pytest.mark.parametrize("name", [DATA, "model.ckpt.index", "vocab.bpe", "encoder.json"])
def test_wrong_bytes_are_not_kept(server, name):
    server.mishaps[name] = ["wrong bytes"]
    with pytest.raises(WeightsError, match=f"cannot download {name}"):
        download.download_model("openai:124M")
    folder = download.cache_folder() / "models" / "openai-124M"
    assert not (folder / name).exists()
    assert download.download_model("openai:124M") == folder


def test_the_second_server_has_what_the_first_refuses_or_spoils(server, monkeypatch):
    monkeypatch.delenv("TOKENLOOM_GPT2_URL")
    monkeypatch.setattr(download, "OPENAI_SERVERS", (f"{server.url}/nothing", server.url))
    download.download_model("openai:124M")
    assert [name for _, name, _ in server.asked[:2]] == ["checkpoint", "checkpoint"]


def test_a_busy_server_is_asked_again_and_a_dead_one_is_named(server, monkeypatch):
    server.mishaps["hparams.json"] = [503, 503]
    download.download_model("openai:124M")
    server.stop()
    monkeypatch.setenv("TOKENLOOM_CACHE", str(download.cache_folder()) + "-other")
    with pytest.raises(WeightsError, match="no connection to http://127"):
        download.download_model("openai:124M")


def test_a_damaged_file_of_a_complete_folder_is_noticed_when_it_is_read(server):
    folder = download.download_model("openai:124M")
    content = bytearray((folder / DATA).read_bytes())
    content[500] ^= 1
    (folder / DATA).write_bytes(content)
    with pytest.raises(WeightsError, match="checksum"):
        load("openai:124M")


@pytest.mark.parametrize("name", ["openai:1M", "openai:"])
def test_unknown_names_are_told_the_known_ones(name):
    with pytest.raises(WeightsError, match="openai:1558M"):
        load(name)


def test_a_folder_of_that_name_comes_first(tmp_path, monkeypatch):
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
    (place / "tokenizer_config.json").unlink()  # as any tokenizer from elsewhere
    server.model, server.place = model, place
    return server


def test_gpt2_comes_from_the_hub_once(hub, tmp_path):
    folder = download.download_model("gpt2", cache=tmp_path / "hub")
    assert torch.equal(load(folder).model.wte.weight, hub.model.wte.weight)
    assert load(folder).tokenizer is load_tokenizer("gpt2")
    before = len(hub.asked)
    assert download.download_model("gpt2", cache=tmp_path / "hub") == folder
    assert len(hub.asked) == before


def test_a_connection_to_the_hub_that_drops_is_taken_up(hub, tmp_path):
    hub.mishaps["model.safetensors"] = ["dropped"]
    folder = download.download_model("gpt2", cache=tmp_path / "hub")
    assert (folder / "model.safetensors").read_bytes() == (hub.place / "model.safetensors").read_bytes()


def test_wrong_bytes_from_the_hub_are_not_kept(hub, tmp_path):
    hub.mishaps["model.safetensors"] = ["wrong bytes"]
    with pytest.raises(WeightsError, match="is corrupt: its hash"):
        download.download_model("gpt2", cache=tmp_path / "hub")
    folder = download.download_model("gpt2", cache=tmp_path / "hub")
    assert (folder / "model.safetensors").read_bytes() == (hub.place / "model.safetensors").read_bytes()


def test_a_hub_without_the_model_and_none_at_all_are_told(hub, tmp_path, monkeypatch):
    with pytest.raises(WeightsError, match="answered 404"):
        download.download_model("gpt2-xl", cache=tmp_path / "hub")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(WeightsError, match="no connection to the Hub"):
        download.download_model("gpt2", cache=tmp_path / "hub")


def test_offline_means_offline(hub, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match="HF_HUB_OFFLINE"):
        download.download_model("gpt2", cache=tmp_path / "hub")
    assert hub.asked == []
