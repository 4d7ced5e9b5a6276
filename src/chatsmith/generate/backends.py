"""Which backend computes a model folder: native where it serves, else torch. torch is loaded only when it is needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from chatsmith.errors import RequestError
from chatsmith.generate.backend import CACHE_BYTES, Backend, CacheKind
from chatsmith.kernels.infer import build
from chatsmith.kernels.infer.session import Part
from chatsmith.machine import may_have_gpu
from chatsmith.specs import ModelSpec
from chatsmith.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    import torch

    from chatsmith.models.decoder import Decoder

BackendKind = Literal["native", "torch"]
"""What computes a model folder, where there is a choice."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A model folder, ready to compute; `model` is there where torch computes."""

    backend: Backend
    tokenizer: Tokenizer
    generation: dict[str, Any]
    provenance: dict[str, Any]
    model: Decoder | None


def open_folder(
    folder: Path,
    *,
    backend: BackendKind | None = None,
    device: torch.device | str | None = None,
    dtype: Any = None,
    cache: CacheKind | None = None,
    cache_bytes: int = CACHE_BYTES,
) -> Opened:
    """Open a model folder on the backend that is asked for, or on the best: a GPU, else native, else torch on the CPU.

    On a GPU, weights in bfloat16 or float16 are computed by kernels of our own, others by torch.

    The native backend computes on the CPU, in the numbers that the weights are stored in: `dtype` is torch's to follow.
    Keys and values take at most `cache_bytes`, but one whole context always fits; `cache` is what the native backend
    keeps them in, if not what suits the weights.
    """
    if backend is None:
        asked = dtype is not None or (device is not None and str(device) != "cpu")
        elsewhere = asked or (device is None and may_have_gpu() and _gpu())
        backend = "torch" if elsewhere or build.library() is None else "native"
    elif backend == "native" and (dtype is not None or (device is not None and str(device) != "cpu")):
        raise RequestError("the native backend computes on the CPU, in the numbers that are stored", "leave them out")
    if backend == "native":
        return _native(folder, cache, cache_bytes)
    _only_native(cache)
    if backend == "torch":
        return _torch(folder, device, dtype, cache_bytes)
    raise RequestError(f"there is no backend {backend!r}", "choose native or torch")


def backend_of(
    spec: ModelSpec, parts: Mapping[str, Part], *, cache: CacheKind | None = None, cache_bytes: int = CACHE_BYTES
) -> Backend:
    """What computes packed parts (`store.packing`) on the CPU: native where it serves, else torch in float32."""
    if build.library() is not None:
        from chatsmith.generate.native import NativeBackend

        return NativeBackend(spec, parts, cache=cache, cache_bytes=cache_bytes)
    _only_native(cache)
    from chatsmith.generate.rows import lay_across
    from chatsmith.generate.torch_backend import TorchBackend
    from chatsmith.store.folder import decoder_of
    from chatsmith.store.packing import unpacked

    model = decoder_of(spec, unpacked(spec, parts))
    lay_across(model)
    return TorchBackend(model, cache_bytes=cache_bytes)


def _only_native(cache: CacheKind | None) -> None:
    if cache is not None:
        raise RequestError(f"only the native backend keeps keys and values in {cache}", "leave it out")


def _native(folder: Path, cache: CacheKind | None, cache_bytes: int) -> Opened:
    from chatsmith.generate.native import NativeBackend
    from chatsmith.store.parts import load_parts

    loaded = load_parts(folder)
    backend = NativeBackend(loaded.spec, loaded.parts, cache=cache, cache_bytes=cache_bytes)
    return Opened(backend, loaded.tokenizer, loaded.generation, loaded.provenance, None)


def _torch(folder: Path, device: torch.device | str | None, dtype: Any, cache_bytes: int) -> Opened:
    import torch

    from chatsmith.generate.rows import lay_across
    from chatsmith.generate.torch_backend import TorchBackend
    from chatsmith.kernels.gpu import door
    from chatsmith.models.devices import device_of, dtype_of
    from chatsmith.store.folder import load_model

    device = device_of(device)
    loaded = load_model(folder, device=device, dtype=dtype_of(dtype))
    if device.type == "cpu" and loaded.model.dtype == torch.float32:
        lay_across(loaded.model)
    computing: Backend
    if door.generates(loaded.model.embed.weight):
        from chatsmith.generate.gpu import GPUBackend

        computing = GPUBackend(loaded.model, cache_bytes=cache_bytes)
    else:
        computing = TorchBackend(loaded.model, cache_bytes=cache_bytes)
    return Opened(computing, loaded.tokenizer, loaded.generation, loaded.provenance, loaded.model)


def _gpu() -> bool:
    import torch

    return torch.cuda.is_available()
