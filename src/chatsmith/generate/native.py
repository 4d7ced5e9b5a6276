"""The native backend: decoders on the CPU, by the kernels of generation. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from chatsmith.errors import RequestError
from chatsmith.generate.backend import CACHE_BYTES, CacheKind, Floats, Step
from chatsmith.kernels.infer import build
from chatsmith.kernels.infer.matrix import Matrix
from chatsmith.kernels.infer.session import BLOCK, Part, Session
from chatsmith.machine import usable_cores
from chatsmith.models import rotary
from chatsmith.specs import ModelSpec

STEP_TOKENS = 512
"""Of prompts, while nobody answers: more at a time read the weights less often, and make whoever comes next wait."""


class NativeBackend:
    """A decoder and its cache in the kernels' hands; see `Backend`.

    `parts` are the packed weights by name (`store.packing`); `cache_bytes` is the most that keys and values may take
    (but one whole context always fits), and memory is used only as blocks are. `cache` is what they are kept in: by
    default float32 for weights in float32, else bfloat16. Logits are the same bits for any number of `threads` (all
    cores by default).
    """

    block_size = BLOCK
    step_tokens = STEP_TOKENS
    version = 0
    """The weights never change."""

    def __init__(
        self,
        spec: ModelSpec,
        parts: Mapping[str, Part],
        *,
        cache: CacheKind | None = None,
        cache_bytes: int = CACHE_BYTES,
        threads: int | None = None,
    ) -> None:
        self.spec, self.bands = spec, spec.bands
        least = len(spec.bands) * -(-spec.context // BLOCK)
        angles = rotary.angles(spec, spec.context) if spec.positions == "rotary" else None
        self.threads = usable_cores() if threads is None else threads
        kinds = {name: part.kind for name, part in parts.items() if isinstance(part, Matrix)}
        self._session = Session(
            spec,
            parts,
            angles=angles,
            cache=cache or ("f32" if kinds["head"] == "f32" else "bf16"),
            blocks=least,
            cache_bytes=cache_bytes,
            threads=self.threads,
        )
        self.blocks = self._session.blocks
        weights = next(kind for name, kind in kinds.items() if name.startswith("blocks."))
        self.name = f"native on {build.status()} in {weights}" + ("" if cache is None else f", cache in {cache}")

    def logits(self, step: Step) -> Floats:
        """Compute a step; logits [R, V] of the wanted rows."""
        return self._session.step(step.ids, step.positions, step.starts, step.tables, step.wanted)

    def hidden(self, step: Step) -> Floats:
        """Compute a step; the states after the last norm [R, E] of the wanted rows."""
        return self._session.step(step.ids, step.positions, step.starts, step.tables, step.wanted, states=True)

    def copy(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy whole blocks, each (from, to)."""
        for source, target in pairs:
            if not (0 <= source < self.blocks and 0 <= target < self.blocks):
                raise RequestError(f"there is no block {max(source, target)}: the cache has {self.blocks}")
            self._session.copy_block(source, target)
