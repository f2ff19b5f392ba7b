"""The models of the server: found by their ids, loaded once, and dropped when the memory for them is used up."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from torch import Tensor, nn

from tokenloom.compute.runtime import Runtime, available_memory, choose_runtime
from tokenloom.config import ModelConfig
from tokenloom.errors import CheckpointError, TokenloomError
from tokenloom.generation.inference_weights import copy_for_inference
from tokenloom.model.flops import count_parameters
from tokenloom.run_folder import RunFolder
from tokenloom.serving.catalog import Catalog, ModelRef, Version
from tokenloom.serving.errors import ModelNotFound, RequestError
from tokenloom.weights.checkpoint import MANIFEST, find_corruption
from tokenloom.weights.folder import read_folder
from tokenloom.weights.load import LoadedModel, resolve_model

__all__ = ["AcquiredModel", "MemoryUse", "ModelNotFound", "ModelRef", "ModelStore"]

# Without a memory budget, idle models may use this share of the memory that is free when the server starts.
_MEMORY_SHARE = 0.5


@dataclass(frozen=True)
class MemoryUse:
    """A model in memory."""

    path: Path
    bytes: int
    users: int


class AcquiredModel:
    """A model that stays in memory until it is released, which is also done by leaving its context."""

    def __init__(self, ref: ModelRef, loaded: LoadedModel, store: ModelStore, version: Version) -> None:
        self.ref = ref
        """What was loaded; its path differs from that of the reference if a checkpoint was replaced meanwhile."""
        self.loaded = loaded
        """The model with its tokenizer, in evaluation mode; `loaded.model` has the prepacked matrices of generation."""
        self._store: ModelStore | None = store
        self._version = version

    def release(self) -> None:
        """Let the store drop the model; does nothing the second time."""
        store, self._store = self._store, None
        if store is not None:
            store._release(self._version)  # pyright: ignore[reportPrivateUsage]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()


@dataclass
class _Cached:
    """A version of a model: loaded by the first user, while the others wait."""

    loading: threading.Lock = field(default_factory=threading.Lock)
    loaded: LoadedModel | None = None
    error: Exception | None = None
    bytes: int = 0
    users: int = 0


class ModelStore:
    """The models and runs that a server offers; `models` are references as on the command line.

    Models that nobody uses stay in memory, up to `memory_bytes` together with those in use (None: half of the memory
    that is free now); the least recently used are dropped first. A model in use is never dropped, so a budget smaller
    than the models in use is exceeded. Thread-safe. `acquire` blocks while a model is loaded, for seconds; the other
    methods read folders only.

    Raises `CheckpointError` if a model does not exist.
    """

    def __init__(
        self,
        models: Sequence[str | Path],
        runs: Path | None = None,
        memory_bytes: int | None = None,
        *,
        runtime: Runtime | None = None,
        quantize: str | None = None,
    ) -> None:
        self._catalog = Catalog(models, runs)
        self.runtime = runtime or choose_runtime("auto", "fp32")
        self.quantize = quantize
        self.memory_budget_bytes = (
            int(_MEMORY_SHARE * available_memory(self.runtime.device)) if memory_bytes is None else memory_bytes
        )
        self._lock = threading.Lock()
        self._cached: OrderedDict[Version, _Cached] = OrderedDict()  # the most recently used last
        self._configs: dict[Version, ModelConfig] = {}

    def list(self) -> list[ModelRef]:
        """Every model and checkpoint that is on disk now; the first is that of requests that name none."""
        return self._catalog.list()

    def resolve(self, id: str | None) -> ModelRef:
        """The model with this id, or the first one for None; raises `ModelNotFound`, naming what remains."""
        return self._catalog.resolve(id)

    def runs(self) -> Mapping[str, RunFolder]:
        """The runs by their ids, those without a checkpoint included."""
        return self._catalog.runs()

    def config(self, ref: ModelRef) -> ModelConfig:
        """The configuration of a model, which need not be loaded.

        If a checkpoint was removed since it was resolved, that of the next one, as in `acquire`; raises `ModelNotFound`
        if there is none.
        """
        try:
            version = Version.of(ref.path)
            if version not in self._configs:
                stored = (
                    read_folder(ref.path) if (ref.path / MANIFEST).exists() else resolve_model(str(ref.path)).stored
                )
                self._configs[version] = stored.config
            return self._configs[version]
        except (CheckpointError, OSError):
            found = self._catalog.resolve(ref.id)
            if found.path != ref.path:
                return self.config(found)
            raise ModelNotFound(f'the model "{ref.id}" was removed or is corrupt. List the models again.') from None

    def acquire(self, ref: ModelRef) -> AcquiredModel:
        """The model, loaded, until it is released; threads that ask for the same weights load them once.

        If a checkpoint was removed since it was resolved, or its content is corrupt, RUN, RUN@best and RUN@first stand
        for the next one; a pinned step raises `ModelNotFound`. Raises `RequestError` (503) if another model cannot be
        loaded, or a checkpoint that is intact.
        """
        while True:
            version: Version | None = None
            try:
                version = Version.of(ref.path)
                return AcquiredModel(ref, self._acquire(version), self, version)
            except (OSError, TokenloomError) as error:
                if _is_intact(version) if ref.run is not None else ref.path.exists():
                    raise RequestError(f'the model "{ref.id}" cannot be loaded: {error}', status=503) from error
                if version is not None:
                    self._catalog.exclude(version)
                ref = self._catalog.resolve(ref.id)

    def in_memory(self) -> list[MemoryUse]:
        """The models in memory, the least recently used first."""
        with self._lock:
            return [
                MemoryUse(version.path, cached.bytes, cached.users)
                for version, cached in self._cached.items()
                if cached.loaded is not None
            ]

    def _acquire(self, version: Version) -> LoadedModel:
        with self._lock:
            cached = self._cached.setdefault(version, _Cached())
            self._cached.move_to_end(version)
            cached.users += 1
        try:
            with cached.loading:
                if cached.error is not None:
                    raise cached.error
                if cached.loaded is None:
                    try:
                        self._load(version.path, cached)
                    except Exception as error:
                        cached.error = error  # for those that wait; the next request tries again
                        raise
                assert cached.loaded is not None
                loaded = cached.loaded
        except BaseException:
            with self._lock:
                cached.users -= 1
                if self._cached.get(version) is cached and cached.users == 0:
                    del self._cached[version]
            raise
        self._drop_idle()
        return loaded

    def _load(self, path: Path, cached: _Cached) -> None:
        resolved = resolve_model(str(path))
        itemsize = 1 if self.quantize else self.runtime.dtype.itemsize
        self._drop_idle(needed=count_parameters(resolved.stored.config) * itemsize)
        model = copy_for_inference(resolved.stored.read(), self.runtime, self.quantize)
        cached.bytes = _memory_of(model)
        cached.loaded = LoadedModel(model, resolved.tokenizer, resolved.path, resolved.notices)

    def _release(self, version: Version) -> None:
        with self._lock:
            self._cached[version].users -= 1
        self._drop_idle()

    def _drop_idle(self, needed: int = 0) -> None:
        """Drop models that nobody uses: those whose files are gone, and the least recently used above the budget."""
        with self._lock:
            total = needed + sum(cached.bytes for cached in self._cached.values())
            for version, cached in list(self._cached.items()):
                if cached.users == 0 and (total > self.memory_budget_bytes or not version.path.exists()):
                    del self._cached[version]
                    total -= cached.bytes


def _is_intact(version: Version | None) -> bool:
    """Whether a checkpoint is still there and whole, so that something else failed, such as opening one file more."""
    try:
        return version is not None and Version.of(version.path) == version and find_corruption(version.path) is None
    except FileNotFoundError:  # it is being removed
        return False
    except OSError:
        return version is not None and version.path.exists()


def _memory_of(model: nn.Module) -> int:
    """Bytes of all tensors of a model, each counted once; prepacked matrices are attributes, not parameters."""
    attributes = (value for module in model.modules() for value in vars(module).values())
    tensors = [*model.parameters(), *model.buffers(), *(value for value in attributes if isinstance(value, Tensor))]
    return sum(tensor.numel() * tensor.element_size() for tensor in {id(tensor): tensor for tensor in tensors}.values())
