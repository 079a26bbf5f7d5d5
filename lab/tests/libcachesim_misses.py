#!/usr/bin/env python3
"""Prints the misses that libcachesim.rs expects: `pip install libcachesim==0.3.5`, then run this."""
import struct
import tempfile

import libcachesim

REQUESTS, OBJECTS, MASK = 300_000, 20_000, (1 << 64) - 1


def random_numbers():
    state = 42
    while True:
        state = (state + 0x9E3779B97F4A7C15) & MASK
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        yield (z ^ (z >> 31)) % OBJECTS


numbers = random_numbers()
requests = []
for at in range(REQUESTS):
    a, b = next(numbers), next(numbers)
    scans = at % 4 == 0 and (at // 40_000) % 2 == 1
    requests.append(at // 4 % OBJECTS if scans else a * b // OBJECTS)

following, coming = [-1] * REQUESTS, {}
for at in reversed(range(REQUESTS)):
    following[at] = coming.get(requests[at], -1)
    coming[requests[at]] = at

with tempfile.NamedTemporaryFile(suffix=".oracleGeneral.bin") as file:
    for request, later in zip(requests, following):
        file.write(struct.pack("<IQIq", 0, request + 1, 1, later))
    file.flush()
    for name in ["FIFO", "LRU", "Clock", "Sieve", "S3FIFO", "ARC", "LFU", "TwoQ", "LRUK", "Belady"]:
        misses = []
        for size in [200, 2000, 8000]:
            reader = libcachesim.TraceReader(
                file.name, libcachesim.TraceType.ORACLE_GENERAL_TRACE
            )
            ratio, _ = getattr(libcachesim, name)(cache_size=size).process_trace(reader)
            misses.append(round(ratio * REQUESTS))
        print(name, misses)
