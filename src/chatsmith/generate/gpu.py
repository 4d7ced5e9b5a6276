"""The backend for decoders on a GPU: its own kernels, a decode step as one CUDA graph, and the choice made there, too.

A step that only goes on with answers, one token each, is replayed as a graph for the next larger number of rows from
1, 2, 4, 8, …; the rows beyond belong to nobody. Other steps launch the same kernels one by one. What a step needs goes
to the device in one copy, and what was chosen comes back in one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from chatsmith.generate.backend import CACHE_BYTES, Draws, Floats, Ints, Step
from chatsmith.kernels.gpu.decoder import BLOCK, GPUDecoder, Layer, Norm, Places, Weights
from chatsmith.models.decoder import Block, Decoder
from chatsmith.models.layers import LayerNorm, Linear, RMSNorm
from chatsmith.specs import ModelSpec

_MOST_IN_A_GRAPH = 128


class GPUBackend:
    """A decoder on a GPU; see `Backend`, and `Chooser`. The weights of `model` are not to change.

    Keys and values take at most `cache_bytes`, but one whole context always fits.
    """

    block_size = BLOCK
    step_tokens = 512
    version = 0

    def __init__(self, model: Decoder, *, cache_bytes: int = CACHE_BYTES, graphs: bool = True) -> None:
        spec = self.spec = model.spec
        self.bands = spec.bands
        self._most = self.step_tokens + _MOST_IN_A_GRAPH
        self._device, self._graphs = model.device, graphs and model.device.type == "cuda"
        layers = -(-spec.layers // len(spec.bands))
        per_block = 2 * layers * spec.kv_heads * spec.head_dim * BLOCK * model.dtype.itemsize
        self._width = -(-spec.context // BLOCK) + 1  # blocks of one sequence, at most
        self.blocks = max(cache_bytes // per_block, len(spec.bands) * self._width)
        leap = self._graphs and torch.cuda.get_device_capability(self._device) >= (9, 0)
        with torch.inference_mode():
            weights = _weights(model)
            self.decoder = GPUDecoder(spec, weights, self.blocks, self._most, leap=leap)
        kind = str(model.dtype).removeprefix("torch.")
        self.name = f"own kernels on {self._device.type} in {kind}"
        self._recorded: dict[tuple[int, bool], _Replay] = {}

    def logits(self, step: Step) -> Floats:
        """Compute a step; logits [R, V] of the wanted rows."""
        parts = [self._logits(part) for part in self._parts(step)]
        return np.concatenate(parts) if len(parts) > 1 else parts[0]

    @torch.inference_mode()
    def _logits(self, step: Step) -> Floats:
        if self._alone(step) and self._graphs:
            return self._replay(step).logits[: len(step.ids)].float().cpu().numpy()
        states = self._states(step)
        logits = states.new_empty(len(states), self.spec.vocab_size, dtype=torch.float32)
        if len(states):
            self.decoder.logits(states, logits)
        found: Floats = logits.cpu().numpy()
        return found

    @torch.inference_mode()
    def hidden(self, step: Step) -> Floats:
        """Compute a step; the states after the last norm [R, E] of the wanted rows."""
        return np.concatenate([self._states(part).float().cpu().numpy() for part in self._parts(step)])

    @torch.inference_mode()
    def choose(self, step: Step, draws: Draws, shown: bool) -> tuple[NDArray[np.int64], Floats, Floats | None]:
        """Compute a step; the tokens [M] that `draws` asks for; see `Chooser`."""
        n = len(step.ids)
        each = len(draws.rows) == n and draws.rows.tolist() == list(range(n))
        if self._graphs and self._alone(step) and each and not shown:
            return *self._replay(step, draws).found(n), None
        states = torch.cat([self._states(part).clone() for part in self._parts(step)])
        logits = states.new_empty(len(states), self.spec.vocab_size, dtype=torch.float32)
        self.decoder.logits(states, logits)
        rows, keys, temperatures = (
            torch.from_numpy(part).to(self._device)
            for part in (draws.rows, draws.keys.view(np.int64), draws.temperatures)
        )
        tokens = torch.empty(len(rows), dtype=torch.int32, device=self._device)
        logprobs = torch.empty(len(rows), dtype=torch.float32, device=self._device)
        self.decoder.choose(logits[rows], keys, temperatures, tokens, logprobs, draws.vocabulary)
        found: Floats | None = logits.cpu().numpy() if shown else None
        return tokens.cpu().numpy().astype(np.int64), logprobs.cpu().numpy(), found

    @torch.inference_mode()
    def copy(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy whole blocks, each (from, to)."""
        if pairs:
            self.decoder.copy(*(torch.tensor(side, device=self._device) for side in zip(*pairs, strict=True)))

    def replay(self, step: Step, draws: Draws) -> Callable[[], None]:
        """What `choose` has the device do for a step of single tokens, to be done again and again: for timing it."""
        found: Callable[[], None] = self._replay(step, draws).graph.replay
        return found

    # ---- a step, kernel by kernel ----------------------------------------------------------------------------------

    def _parts(self, step: Step) -> Iterator[Step]:
        """The step, in parts that the buffers hold."""
        N = len(step.ids)
        for start in range(0, N, self._most):
            yield step if self._most >= N else step.cut(start, min(start + self._most, N))

    def _alone(self, step: Step) -> bool:
        """Whether every sequence has one new token, whose numbers are wanted."""
        n = len(step.ids)
        return n == len(step.starts) - 1 == len(step.wanted) and n <= _MOST_IN_A_GRAPH

    def _states(self, step: Step) -> Tensor:
        """The states [R, E] of the wanted rows, where the next pass writes others."""
        n = len(step.ids)
        owners = np.repeat(np.arange(len(step.starts) - 1, dtype=np.int32), np.diff(step.starts))
        sent = self._send(step.ids, step.positions, owners, step.wanted, step.tables)
        at = Places(sent[0], sent[1], sent[2], sent[4])
        self.decoder.run(at, n == len(step.starts) - 1)
        everything = len(step.wanted) == n
        wanted = len(step.wanted)
        return self.decoder.states(None if everything else sent[3], wanted) if wanted else self.decoder.nothing

    def _send(self, *arrays: Ints) -> list[Tensor]:
        """Arrays of int32 on the device, by one copy."""
        whole = torch.from_numpy(np.concatenate([array.ravel() for array in arrays])).to(self._device)
        parts = whole.split([array.size for array in arrays])
        return [part.view(array.shape) for part, array in zip(parts, arrays, strict=True)]

    # ---- a step as one graph ---------------------------------------------------------------------------------------

    def _replay(self, step: Step, draws: Draws | None = None) -> _Replay:
        """The graph of a step of single tokens, which has run; with `draws` it chooses from each row."""
        rows = 1 << (len(step.ids) - 1).bit_length()
        key = (rows, draws is not None)
        if key not in self._recorded:
            vocabulary = None if draws is None else draws.vocabulary
            self._recorded[key] = _Replay(self.decoder, rows, self.blocks, self._width, vocabulary)
        replay = self._recorded[key]
        replay.fill(step, draws)
        replay.graph.replay()
        return replay


class _Replay:
    """A recorded step of so many rows: buffers that stay where they are, and the graph over them.

    It chooses a token of the `vocabulary` for each row, unless that is None.
    """

    def __init__(self, decoder: GPUDecoder, rows: int, nobody: int, width: int, vocabulary: int | None) -> None:
        device, groups = decoder.cache.device, len(decoder.spec.bands)
        self._rows, self._nobody = rows, nobody
        sizes = (2 * rows, rows, rows, rows, rows, groups * rows * width)  # the keys first: they take two places each
        self._sent = torch.zeros(sum(sizes), dtype=torch.int32).pin_memory()
        self._there = torch.zeros(sum(sizes), dtype=torch.int32, device=device)
        self._host = [part.numpy() for part in self._sent.split(sizes)]
        keys, temperatures, ids, positions, owners, tables = self._there.split(sizes)
        self._host[4][:] = np.arange(rows)
        self._tables = self._host[5].reshape(groups, rows, width)
        self._tables[:] = nobody
        at = Places(ids, positions, owners, tables.view(groups, rows, width))
        self.logits = torch.empty(rows, decoder.spec.vocab_size, dtype=torch.float32, device=device)
        self._answer = torch.zeros(2, rows, dtype=torch.int32, device=device)
        self._back = torch.zeros(2, rows, dtype=torch.int32).pin_memory()

        def work() -> None:
            self._there.copy_(self._sent, non_blocking=True)
            decoder.run(at, True)
            decoder.logits(decoder.states(None, rows), self.logits)
            if vocabulary is not None:
                chosen, logprobs = self._answer[0], self._answer[1].view(torch.float32)
                warm = temperatures.view(torch.float32)
                decoder.choose(self.logits, keys.view(torch.int64), warm, chosen, logprobs, vocabulary)
                self._back.copy_(self._answer, non_blocking=True)

        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            work()  # compiles
        torch.cuda.current_stream(device).wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            work()

    def fill(self, step: Step, draws: Draws | None) -> None:
        """Put a step where the graph reads it. The rows that were used before and are not now belong to nobody."""
        n, held = len(step.ids), step.tables.shape[2]
        _, _, ids, positions, _, _ = self._host
        ids[:n], positions[:n], positions[n:] = step.ids, step.positions, 0
        self._tables[:, :n, :held] = step.tables
        self._tables[:, n:, 0] = self._nobody
        if draws is not None:
            self._host[0].view(np.uint64)[:n] = draws.keys
            self._host[1].view(np.float32)[:n] = draws.temperatures

    def found(self, n: int) -> tuple[NDArray[np.int64], Floats]:
        """What was chosen in the first rows, once it is there."""
        torch.cuda.current_stream().synchronize()
        return self._back[0, :n].numpy().astype(np.int64), self._back[1, :n].numpy().view(np.float32).copy()


# ---- weights ---------------------------------------------------------------------------------------------------------


def _weights(model: Decoder) -> Weights:
    """The weights of a model, which goes on using them where they were laid together."""
    spec = model.spec
    cosine = sine = None
    if spec.positions == "rotary":
        cosine, sine = (table[: spec.context] for table in model.rotary.tables(spec.context, model.device))
    return Weights(
        embed=model.embed.weight,
        places=model.positions.weight if spec.positions == "learned" else None,
        cosine=cosine,
        sine=sine,
        layers=tuple(_layer(block, spec) for block in model.blocks.children() if isinstance(block, Block)),
        norm=_norm(model.norm),
        head=model.head_weight,
    )


def _layer(block: Block, spec: ModelSpec) -> Layer:
    attention, ffn = block.attention, block.ffn
    qkv, qkv_bias = _together(attention.query, attention.key, attention.value)
    gate = ffn.gate if spec.gated else None
    up_bias: Tensor | None = ffn.up.bias
    if gate is not None and up_bias is not None and gate.bias is not None:
        up_bias = torch.cat((up_bias, gate.bias))
    return Layer(
        attention_norm=_norm(block.attention_norm),
        qkv=qkv,
        qkv_bias=qkv_bias,
        query_gain=None if attention.query_norm is None else attention.query_norm.weight,
        key_gain=None if attention.key_norm is None else attention.key_norm.weight,
        output=attention.output.weight,
        output_bias=attention.output.bias,
        ffn_norm=_norm(block.ffn_norm),
        gate=None if gate is None else gate.weight,
        up=ffn.up.weight,
        up_bias=up_bias,
        down=ffn.down.weight,
        down_bias=ffn.down.bias,
    )


def _norm(module: torch.nn.Module) -> Norm:
    assert isinstance(module, LayerNorm | RMSNorm)
    return Norm(module.weight, module.bias if isinstance(module, LayerNorm) else None)


def _together(*parts: Linear) -> tuple[Tensor, Tensor | None]:
    """The weights of some linear maps, one after another, and their biases; the maps then use parts of the whole."""
    weight = torch.cat(tuple(part.weight for part in parts))
    for part, own in zip(parts, weight.split([part.weight.shape[0] for part in parts]), strict=True):
        part.weight.data = own
    biases = [part.bias for part in parts if part.bias is not None]
    return weight, torch.cat(tuple(biases)) if biases else None
