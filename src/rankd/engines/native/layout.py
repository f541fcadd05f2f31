"""One batch as one packed row: new heads first, then documents, nothing padded.

The linear layers see the row as it is. Attention sees it in runs: documents of the
same head and the same length lie side by side, so a run is a dense block of
[documents, length] without any copying.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from rankd.engines.native.framing import TokenBatch
from rankd.engines.native.prefix_cache import CachedPrefix, PrefixCache


@dataclass(frozen=True, slots=True)
class Run:
    """Sequences of equal length after the same `context` tokens of the same head.

    Attributes:
        start: place in the row of the first sequence's first token.
        extends: the sequence is the head's own rest, to be added to its keys and values.
    """

    head: CachedPrefix
    context: int
    start: int
    count: int
    length: int
    extends: bool

    @property
    def rows(self) -> slice:
        return slice(self.start, self.start + self.count * self.length)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything is.

    Attributes:
        ids, positions: [tokens].
        last: place in the row of each document's last token, in the row's order.
        order: for each document of the row, its place in the batch.
        new: heads computed by this batch.
        reach: longest sequence, head included.
    """

    ids: Tensor
    positions: Tensor
    runs: list[Run]
    last: Tensor
    order: list[int]
    new: list[CachedPrefix]
    reach: int


def lay_out(batch: TokenBatch, heads: PrefixCache) -> Layout:
    row = _Row()
    known = [row.add_head(ids, heads) for ids in batch.prefixes]
    kinds = [(head, len(ids)) for head, ids in batch.suffixes]
    order = sorted(range(len(kinds)), key=kinds.__getitem__)
    for (place, _), group in groupby(order, key=kinds.__getitem__):
        head = known[place]
        row.add_run(head, len(head), [batch.suffixes[document][1] for document in group])
    return Layout(
        ids=torch.frombuffer(row.ids, dtype=torch.int32),
        positions=torch.cat(row.positions),
        runs=row.runs,
        last=torch.tensor(row.last, dtype=torch.long),
        order=order,
        new=row.new,
        reach=max(run.context + run.length for run in row.runs),
    )


class _Row:
    def __init__(self) -> None:
        self.ids = array("i")
        self.positions: list[Tensor] = []
        self.runs: list[Run] = []
        self.last: list[int] = []
        self.new: list[CachedPrefix] = []

    def add_head(self, ids: array[int], heads: PrefixCache) -> CachedPrefix:
        head = heads.get(ids)
        if head is None:
            head, known = heads.start(ids)
            self.new.append(head)
            if known < len(ids):
                self._add(Run(head, known, len(self.ids), 1, len(ids) - known, True), [ids[known:]])
        return head

    def add_run(self, head: CachedPrefix, context: int, tails: list[array[int]]) -> None:
        run = Run(head, context, len(self.ids), len(tails), len(tails[0]), False)
        self._add(run, tails)
        self.last.extend(range(run.start + run.length - 1, run.rows.stop, run.length))

    def _add(self, run: Run, sequences: list[array[int]]) -> None:
        self.runs.append(run)
        for ids in sequences:
            self.ids.extend(ids)
        self.positions.append(torch.arange(run.context, run.context + run.length).repeat(run.count))
