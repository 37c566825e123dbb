"""Is a history of reads and writes, as clients saw it, one of registers that change at an instant?

The search of Wing and Gong (1993): find an order of all operations that respects their times, and in
which every read returns what was written last. Lowe's memory (2017) of what was tried already (which
operations are placed, and the value then) keeps it short.

A write without a known outcome may have had its effect at any time since, or never. As every value
is written once, this needs no search: if nobody has read the value, the order does without the write
just as well; and if somebody has, the write was before the earliest end of such a read.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

UNKNOWN = math.inf


@dataclasses.dataclass(frozen=True)
class Operation:
    """What a client has asked and been told. Whatever was refused for certain is none."""

    client: int
    key: str
    is_write: bool
    # None: there is none yet.
    value: str | None
    called: float
    # UNKNOWN: it may have had an effect, or may have one some time.
    returned: float

    def __str__(self) -> str:
        does = "writes" if self.is_write else "reads"
        end = "unknown" if self.returned == UNKNOWN else f"{self.returned:.6f}"
        return f"client {self.client} {does} {self.key} {self.value} [{self.called:.6f}, {end}]"


class NotLinearizable(AssertionError):
    """No order explains the history; says where the longest attempt ended."""


def check(history: Iterable[Operation]):
    """Checks each key by itself: a history is linearizable if it is at every object (Herlihy and
    Wing, theorem 1)."""
    by_key: dict[str, list[Operation]] = {}
    for operation in history:
        by_key.setdefault(operation.key, []).append(operation)
    for operations in by_key.values():
        search(with_an_end(operations))


def with_an_end(operations: list[Operation]) -> list[Operation]:
    """The same question without unknown outcomes."""
    writes = [operation for operation in operations if operation.is_write]
    assert len({write.value for write in writes}) == len(writes), "a value is written twice"
    first_read: dict[str | None, float] = {}
    ended = []
    for operation in operations:
        if not operation.is_write and operation.returned != UNKNOWN:
            earlier = first_read.get(operation.value, UNKNOWN)
            first_read[operation.value] = min(earlier, operation.returned)
            ended.append(operation)
    for write in writes:
        returned = min(write.returned, first_read.get(write.value, UNKNOWN))
        if returned < write.called:
            raise NotLinearizable(f"read before it was written: {write}")
        if returned != UNKNOWN:
            ended.append(dataclasses.replace(write, returned=returned))
    return ended


@dataclasses.dataclass(eq=False)
class Event:
    """A call, which knows its return, or a return, in a list ordered by time."""

    operation: Operation
    bit: int
    end: Event | None = None
    before: Event | None = None
    after: Event | None = None

    def take_out(self):
        for event in (self, self.end):
            event.before.after = event.after
            if event.after:
                event.after.before = event.before

    def put_back(self):
        for event in (self.end, self):
            event.before.after = event
            if event.after:
                event.after.before = event


def search(operations: list[Operation]):
    start = events(operations)
    event, value, placed = start.after, None, 0
    # Calls in the order that is tried, each with the value before it.
    order: list[tuple[Event, str | None]] = []
    tried: set[tuple[int, str | None]] = set()
    longest: tuple[int, str] = (-1, "")
    while start.after:
        operation = event.operation
        if event.end:
            fits = operation.is_write or operation.value == value
            then = (placed | event.bit, operation.value if operation.is_write else value)
            if fits and then not in tried:
                tried.add(then)
                order.append((event, value))
                placed, value = then
                event.take_out()
                event = start.after
            else:
                event = event.after
            continue
        # It has returned, and has no place yet: something before it must go elsewhere.
        if len(order) > longest[0]:
            longest = (
                len(order),
                f"after {order[-1][0].operation if order else 'nothing'}: {operation}",
            )
        if not order:
            raise NotLinearizable(f"{longest[0]} of {len(operations)} placed; {longest[1]}")
        event, value = order.pop()
        placed &= ~event.bit
        event.put_back()
        event = event.after


def events(operations: list[Operation]) -> Event:
    """Calls and returns in order, after an event that is neither. What returns when another is
    called may have been at the same time as that."""
    times = []
    for number, operation in enumerate(operations):
        assert operation.called <= operation.returned, operation
        end = Event(operation, 1 << number)
        times.append((operation.called, 0, number, Event(operation, 1 << number, end=end)))
        times.append((operation.returned, 1, number, end))
    start = last = Event(None, 0)
    for *_, event in sorted(times, key=lambda entry: entry[:3]):
        event.before, last.after = last, event
        last = event
    return start
