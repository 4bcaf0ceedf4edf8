"""Coverage-guided fuzzing of what a peer can make a node do: the frame parser and an endpoint behind it.

    pip install atheris
    python benchmarks/fuzz_frames.py -runs=200000 -max_len=600           # libFuzzer's own options

An input is a sequence of frames of node 1, field by field, most values from short lists: magic, token and
sequence numbers that a fuzzer would never guess are given. In every eighth a byte is changed. Anything but
``WireError``, an allocation beyond what was agreed, or a conversation of the two honest nodes that does not
come to its end is a finding: libFuzzer writes the input to a file and ends. The property tests of
tests/real/test_security_fuzz.py need no atheris and are part of the suite; what is found here belongs there.
"""

from __future__ import annotations

import sys

import atheris

_FUZZED = ["real.wire", "real.endpoint", "real.mailbox", "real.lives", "real.reunion"]

with atheris.instrument_imports(include=_FUZZED):
    import numpy as np

    from core.node import Message
    from real import memory, wire
    from real.errors import WireError
    from real.memory import MemoryNetwork

MOST = 4096
TOKEN = b"01234567"
KINDS = [*range(wire.REQ, wire.HELLO + 1), 0, 77]
SIZES = [0, 0, 4, 16, 32, MOST, MOST + 4, 1 << 63]
NUMBERS = [0, 0, 1, 2, 3, 1 << 63, (1 << 64) - 1]
TIMES = [0.0, 100.0, 150.0, 1e300, -1e300, float("inf"), float("nan")]


def frame(given: atheris.FuzzedDataProvider) -> tuple[bytes, bytes]:
    """A header and its payload."""
    pick = given.PickValueInList
    header = wire.Header(
        pick(KINDS), 1, pick(NUMBERS), pick(["m", "gradient", "", "x" * 32]), pick([*wire.DTYPES]),
        pick([0, 0, 0, 1]), pick([0, 1, -1]), pick([0, 1, -1]), pick([0, 1, -1]), pick(TIMES), pick(SIZES),
        pick(SIZES), pick(TIMES),
    )  # fmt: skip
    packed = bytearray(wire.pack(header, TOKEN))
    if given.ConsumeIntInRange(0, 7) == 7:
        packed[given.ConsumeIntInRange(0, len(packed) - 1)] ^= given.ConsumeIntInRange(1, 255)
    return bytes(packed), bytes(pick([0, 0, 4, 16, 32, MOST, MOST + 1]))


def allocate(nbytes: int, dtype: str) -> object:
    if nbytes > MOST:
        raise AssertionError(f"{nbytes} bytes are allocated; agreed were {MOST}")
    return memory.allocate(nbytes, "float16" if dtype == "bfloat16" else dtype)


def settle(network: MemoryNetwork) -> None:
    """Let frames travel between nodes 0 and 2, until nothing is due; node 1 sends what the input says."""
    for _ in range(10_000):
        moved = False
        for endpoint in (network.endpoints[0], network.endpoints[2]):
            for to, packed, payload in endpoint.tick():
                moved = True
                if to != 1:
                    size = len(payload) if payload is not None else 0
                    network.endpoints[to].on_frame(wire.unpack(packed, network.agreed, size), payload)
        if not moved:
            return
    raise AssertionError("it never comes to rest")


def one_input(data: bytes) -> None:
    network = MemoryNetwork(3, window=4, inbox=4, max_bytes=MOST)
    victim, _, friend = network.endpoints
    for endpoint in network.endpoints:
        endpoint._allocate = allocate  # type: ignore[assignment]
    victim.submit([(1, Message("bait", np.ones(8, np.float32)))])
    given = atheris.FuzzedDataProvider(data)
    while given.remaining_bytes():
        packed, payload = frame(given)
        try:
            header = wire.unpack(packed, network.agreed, len(payload))
            if header.source != 1:
                continue
            victim.on_frame(header, memoryview(payload) if payload else None)
        except WireError:
            break
        settle(network)
    victim.depart(1)
    friend.submit([(0, Message("m", np.arange(8, dtype=np.float32)))])
    settle(network)
    got, _ = victim.take(("m",), 2, None)
    assert isinstance(got, Message)
    assert np.array_equal(got.tensor, np.arange(8))
    assert friend.delivered([0])


def main() -> None:
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
