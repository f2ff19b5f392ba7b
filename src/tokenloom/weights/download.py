"""GPT-2 by name: downloaded once, verified, and cached.

`gpt2` and its larger sizes come from the Hugging Face Hub through `huggingface_hub` and its cache; `openai:124M` and
its larger sizes are OpenAI's original files, from OpenAI's server or the mirror of the book's author.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tokenloom.data.corpora import cache_folder
from tokenloom.data.progress import ProgressCallback
from tokenloom.data.tokenizers.bpe import GPT2_MERGES_SHA256
from tokenloom.errors import WeightsError
from tokenloom.storage import replace_file, sha256_of, write_json
from tokenloom.strict_json import load_json
from tokenloom.weights.openai import HPARAMS, MERGES, verify_data, verify_hparams
from tokenloom.weights.safetensors_files import lazy_safetensors
from tokenloom.weights.tensor_bundle import ADVICE, read_index, verify_message

if TYPE_CHECKING:
    from requests import Session

HUB_NAMES = {
    "gpt2": "openai-community/gpt2",
    "gpt2-medium": "openai-community/gpt2-medium",
    "gpt2-large": "openai-community/gpt2-large",
    "gpt2-xl": "openai-community/gpt2-xl",
}
HUB_FILES = ("config.json", "tokenizer.json", "model.safetensors")

OPENAI = "openai:"
# Bytes of the data file, which holds four for each parameter and nothing else.
OPENAI_BYTES = {
    "124M": 4 * 124_439_808,
    "355M": 4 * 354_823_168,
    "774M": 4 * 774_030_080,
    "1558M": 4 * 1_557_611_200,
}
OPENAI_INDEX = "model.ckpt.index"
OPENAI_DATA = "model.ckpt.data-00000-of-00001"
OPENAI_META = "model.ckpt.meta"
# The settings and the data come last: they are verified against the index.
OPENAI_FILES = ("checkpoint", "encoder.json", MERGES, OPENAI_META, OPENAI_INDEX, HPARAMS, OPENAI_DATA)
OPENAI_SHA256 = {
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    MERGES: GPT2_MERGES_SHA256,
}
OPENAI_SERVERS = (
    "https://openaipublic.blob.core.windows.net/gpt-2/models",
    "https://f001.backblazeb2.com/file/LLMs-from-scratch/gpt2",
)
COMPLETE = "complete.json"
_FORMAT = 2  # of complete.json; with format 1, files that were already there had not been verified

RETRIES = 4  # per file and server
BACKOFF = 0.5  # seconds, doubled after each retry
RETRIED_STATUSES = (408, 429, *range(500, 600))
TIMEOUT = (10.0, 30.0)  # seconds to connect, and between two chunks
CHUNK_BYTES = 1 << 16  # the most that is lost when a connection breaks


def has_model_name(reference: str | Path) -> bool:
    """Whether a reference reads like the name of a model to download."""
    return str(reference) in HUB_NAMES or str(reference).startswith(OPENAI)


def is_model_name(reference: str | Path) -> bool:
    """Whether a reference is the name of a model to download; an existing path of that name takes precedence."""
    return has_model_name(reference) and not Path(reference).exists()


def download_model(name: str, cache: Path | None = None, progress: ProgressCallback | None = None) -> Path:
    """The folder of a model with a name; no request is made if it is cached.

    `cache` defaults to Hugging Face's cache, and to Tokenloom's for openai: names. The environment variables
    HF_HUB_OFFLINE and HF_ENDPOINT apply, and TOKENLOOM_GPT2_URL, a base URL for OpenAI's files. Raises `WeightsError`.
    """
    if name in HUB_NAMES:
        return _from_hub(HUB_NAMES[name], cache)
    size = name.removeprefix(OPENAI)
    if not name.startswith(OPENAI) or size not in OPENAI_BYTES:
        names = ", ".join([*HUB_NAMES, *(OPENAI + size for size in OPENAI_BYTES)])
        raise WeightsError(f'there is no model named "{name}". Choose from: {names}.')
    return download_openai(size, (cache or cache_folder()) / "models" / f"openai-{size}", progress)


def download_openai(size: str, folder: Path, progress: ProgressCallback | None = None) -> Path:
    """Download and verify OpenAI's seven files of a size ("124M") into `folder`, which is returned.

    Nothing is placed before it is verified. Valid files and partial files of an earlier download are reused; invalid
    files are replaced. Raises `WeightsError`.
    """
    from filelock import FileLock

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):  # concurrent processes download it once
            if not _is_complete(folder):
                for name in OPENAI_FILES:
                    if problem := _problem(size, folder, folder / name):
                        _download_verified(size, folder / name, problem, progress)
                sizes = {name: (folder / name).stat().st_size for name in OPENAI_FILES}
                write_json(folder / COMPLETE, {"format": _FORMAT, "bytes": sizes})
    except OSError as error:
        raise WeightsError(
            f"cannot save GPT-2 in {folder}: {error}. Free some space, or set TOKENLOOM_CACHE."
        ) from None
    return folder


def _is_complete(folder: Path) -> bool:
    try:
        complete = load_json((folder / COMPLETE).read_text(encoding="utf-8"))
        sizes = complete["bytes"]
        return complete["format"] == _FORMAT and all(
            (folder / name).stat().st_size == sizes[name] for name in OPENAI_FILES
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _download_verified(size: str, target: Path, problem: str, progress: ProgressCallback | None) -> None:
    """Download one file, whose present state is `problem`, from the first server that has a valid copy."""
    failures = [f"{target} {problem}"] if target.exists() else []
    for base in _servers():
        url = f"{base}/{size}/{target.name}"
        part = target.with_name(f"{target.name}.part")
        try:
            _download(url, part, progress)
        except WeightsError as error:
            failures.append(str(error))
            continue
        problem = _problem(size, target.parent, part) or ""
        if not problem:
            replace_file(part, target)
            return
        part.unlink(missing_ok=True)
        failures.append(f"what {url} sent {problem}")
    raise WeightsError(
        f"cannot download {target.name} of openai:{size}: {'; '.join(failures)}. "
        f"Try again later, set TOKENLOOM_GPT2_URL, or put the file into {target.parent}.",
        topic="download",
    )


def _servers() -> Sequence[str]:
    override = os.environ.get("TOKENLOOM_GPT2_URL")
    return (override.rstrip("/"),) if override else OPENAI_SERVERS


def _problem(size: str, folder: Path, file: Path) -> str | None:
    """Why a file, perhaps a part that is not in place yet, is not the one that OpenAI published; None if it is.

    The files that precede it in `OPENAI_FILES` are in `folder` and valid.
    """
    name = file.name.removesuffix(".part")
    try:
        if name in OPENAI_SHA256 and sha256_of(file) != OPENAI_SHA256[name]:
            return "has another sha256 than OpenAI's file"
        if name == "checkpoint" and "model_checkpoint_path" not in file.read_text(encoding="utf-8"):
            return "is not a checkpoint's list of files"
        if name == OPENAI_META:
            verify_message(file)
        if name == OPENAI_INDEX:
            total = sum(tensor.size for tensor in read_index(file).values())
            if total != OPENAI_BYTES[size]:
                return f"lists {total:,} bytes of tensors instead of {OPENAI_BYTES[size]:,}"
        if name == HPARAMS:
            verify_hparams(file, folder / OPENAI_INDEX)
        if name == OPENAI_DATA:
            if file.stat().st_size != OPENAI_BYTES[size]:
                return f"has {file.stat().st_size:,} bytes instead of {OPENAI_BYTES[size]:,}"
            verify_data(folder, file)
    except FileNotFoundError:
        return "does not exist"
    except (ValueError, WeightsError) as error:
        return f"is invalid: {str(error).partition(f'. {ADVICE}')[0]}"
    return None


class _InterruptedDownload(Exception):
    """The connection broke after a part of the file was saved."""


def _download(url: str, part: Path, progress: ProgressCallback | None) -> None:
    """Download `url` into `part`, resuming what an earlier attempt or call saved there."""
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3 import Retry
    from urllib3.exceptions import MaxRetryError

    retries = Retry(
        RETRIES,
        status_forcelist=RETRIED_STATUSES,
        backoff_factor=BACKOFF,
        raise_on_status=False,
        respect_retry_after_header=False,  # the next server is tried instead of waiting longer
    )
    with requests.Session() as session:
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(max_retries=retries))
        while True:
            try:
                _request(session, url, part, progress)
                return
            except requests.HTTPError as error:
                status = error.response.status_code if error.response is not None else "an error"
                raise WeightsError(f"{url} answered {status}") from None
            except requests.RequestException as error:
                raise WeightsError(f"no connection to {url} ({type(error).__name__})") from None
            except _InterruptedDownload as error:
                # The adapter retries requests; a response whose body breaks off is resumed here, under the same limit.
                try:
                    retries = retries.increment("GET", url, error=error)
                except MaxRetryError:
                    raise WeightsError(f"no connection to {url} ({error})") from None
                retries.sleep()


def _request(session: Session, url: str, part: Path, progress: ProgressCallback | None) -> None:
    """Download what `part` lacks; raises `_InterruptedDownload` if that can be resumed, else requests' exceptions."""
    import requests

    size = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={size}-"} if size else {})
    with session.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code == 416:  # the part is complete, or belongs to another file
            if response.headers.get("Content-Range") == f"bytes */{size}":
                return
            part.unlink()
            raise _InterruptedDownload("the partial file does not fit")
        response.raise_for_status()
        if not _continues_at(size, response.status_code, response.headers):
            size = 0
        length = response.headers.get("Content-Length")
        total = size + int(length) if length else None
        try:
            with part.open("ab" if size else "wb") as file:
                for chunk in response.iter_content(CHUNK_BYTES):
                    file.write(chunk)
                    size += len(chunk)
                    if progress is not None:
                        progress(f"downloading {part.stem}", size, total)
        except requests.RequestException as error:
            raise _InterruptedDownload(type(error).__name__) from error
    if total is not None and size < total:
        raise _InterruptedDownload("the connection ended early")


def _continues_at(size: int, status: int, headers: Mapping[str, str]) -> bool:
    """Whether a response starts at byte `size`; servers without ranges send the whole file."""
    return status == 206 and headers.get("Content-Range", "").startswith(f"bytes {size}-")


def _from_hub(repository: str, cache: Path | None) -> Path:
    from huggingface_hub import try_to_load_from_cache

    cached = [try_to_load_from_cache(repository, name, cache_dir=cache) for name in HUB_FILES]
    present = [Path(path) for path in cached if isinstance(path, str)]
    invalid = [path for path in present if not _is_readable(path)]
    for path in invalid:
        _remove_from_cache(path)
    if len(present) == len(HUB_FILES) and not invalid:
        return present[0].parent
    files = [_file_from_hub(repository, name, cache) for name in HUB_FILES]
    return files[-1].parent


def _file_from_hub(repository: str, name: str, cache: Path | None) -> Path:
    """Download one file and verify it against the hash that the Hub reports."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
    from huggingface_hub.file_download import (
        get_hf_file_metadata,  # pyright: ignore[reportUnknownVariableType] - `user_agent` is a bare dict
        hf_hub_download,  # pyright: ignore[reportUnknownVariableType] - `user_agent` is a bare dict
    )

    endpoint = os.environ.get("HF_ENDPOINT")
    advice = "Name a folder that has it, or try openai:124M."
    try:
        metadata = get_hf_file_metadata(hf_hub_url(repository, name, endpoint=endpoint), endpoint=endpoint)
        path = Path(hf_hub_download(repository, name, cache_dir=cache, endpoint=endpoint))
    except OfflineModeIsEnabled:
        raise WeightsError(
            f"{name} of {repository} is not cached, and HF_HUB_OFFLINE forbids downloading it. {advice}",
            topic="download",
        ) from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        raise WeightsError(
            f"cannot download {name} of {repository}: the Hub answered {status}. {advice}", topic="download"
        ) from None
    except Exception as error:  # transport errors, whose classes depend on the version of huggingface_hub
        raise WeightsError(
            f"cannot download {name} of {repository}: {type(error).__name__}, no connection to the Hub. {advice}",
            topic="download",
        ) from None
    if not _matches_etag(path, metadata.etag or "") or not _is_readable(path):
        _remove_from_cache(path)
        raise WeightsError(
            f"{name} of {repository} is corrupt: its hash or format is not the Hub's. Download it again."
        )
    return path


def _matches_etag(path: Path, etag: str) -> bool:
    """Whether a file has the hash in its ETag: the sha256 of large files, the git blob id of small ones."""
    if re.fullmatch(r"[0-9a-f]{64}", etag):
        return sha256_of(path) == etag
    if re.fullmatch(r"[0-9a-f]{40}", etag):
        content = path.read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() == etag
    return True


def _is_readable(file: Path) -> bool:
    """Whether a file has the format of its name: an error page that was saved in its place does not."""
    try:
        if file.suffix == ".json":
            return isinstance(load_json(file.read_text(encoding="utf-8")), dict)
        return bool(lazy_safetensors(file.parent))
    except (OSError, ValueError, WeightsError):
        return False


def _remove_from_cache(file: Path) -> None:
    """Remove a link in the cache of `huggingface_hub`, and the file that it refers to."""
    file.resolve().unlink(missing_ok=True)
    file.unlink(missing_ok=True)
