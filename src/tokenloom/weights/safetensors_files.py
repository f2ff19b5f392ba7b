"""Safetensors files: written, read at once, or read lazily from one file or several shards."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import safetensors
import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from tokenloom.errors import WeightsError
from tokenloom.storage import utf8_name
from tokenloom.strict_json import dump_json, load_json
from tokenloom.weights.lazy_tensors import LazyTensor

WEIGHTS = "model.safetensors"


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write one file; the tensors must not share memory."""
    contiguous = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    safetensors.torch.save_file(contiguous, path, metadata)  # pyright: ignore[reportUnknownMemberType] - bare PathLike


def write_index(folder: Path, name: str, shards: Mapping[str, Mapping[str, int]]) -> None:
    """Write the index of the file `name`, split into `shards`: by the name of each, its tensors and their bytes."""
    tensors = {tensor: file for file, sizes in shards.items() for tensor in sizes}
    total = sum(size for sizes in shards.values() for size in sizes.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(tensors.items()))}
    (folder / index_of(name)).write_text(dump_json(index, indent=2) + "\n", encoding="utf-8")


def load_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of one file, on the CPU."""
    with utf8_name(path) as name:
        return safetensors.torch.load_file(name)  # pyright: ignore[reportUnknownMemberType] - a bare PathLike


def lazy_safetensors(folder: Path, name: str = WEIGHTS) -> dict[str, LazyTensor]:
    """The tensors of the file `name`, or of the shards that its index lists, such as model.safetensors.index.json.

    Raises `WeightsError` for a file that is missing or corrupt.
    """
    return merge_shards((file, dict(_tensors_of(file))) for file in shard_files(folder, name))


def has_safetensors(folder: Path, name: str = WEIGHTS) -> bool:
    """Whether a folder has the file `name`, or an index of its shards."""
    return any((folder / file).is_file() for file in (name, index_of(name)))


def shard_files(folder: Path, name: str = WEIGHTS) -> list[Path]:
    """The file `name`, or the shards that its index lists; raises `WeightsError` for an invalid index."""
    # Like transformers: one file has precedence over shards.
    return [folder / name] if (folder / name).is_file() else files_of_index(folder / index_of(name))


def index_of(name: str) -> str:
    """The name of the index of a file that is split into shards."""
    return f"{name}.index.json"


def shard_of(name: str, number: int, count: int) -> str:
    """The name of a shard as Hugging Face writes it: model-00001-of-00002.safetensors."""
    path = Path(name)
    return f"{path.stem}-{number:05d}-of-{count:05d}{path.suffix}"


def merge_shards(shards: Iterable[tuple[Path, Mapping[str, LazyTensor]]]) -> dict[str, LazyTensor]:
    """The tensors of all files; raises `WeightsError` if two files have a tensor of the same name."""
    merged: dict[str, LazyTensor] = {}
    for file, tensors in shards:
        if repeated := merged.keys() & tensors.keys():
            raise WeightsError(
                f"{file} contains {min(repeated)}, which another shard contains as well. Download all files again."
            )
        merged |= tensors
    return merged


def files_of_index(index: Path) -> list[Path]:
    """The shards that an index in Hugging Face's format lists, without duplicates; raises `WeightsError`."""
    try:
        files = load_json(index.read_text(encoding="utf-8"))["weight_map"]
        names = sorted({str(name) for name in files.values()})
    except (ValueError, KeyError, TypeError, AttributeError):
        raise WeightsError(f"{index} is not an index of weights. Download it again.") from None
    for name in names:
        if Path(name).name != name:  # an index must not refer to files outside its folder
            raise WeightsError(f"{index} refers to {name!r}, which is not in its folder. Download it again.")
    return [index.parent / name for name in names]


class _Slice(Protocol):
    def get_shape(self) -> list[int]: ...

    def __getitem__(self, rows: slice, /) -> Tensor: ...


class _OpenFile(Protocol):
    """What is used of `safetensors.safe_open`, which has no types."""

    def __enter__(self) -> _OpenFile: ...

    def __exit__(self, *details: object) -> None: ...

    def keys(self) -> list[str]: ...

    def get_slice(self, name: str) -> _Slice: ...

    def get_tensor(self, name: str) -> Tensor: ...


@dataclass(frozen=True)
class _SafetensorsTensor:
    file: Path
    name: str
    shape: Sequence[int]

    def __getitem__(self, rows: slice, /) -> Tensor:
        # Reopened for each slice: an open file keeps every page that was read mapped into this process.
        with _open(self.file) as file:
            return file.get_slice(self.name)[rows] if self.shape else file.get_tensor(self.name)


@contextmanager
def _open(file: Path) -> Generator[_OpenFile]:
    with utf8_name(file) as name, cast(_OpenFile, safetensors.safe_open(name, framework="pt")) as opened:
        yield opened


def _tensors_of(file: Path) -> Iterator[tuple[str, LazyTensor]]:
    try:
        with _open(file) as opened:
            for name in opened.keys():  # noqa: SIM118 - not a mapping
                yield name, _SafetensorsTensor(file, name, tuple(opened.get_slice(name).get_shape()))
    except FileNotFoundError:
        raise WeightsError(f"{file} is missing. Download all files of the model again.") from None
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{file} cannot be read: {error}. Use another copy.") from None
