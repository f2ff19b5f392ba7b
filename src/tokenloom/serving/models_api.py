"""Models over HTTP: which there are, which of them are in memory, and their shapes."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from tokenloom.config import ModelConfig
from tokenloom.model.flops import count_parameters
from tokenloom.serving.models import MemoryUse, ModelRef
from tokenloom.serving.reading import read_reply
from tokenloom.serving.run_replies import ModelConfigReply, StoredModelsReply
from tokenloom.serving.services import services_of

router = APIRouter(prefix="/api", tags=["models"])


@router.get("/models", response_model=StoredModelsReply)
async def list_models(request: Request) -> Response:
    """Every model and checkpoint, and which of them are in memory, the least recently used first."""
    services = services_of(request)

    def read() -> object:
        store = services.store
        refs, uses = store.list(), store.in_memory()
        sizes = {use.path: use.bytes for use in uses}
        by_path = {ref.path: ref for ref in refs}  # of the ids of the same weights, the last one names the step
        return {
            "models": [{**model_json(ref), "memory_bytes": sizes.get(ref.path)} for ref in refs],
            "in_memory": [_memory_json(use, by_path.get(use.path)) for use in uses],
            "memory_bytes": sum(use.bytes for use in uses),
            "memory_budget_bytes": store.memory_budget_bytes,
            "device": str(store.runtime.device),
            "precision": store.quantize or store.runtime.precision,
        }

    return await read_reply(services, read)


@router.get("/models/{id:path}", response_model=ModelConfigReply)
async def read_model(request: Request, id: str) -> Response:
    """A model with its configuration, and its shape, in which defaults are filled in."""
    services = services_of(request)

    def read() -> object:
        ref = services.store.resolve(id)
        config = services.store.config(ref)
        return {**model_json(ref), "config": config.model_dump(mode="json"), "shape": _shape_json(config)}

    return await read_reply(services, read)


def model_json(ref: ModelRef) -> dict[str, object]:
    """A model as the lists have it."""
    return {"id": ref.id, "name": ref.name, "run": ref.run, "step": ref.step, "created": ref.created}


def _memory_json(use: MemoryUse, ref: ModelRef | None) -> dict[str, object]:
    """A model in memory; the id is null if its files were removed."""
    id, name = (None, use.path.name) if ref is None else (ref.id, ref.name)
    return {"id": id, "name": name, "memory_bytes": use.bytes, "users": use.users}


def _shape_json(config: ModelConfig) -> dict[str, object]:
    return {
        "family": config.family,
        "layers": config.n_layer,
        "heads": config.n_head,
        "kv_heads": config.kv_heads,
        "head_width": config.head_size,
        "width": config.n_embd,
        "mlp_width": config.mlp_width,
        "context": config.block_size,
        "vocabulary": config.vocabulary,
        "parameters": count_parameters(config),
    }
