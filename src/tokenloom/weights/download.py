"""GPT-2 by name: fetched once, checked, and never asked for again.

`gpt2` and its sizes come from the hub, by `huggingface_hub` and into its cache; `openai:124M` and its sizes as OpenAI
published them, from its own server or the copy that the book's author keeps.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path

from tokenloom.data.corpora import cache_folder
from tokenloom.data.progress import ProgressCallback
from tokenloom.data.tokenizers.bpe import GPT2_MERGES_SHA256
from tokenloom.errors import WeightsError
from tokenloom.weights.checkpoint import sha256_of, write_text
from tokenloom.weights.openai import check_openai
from tokenloom.weights.tensor_bundle import check_index

HUB_NAMES = {
    "gpt2": "openai-community/gpt2",
    "gpt2-medium": "openai-community/gpt2-medium",
    "gpt2-large": "openai-community/gpt2-large",
    "gpt2-xl": "openai-community/gpt2-xl",
}
HUB_FILES = ("config.json", "tokenizer.json", "model.safetensors")

OPENAI = "openai:"
# Bytes of the weights: four for each parameter, for the file holds nothing else.
OPENAI_BYTES = {
    "124M": 4 * 124_439_808,
    "355M": 4 * 354_823_168,
    "774M": 4 * 774_030_080,
    "1558M": 4 * 1_557_611_200,
}
OPENAI_DATA = "model.ckpt.data-00000-of-00001"
# The weights last: the index tells what they should be.
OPENAI_FILES = (
    "checkpoint",
    "encoder.json",
    "hparams.json",
    "vocab.bpe",
    "model.ckpt.meta",
    "model.ckpt.index",
    OPENAI_DATA,
)
OPENAI_SHA256 = {
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    "vocab.bpe": GPT2_MERGES_SHA256,
}
OPENAI_SERVERS = (
    "https://openaipublic.blob.core.windows.net/gpt-2/models",
    "https://f001.backblazeb2.com/file/LLMs-from-scratch/gpt2",
)
COMPLETE = "complete.json"

TRIES = 5  # of one server, after which the next one is asked
FIRST_PAUSE = 0.5  # seconds, doubled after each try
TIMEOUT = (10.0, 30.0)  # seconds to connect, and between two pieces
PIECE = 1 << 16  # bytes that a broken connection can cost


def is_name(reference: str | Path) -> bool:
    """Whether a reference names a model to fetch, and nothing on this machine goes by that name."""
    text = str(reference)
    return (text in HUB_NAMES or text.startswith(OPENAI)) and not Path(text).exists()


def fetch(name: str, cache: Path | None = None, progress: ProgressCallback | None = None) -> Path:
    """The folder of a model known by name; without a request if all of it is there.

    `cache` is Hugging Face's, or for openai: names ours, if None. HF_HUB_OFFLINE and HF_ENDPOINT are honoured, as is
    TOKENLOOM_GPT2_URL, a base URL for OpenAI's files. Raises `WeightsError` naming what could not be had.
    """
    if name in HUB_NAMES:
        return _from_hub(HUB_NAMES[name], cache)
    size = name.removeprefix(OPENAI)
    if not name.startswith(OPENAI) or size not in OPENAI_BYTES:
        known = ", ".join([*HUB_NAMES, *(OPENAI + size for size in OPENAI_BYTES)])
        raise WeightsError(f'no model is known as "{name}". By name there are: {known}.')
    return fetch_openai(size, (cache or cache_folder()) / "models" / f"openai-{size}", progress)


def fetch_openai(size: str, folder: Path, progress: ProgressCallback | None = None) -> Path:
    """OpenAI's seven files of a size ("124M") in `folder`, every byte of the weights checked; gives the folder.

    What was fetched before, even in part, is not fetched again. Raises `WeightsError`.
    """
    from filelock import FileLock

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):  # two processes that want it fetch it once
            if not _is_complete(folder):
                for name in OPENAI_FILES:
                    if not (folder / name).exists():
                        _fetch_checked(size, folder / name, progress)
                sizes = {name: (folder / name).stat().st_size for name in OPENAI_FILES}
                write_text(folder / COMPLETE, json.dumps(sizes, indent=2) + "\n")
    except OSError as error:
        raise WeightsError(f"cannot keep GPT-2 in {folder}: {error}. Make room, or set TOKENLOOM_CACHE.") from None
    return folder


def _is_complete(folder: Path) -> bool:
    try:
        sizes = json.loads((folder / COMPLETE).read_text(encoding="utf-8"))
        return all((folder / name).stat().st_size == sizes[name] for name in OPENAI_FILES)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _fetch_checked(size: str, target: Path, progress: ProgressCallback | None) -> None:
    """One file from the first server whose copy is right."""
    refusals = []
    for base in _servers():
        url = f"{base}/{size}/{target.name}"
        part = target.with_name(f"{target.name}.part")
        try:
            _fetch_in_parts(url, part, progress)
            part.replace(target)
            _check(size, target)
            return
        except WeightsError as error:
            refusals.append(str(error))
    raise WeightsError(
        f"cannot fetch {target.name} of openai:{size}: {'; '.join(refusals)}. "
        f"Try again later, set TOKENLOOM_GPT2_URL, or put the file into {target.parent}."
    )


def _servers() -> Sequence[str]:
    chosen = os.environ.get("TOKENLOOM_GPT2_URL")
    return (chosen.rstrip("/"),) if chosen else OPENAI_SERVERS


def _check(size: str, file: Path) -> None:
    """Leave the file if it is what OpenAI published, else remove it and raise `WeightsError`."""
    try:
        if file.name in OPENAI_SHA256 and sha256_of(file) != OPENAI_SHA256[file.name]:
            raise WeightsError("its sha256 differs from what OpenAI published")
        if file.name == OPENAI_DATA:
            if file.stat().st_size != OPENAI_BYTES[size]:
                raise WeightsError(f"it has {file.stat().st_size:,} bytes instead of {OPENAI_BYTES[size]:,}")
            check_openai(file.parent)  # by the checksum of each tensor
        if file.name.endswith(".index"):
            check_index(file)
        if file.suffix == ".json":
            json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        file.unlink()
        raise WeightsError("it is not JSON") from None
    except WeightsError:
        file.unlink()
        raise


def _fetch_in_parts(url: str, part: Path, progress: ProgressCallback | None) -> None:
    """Fetch `url` into `part`, going on where an earlier try, or an earlier call, was cut off."""
    import requests

    pause = FIRST_PAUSE
    for last in (False,) * (TRIES - 1) + (True,):
        try:
            _request(url, part, progress)
            return
        except requests.HTTPError as error:
            status = error.response.status_code if error.response is not None else 0
            if last or (status < 500 and status not in (408, 429)):
                raise WeightsError(f"{url} answered {status}") from None
        except requests.RequestException as error:
            if last:
                raise WeightsError(f"no connection to {url} ({type(error).__name__})") from None
        time.sleep(pause)
        pause *= 2


def _request(url: str, part: Path, progress: ProgressCallback | None) -> None:
    import requests

    have = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={have}-", "Accept-Encoding": "identity"} if have else {"Accept-Encoding": "identity"}
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code == 416:  # nothing is left beyond what we have, or that was of another file
            if response.headers.get("Content-Range") == f"bytes */{have}":
                return
            part.unlink()
            raise requests.ConnectionError("the part kept does not fit the file")
        response.raise_for_status()
        if response.status_code != 206 or not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            have = 0  # the server sends all of it again
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        with part.open("ab" if have else "wb") as file:
            for piece in response.iter_content(PIECE):
                file.write(piece)
                have += len(piece)
                if progress is not None:
                    progress(f"fetching {part.stem}", have, total)
    if total is not None and have < total:
        raise requests.ConnectionError("the connection ended early")


def _from_hub(repository: str, cache: Path | None) -> Path:
    from huggingface_hub import try_to_load_from_cache

    kept = [try_to_load_from_cache(repository, name, cache_dir=cache) for name in HUB_FILES]
    if all(isinstance(path, str) for path in kept):
        return Path(str(kept[0])).parent
    fetched = [_file_from_hub(repository, name, cache) for name in HUB_FILES]
    return fetched[-1].parent


def _file_from_hub(repository: str, name: str, cache: Path | None) -> Path:
    """One file, checked by the hash that the hub itself has for it."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    endpoint = os.environ.get("HF_ENDPOINT")
    elsewhere = "Name a folder that has it, or try openai:124M."
    try:
        known = get_hf_file_metadata(hf_hub_url(repository, name, endpoint=endpoint), endpoint=endpoint)
        path = Path(hf_hub_download(repository, name, cache_dir=cache, endpoint=endpoint))
    except OfflineModeIsEnabled:
        raise WeightsError(
            f"{name} of {repository} is not on this machine, and HF_HUB_OFFLINE forbids fetching it. {elsewhere}"
        ) from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        raise WeightsError(f"cannot fetch {name} of {repository}: the hub answered {status}. {elsewhere}") from None
    except Exception as error:  # its transport has errors of its own, which change with its version
        raise WeightsError(
            f"cannot fetch {name} of {repository}: {type(error).__name__}, no connection to the hub. {elsewhere}"
        ) from None
    if not _has_hash(path, known.etag or ""):
        path.resolve().unlink()
        path.unlink(missing_ok=True)
        raise WeightsError(f"{name} of {repository} arrived damaged: its hash is not the hub's. Fetch it again.")
    return path


def _has_hash(path: Path, etag: str) -> bool:
    """Whether a file is what the hub says: it names large files by their sha256, small ones as git does."""
    if re.fullmatch(r"[0-9a-f]{64}", etag):
        return sha256_of(path) == etag
    if re.fullmatch(r"[0-9a-f]{40}", etag):
        content = path.read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() == etag
    return True
