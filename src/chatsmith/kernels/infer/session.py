"""A decoder in the kernels' hands: weights by pointer, one call per step. No torch."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Mapping, Sequence
from ctypes import POINTER, Structure, byref, c_double, c_int, c_int64, c_void_p
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chatsmith.errors import RequestError, WorkError
from chatsmith.kernels.infer import build
from chatsmith.kernels.infer.matrix import KINDS, Floats, Kind, Matrix
from chatsmith.specs import ModelSpec

BLOCK = 32
"""Positions in a block of the cache."""
MOST_BLOCKS = 2**20
# Memory is taken as it is written; Python 3.11 and 3.12 do not know the word for not even promising it before.
_MAPPING = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)
_ACTIVATIONS = {"gelu_tanh": 1, "gelu": 2, "swiglu": 3}


class _Matrix(Structure):
    _fields_ = [
        *((name, c_int64) for name in ("kind", "outputs", "inputs", "depth", "group")),
        *((name, c_void_p) for name in ("weight", "scale", "zero", "factor", "bias")),
    ]


class _Norm(Structure):
    _fields_ = [("gain", c_void_p), ("bias", c_void_p)]


class _Layer(Structure):
    _fields_ = [
        *((name, _Norm) for name in ("attention_norm", "ffn_norm")),
        *((name, c_void_p) for name in ("query_gain", "key_gain")),
        *((name, _Matrix) for name in ("qkv", "output", "up", "down")),
        ("band", c_int64),
    ]


class _Decoder(Structure):
    _sizes = ("width", "layers", "heads", "kv_heads", "head_dim", "ffn_width", "vocabulary", "context")
    _fields_ = [
        *((name, c_int64) for name in (*_sizes, "activation", "cache", "blocks", "groups")),
        ("epsilon", c_double),
        *((name, c_void_p) for name in ("cosine", "sine")),
        *((name, _Matrix) for name in ("embed", "positions", "head")),
        ("norm", _Norm),
        ("layer", POINTER(_Layer)),
    ]


class _Step(Structure):
    _fields_ = [
        *((name, c_int64) for name in ("rows", "sequences", "wanted", "table_stride")),
        *((name, c_void_p) for name in ("ids", "positions", "starts", "tables", "want", "logits", "states", "cache")),
    ]


@lru_cache(maxsize=1)
def _functions() -> ctypes.CDLL:
    library = build.library()
    if library is None:
        raise RequestError(f"the native backend is not available: {build.status()}", 'use backend="torch"')
    library.session_new.argtypes, library.session_new.restype = [POINTER(_Decoder), c_int], c_void_p
    library.session_free.argtypes, library.session_free.restype = [c_void_p], None
    library.session_step.argtypes, library.session_step.restype = [c_void_p, POINTER(_Step)], c_int
    library.session_block_bytes.argtypes, library.session_block_bytes.restype = [POINTER(_Decoder)], c_int64
    return library


def read_rate(nbytes: int = 2**28, threads: int = 1, rounds: int = 3) -> float:
    """The best rate of reading memory in bytes/s, by the means that the kernels use."""
    read = _functions().read_rate
    read.argtypes, read.restype = [c_int64, c_int, c_int], c_double
    return float(read(nbytes >> 20 << 20, threads, rounds))


Part = Matrix | NDArray[Any]


class Session:
    """One decoder, its cache, and its own threads.

    The cache has as many blocks as take `cache_bytes`, at least `blocks` and at most MOST_BLOCKS; memory is touched as
    they are used. A block holds positions of one group of layers (`ModelSpec.bands`). `cache` is what keys and values
    are kept in: f32, bf16 or int8, with a scale for each head and position.

    `parts` are matrices and vectors by name: embed (where not tied), positions (where learned), head; norm.weight and
    norm.bias; blocks.N. before attention_norm, ffn_norm (.weight, .bias), attention.query_norm and .key_norm (.weight),
    and the matrices attention.qkv, attention.output, ffn.up (gated: panels of gate and up in turn) and ffn.down with
    their `.bias`. Vectors are float32. `angles` are the cosine and sine of rotary positions, [context, head_dim / 2].
    """

    def __init__(
        self,
        spec: ModelSpec,
        parts: Mapping[str, Part],
        *,
        angles: tuple[Floats, Floats] | None,
        cache: Kind,
        blocks: int,
        cache_bytes: int = 0,
        threads: int,
    ) -> None:
        if cache not in ("f32", "bf16", "int8"):
            raise RequestError(f"keys and values cannot be kept in {cache}", "choose f32, bf16 or int8")
        self.spec = spec
        self._held: list[Any] = []
        self._library = _functions()
        layers = (_Layer * spec.layers)()
        for number, layer in enumerate(layers):
            self._fill_layer(layer, parts, f"blocks.{number}.", spec.layer_band(number) or 0)
        decoder = _Decoder(
            spec.width, spec.layers, spec.heads, spec.kv_heads, spec.head_dim, spec.ffn_width, spec.vocab_size,
            spec.context, _ACTIVATIONS[spec.activation], KINDS.index(cache), 0, len(spec.bands),
            spec.norm_epsilon, *([self._pointer(table) for table in angles] if angles else [None, None]),
            self._matrix(parts, "head" if spec.tied else "embed"),
            self._matrix(parts, "positions") if spec.positions == "learned" else _Matrix(),
            self._matrix(parts, "head"), self._norm(parts, "norm"), layers,
        )  # fmt: skip
        self._held.append(layers)
        self.block_bytes = int(self._library.session_block_bytes(byref(decoder)))
        self.blocks = decoder.blocks = min(max(cache_bytes // self.block_bytes, blocks), MOST_BLOCKS)
        try:
            self._map = mmap.mmap(-1, self.blocks * self.block_bytes, _MAPPING)
        except OSError as error:
            raise WorkError(f"there is no room for a cache of {self.blocks} blocks: {error.strerror}") from None
        self._cache: NDArray[np.uint8] = np.frombuffer(self._map, np.uint8)
        self._session = self._library.session_new(byref(decoder), threads)
        if not self._session:
            raise WorkError("there is no memory to begin a session of the native backend")

    def step(
        self,
        ids: NDArray[np.int32],
        positions: NDArray[np.int32],
        starts: NDArray[np.int32],
        tables: NDArray[np.int32],
        wanted: NDArray[np.int32],
        *,
        states: bool = False,
    ) -> Floats:
        """Feed rows and give the logits [n, V] after the `wanted` ones; or the states [n, E] after the last norm.

        `ids` and `positions` [R]: rows starts[s] … starts[s + 1] − 1 are the next of sequence s, whose position p lies
        in block tables[g, s, p // BLOCK] for the layers of group g (`ModelSpec.bands`). A row sees its own sequence up
        to itself. Its logits are the same bits whatever other rows there are, and wherever a prompt is cut.
        """
        found = np.empty((len(wanted), self.spec.width if states else self.spec.vocab_size), np.float32)
        arrays = [np.ascontiguousarray(array, np.int32) for array in (ids, positions, starts, tables, wanted)]
        held = (len(self.spec.bands), len(starts) - 1)
        if arrays[1].shape != (len(ids),) or len(starts) < 2 or tables.ndim != 3 or tables.shape[:2] != held:
            raise RequestError("ids, positions, starts and tables of a step do not belong together")
        at = [array.ctypes.data for array in arrays]
        sizes = (len(ids), len(starts) - 1, len(wanted), tables.shape[2])
        out = (None, found.ctypes.data) if states else (found.ctypes.data, None)
        request = _Step(*sizes, *at, *out, self._cache.ctypes.data)
        code = self._library.session_step(self._session, byref(request))
        if code == 1:
            raise RequestError("a step has an id, position, block or row outside its bounds")
        if code:
            raise WorkError(f"there is no memory for a step of {len(ids)} rows")
        return found

    def copy_block(self, source: int, target: int) -> None:
        """Make one block of the cache equal another."""
        size = self.block_bytes
        self._cache[target * size : (target + 1) * size] = self._cache[source * size : (source + 1) * size]

    def close(self) -> None:
        """Let the threads and the memory go."""
        if self._session:
            self._library.session_free(self._session)
            self._session = None

    def __del__(self) -> None:
        if getattr(self, "_session", None):
            self.close()

    def _pointer(self, array: NDArray[Any]) -> int:
        if not array.flags.c_contiguous:
            raise RequestError("the kernels need contiguous arrays")
        self._held.append(array)
        return int(array.ctypes.data)

    def _vector(self, parts: Mapping[str, Part], name: str) -> int | None:
        found = parts.get(name)
        return None if found is None else self._pointer(np.ascontiguousarray(found, np.float32))

    def _norm(self, parts: Mapping[str, Part], name: str) -> _Norm:
        return _Norm(self._vector(parts, name + ".weight"), self._vector(parts, name + ".bias"))

    def _matrix(self, parts: Mapping[str, Part], name: str) -> _Matrix:
        found = parts[name]
        assert isinstance(found, Matrix)
        sizes = (KINDS.index(found.kind), found.outputs, found.inputs, found.depth, found.group)
        arrays: Sequence[NDArray[Any] | None] = (found.weight, found.scale, found.zero, found.factor)
        pointers = [None if array is None else self._pointer(array) for array in arrays]
        return _Matrix(*sizes, *pointers, self._vector(parts, name + ".bias"))

    def _fill_layer(self, layer: _Layer, parts: Mapping[str, Part], prefix: str, band: int) -> None:
        layer.attention_norm = self._norm(parts, prefix + "attention_norm")
        layer.ffn_norm = self._norm(parts, prefix + "ffn_norm")
        layer.query_gain = self._vector(parts, prefix + "attention.query_norm.weight")
        layer.key_gain = self._vector(parts, prefix + "attention.key_norm.weight")
        for name in ("attention.qkv", "attention.output", "ffn.up", "ffn.down"):
            setattr(layer, name.partition(".")[2], self._matrix(parts, prefix + name))
        layer.band = band
