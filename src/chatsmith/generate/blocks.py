"""Who holds which block of the cache: counts, prefixes that can be used again, and what is let go first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import count

import numpy as np

Digest = bytes


class Short(Exception):
    """No block is free. Inside the engine only: it preempts, and goes on."""


@dataclass(frozen=True, slots=True)
class Link:
    """A full block of tokens in a chain from the beginning of a text: what it is found by, and which chain it is in."""

    digest: Digest
    serial: int


@dataclass(frozen=True, slots=True)
class _Entry:
    block: int
    tokens: bytes
    parent: int  # serial of the link before
    link: Link


class Blocks:
    """The blocks of a backend. One that nobody holds but that still tells a prefix is kept until it is needed.

    A prefix is found by a digest of its tokens and believed when the tokens are the same: those of each block, and by
    the serial of the link before it those of all blocks before. Texts of different `isolation` never share.
    """

    def __init__(self, blocks: int, block_size: int, groups: int = 1) -> None:
        self.blocks, self.block_size, self.groups = blocks, block_size, groups
        self._holders = [0] * blocks
        self._fresh = list(range(blocks - 1, -1, -1))
        self._idle: OrderedDict[int, None] = OrderedDict()  # held by nobody, telling a prefix; the oldest first
        self._entries: list[dict[Digest, _Entry]] = [{} for _ in range(groups)]
        self._told: dict[int, tuple[int, Digest]] = {}  # block -> the group and digest it is found by
        self._serials = count(1)

    @property
    def free(self) -> int:
        """Blocks that can be taken."""
        return len(self._fresh) + len(self._idle)

    @property
    def held(self) -> int:
        """Blocks that somebody holds."""
        return self.blocks - self.free

    def shared(self, block: int) -> bool:
        """Whether a block is not to be written in: other sequences hold it, or a prefix is found by it."""
        return self._holders[block] > 1 or block in self._told

    def take(self) -> int:
        """A block to write in, held once; the prefix longest out of use is forgotten for it. Raises `Short`."""
        if self._fresh:
            block = self._fresh.pop()
        elif self._idle:
            block, _ = self._idle.popitem(last=False)
            self._forget(block)
        else:
            raise Short
        self._holders[block] = 1
        return block

    def share(self, block: int) -> int:
        """Hold a block once more; returns it."""
        if not self._holders[block]:
            del self._idle[block]
        self._holders[block] += 1
        return block

    def drop(self, block: int) -> None:
        """Hold a block once less."""
        self._holders[block] -= 1
        if self._holders[block]:
            return
        if block in self._told:
            self._idle[block] = None
        else:
            self._fresh.append(block)

    def root(self, isolation: str) -> Link:
        """What the first block of a text follows."""
        return Link(blake2b(isolation.encode("utf-8", "surrogatepass"), digest_size=16, person=b"root").digest(), 0)

    def remember(self, parent: Link, tokens: Sequence[int], held: Sequence[int]) -> Link:
        """A block of tokens has been computed after `parent`; `held` are its blocks by group (−1: let go already)."""
        data = np.array(tokens, np.int32).tobytes()
        digest = _digest(parent.digest, data)
        entry = self._find(0, digest, data, parent.serial)
        link = entry.link if entry else Link(digest, next(self._serials))
        for group, block in enumerate(held):
            known = self._entries[group].get(digest)
            if block < 0 or block in self._told or (known and known.link.serial == link.serial):
                continue
            if known:
                self._untell(known.block)
            self._entries[group][digest] = _Entry(block, data, parent.serial, link)
            self._told[block] = (group, digest)
        return link

    def match(self, parent: Link, tokens: Sequence[int]) -> tuple[Link, list[int]] | None:
        """The blocks by group that hold these tokens after `parent`, −1 where a group has none; None at no match."""
        data = np.array(tokens, np.int32).tobytes()
        digest = _digest(parent.digest, data)
        first = self._find(0, digest, data, parent.serial)
        if first is None:
            return None
        held = [first.block]
        for group in range(1, self.groups):
            entry = self._find(group, digest, data, parent.serial)
            held.append(entry.block if entry and entry.link.serial == first.link.serial else -1)
        return first.link, held

    def forget(self) -> None:
        """Forget every prefix: the model's weights have changed, say."""
        for block in list(self._told):
            self._untell(block)

    def _find(self, group: int, digest: Digest, data: bytes, parent: int) -> _Entry | None:
        entry = self._entries[group].get(digest)
        return entry if entry and entry.tokens == data and entry.parent == parent else None

    def _forget(self, block: int) -> None:
        group, digest = self._told.pop(block)
        del self._entries[group][digest]

    def _untell(self, block: int) -> None:
        self._forget(block)
        if block in self._idle:
            del self._idle[block]
            self._fresh.append(block)


def _digest(parent: Digest, data: bytes) -> Digest:
    return blake2b(parent + data, digest_size=16, person=b"block").digest()


class Table:
    """The blocks of one sequence: one row per group of layers, in the order of the positions.

    `size` positions have been computed. Blocks that a banded group can no longer see are let go and stand as −1.
    """

    def __init__(self, pool: Blocks, bands: Sequence[int | None], root: Link) -> None:
        self._pool, self._bands = pool, bands
        self.rows: list[list[int]] = [[] for _ in bands]
        self.size = 0
        self.hits = 0
        self._links = [root]

    def adopt(self, tokens: Sequence[int]) -> None:
        """Begin with the longest known prefix of `tokens` that leaves at least one of them to compute.

        Where all of them are known, the last is computed again, in a copy of the block it stands in, if there is room.
        """
        step = self._pool.block_size
        found: list[list[int]] = []
        links = self._links[:1]
        for start in range(0, len(tokens) // step * step, step):
            match = self._pool.match(links[-1], tokens[start : start + step])
            if match is None:
                break
            links.append(match[0])
            found.append(match[1])
        while found:
            size = min(len(found) * step, len(tokens) - 1)
            if all(self._seen(group, found, size) for group in range(1, len(self._bands))):
                self._hold(found, links[: 1 + size // step], size)
                if size % step == 0 or self.needs(len(tokens)) <= self._pool.free:
                    break
                self.release()
            found.pop()
        self.hits = self.size

    def _hold(self, found: Sequence[Sequence[int]], links: list[Link], size: int) -> None:
        self.size, self._links = size, links
        for group, row in enumerate(self.rows):
            first = self._first(group)
            for index, held in enumerate(found):
                row.append(self._pool.share(held[group]) if index >= first else -1)

    def _seen(self, group: int, found: Sequence[Sequence[int]], size: int) -> bool:
        """Whether a prefix holds all that the group's layers still see at its end."""
        return all(held[group] >= 0 for held in found[self._first_at(group, size) :])

    def _first(self, group: int) -> int:
        return self._first_at(group, self.size)

    def _first_at(self, group: int, position: int) -> int:
        """The first block that a query at `position` sees in a group."""
        band = self._bands[group]
        return 0 if band is None else max(0, position - band + 1) // self._pool.block_size

    def needs(self, size: int) -> int:
        """How many blocks must be taken so that positions up to `size` can be written."""
        step = self._pool.block_size
        new = -(-size // step) - len(self.rows[0])
        return max(new, 0) * len(self.rows) + sum(
            self._pool.shared(row[index])
            for row in self.rows
            for index in range(self.size // step, min(len(row), -(-size // step)))
        )

    def grow(self, size: int) -> list[tuple[int, int]]:
        """Make positions from `self.size` to `size` writable; returns the blocks to copy first. Raises `Short`, and is
        then as it was."""
        step, row = self._pool.block_size, self.rows[0]
        one_more = size == self.size + 1 <= len(row) * step and len(self.rows) == 1
        if one_more and not self._pool.shared(row[self.size // step]):
            return []  # what most steps of most answers come to
        if self.needs(size) > self._pool.free:
            raise Short
        copies = []
        for row in self.rows:
            for index in range(self.size // step, min(len(row), -(-size // step))):
                if self._pool.shared(row[index]):
                    own = self._pool.take()
                    copies.append((row[index], own))
                    self._pool.drop(row[index])
                    row[index] = own
            while len(row) * step < size:
                row.append(self._pool.take())
        return copies

    def commit(self, tokens: Sequence[int], begin: int, size: int) -> None:
        """Positions up to `size` are now computed, from the tokens after `begin`."""
        step = self._pool.block_size
        self.size = size
        while len(self._links) * step <= size:
            index = len(self._links) - 1
            held = [row[index] for row in self.rows]
            part = tokens[begin + index * step : begin + (index + 1) * step]
            self._links.append(self._pool.remember(self._links[-1], part, held))
        for group in range(1, len(self.rows)):
            row = self.rows[group]
            for index in range(self._first(group) - 1, -1, -1):
                if row[index] < 0:
                    break
                self._pool.drop(row[index])
                row[index] = -1

    def fork(self) -> Table:
        """Another sequence that begins with all of this one; it holds the same blocks until one of them writes."""
        other = Table(self._pool, self._bands, self._links[0])
        other.rows = [[self._pool.share(block) if block >= 0 else -1 for block in row] for row in self.rows]
        other.size, other.hits, other._links = self.size, self.hits, self._links.copy()
        return other

    def release(self) -> None:
        """Let all blocks go, the last first: of a prefix, the end is forgotten before the beginning."""
        for row in self.rows:
            for block in reversed(row):
                if block >= 0:
                    self._pool.drop(block)
            row.clear()
        self.size = 0
        self._links = self._links[:1]
