"""The checker of histories: what it accepts, and what it must not."""

import collections
import itertools
import random

import pytest
from linearizable import UNKNOWN, NotLinearizable, Operation, check

SMALL_HISTORIES = 200


def history(*lines: str) -> list[Operation]:
    """`write a 0 2`: a value, called at, returned at; `?` is an unknown end, `-` no value."""
    operations = []
    for client, line in enumerate(lines):
        kind, value, called, returned = line.split()
        end = UNKNOWN if returned == "?" else float(returned)
        known = None if value == "-" else value
        operations.append(Operation(client, "key", kind == "write", known, float(called), end))
    return operations


LINEARIZABLE = {
    "nothing": [],
    "one after the other": ["read - 0 1", "write a 2 3", "read a 4 5", "write b 6 7", "read b 8 9"],
    "a read beside a write sees either": ["write a 0 9", "read - 1 2", "read a 3 4"],
    "two writes at once, in one of the orders": [
        "write a 0 9",
        "write b 0 9",
        "read b 10 11",
        "read b 12 13",
    ],
    "a write that is read before it returns": ["write a 0 9", "read a 1 2", "read a 3 4"],
    "an unknown write that had no effect": [
        "write a 0 1",
        "write b 2 ?",
        "read a 3 4",
        "read a 5 6",
    ],
    "an unknown write that has it late": ["write a 0 1", "write b 2 ?", "read a 3 4", "read b 5 6"],
    "an unknown write between known ones": [
        "write a 0 ?",
        "write b 1 2",
        "read b 3 4",
        "read a 5 6",
        "write c 7 8",
        "read c 9 10",
    ],
    "many unknown writes": [f"write {number} 0 ?" for number in range(500)]
    + ["read 77 1 2", "read 3 3 4"],
    "an unknown read": ["write a 0 1", "read - 2 ?"],
    "the end of one is the beginning of another": ["write a 0 1", "read - 1 2"],
}

NOT_LINEARIZABLE = {
    "a stale read": ["write a 0 1", "write b 2 3", "read a 4 5"],
    "a lost write": ["write a 0 1", "read - 2 3"],
    "a value that nobody has written": ["write a 0 1", "read b 2 3"],
    "two readers who disagree about the order": [
        "write a 0 9",
        "write b 0 9",
        "read a 10 11",
        "read b 12 13",
        "read a 14 15",
    ],
    "new, then old, beside a write": ["write a 0 1", "write b 2 9", "read b 3 4", "read a 5 6"],
    "an unknown write that comes and goes": [
        "write a 0 1",
        "write b 2 ?",
        "read b 3 4",
        "read a 5 6",
    ],
    "a read of an unknown write before its call": ["read a 0 1", "write a 2 ?"],
    "a write that overtakes one that has returned": [
        "write a 0 1",
        "write b 2 3",
        "read b 4 5",
        "read a 6 7",
    ],
}


@pytest.mark.parametrize("name", LINEARIZABLE)
def test_accepts(name):
    check(history(*LINEARIZABLE[name]))


@pytest.mark.parametrize("name", NOT_LINEARIZABLE)
def test_refuses(name):
    with pytest.raises(NotLinearizable):
        check(history(*NOT_LINEARIZABLE[name]))


def test_keys_are_registers_of_their_own():
    write, read = history("write a 0 1", "read - 2 3")
    check([write, Operation(1, "another", False, None, read.called, read.returned)])


def test_a_value_is_written_once():
    with pytest.raises(AssertionError, match="twice"):
        check(history("write a 0 1", "write a 2 3"))


def test_agrees_with_every_order_tried():
    """On small histories, with a search that only knows the definition."""
    verdicts = collections.Counter()
    for seed in range(SMALL_HISTORIES):
        operations = small_history(random.Random(seed))
        is_linearizable = any(explains(order) for order in orders(operations))
        assert accepts(operations) == is_linearizable, "\n".join(map(str, operations))
        verdicts[is_linearizable] += 1
    assert min(verdicts.values()) > SMALL_HISTORIES / 5, verdicts


def small_history(chance: random.Random) -> list[Operation]:
    lines, written = [], ["-"]
    for number in range(6):
        called = chance.randrange(10)
        returned = "?" if chance.random() < 0.2 else called + chance.randrange(1, 6)
        if chance.random() < 0.5:
            written.append(f"v{number}")
            lines.append(f"write v{number} {called} {returned}")
        else:
            lines.append(f"read {chance.choice(written)} {called} {returned}")
    return history(*lines)


def test_a_long_history_takes_no_time():
    """Four clients who overlap all the time, and an unknown write in ten."""
    chance, operations, value, at = random.Random(0), [], None, 0.0
    for number in range(4_000):
        called, now, at = at - chance.uniform(0, 3), at, at + 1
        if chance.random() < 0.5:
            value = f"v{number}"
            end = UNKNOWN if chance.random() < 0.1 else now + chance.uniform(0, 1)
            operations.append(Operation(number % 4, "key", True, value, called, end))
        else:
            operations.append(
                Operation(number % 4, "key", False, value, called, now + chance.uniform(0, 1))
            )
    check(operations)


def accepts(operations: list[Operation]) -> bool:
    try:
        check(operations)
    except NotLinearizable:
        return False
    return True


def orders(operations: list[Operation]):
    """All orders of all that has returned and any of the rest."""
    ended = [operation for operation in operations if operation.returned != UNKNOWN]
    unknown = [operation for operation in operations if operation.returned == UNKNOWN]
    for count in range(len(unknown) + 1):
        for some in itertools.combinations(unknown, count):
            yield from itertools.permutations([*ended, *some])


def explains(order: tuple[Operation, ...]) -> bool:
    value = None
    for number, operation in enumerate(order):
        if any(later.returned < operation.called for later in order[number + 1 :]):
            return False
        if operation.is_write:
            value = operation.value
        elif operation.returned != UNKNOWN and operation.value != value:
            return False
    return True
