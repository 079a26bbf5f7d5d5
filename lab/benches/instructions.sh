#!/usr/bin/env bash
# What a replay costs in instructions, exactly: callgrind's difference between two lengths of one trace.
# Needs valgrind and a release build; prints a line each.
#
#   event     a reference to one of 16,384 resident pages: nearly every one misses all TLBs
#   minor     zero-fill, mapped, and unmapped and freed at exit
#   zram,nvme an eviction with swap-out, swap-in and fault: a loop over twice the memory
#   memory    bytes of host memory for a frame in use, with 8 of its page-table entry
set -euo pipefail
cd "$(dirname "$0")/../.."
vellum=${CARGO_TARGET_DIR:-target}/release/vellum
traces=$(mktemp -d)
trap 'rm -r "$traces"' EXIT

make() { "$vellum" generate "$2" -o "$traces/$1" --pages "$3" --references "$4" --write-share "$5" 2>/dev/null; }
count() {
    valgrind --tool=callgrind --callgrind-out-file=/dev/null "$vellum" replay "$traces/$1" "${@:2}" 2>&1 |
        sed -n 's/.*Collected : //p'
}
resident() { { /usr/bin/time -f %M "$vellum" replay "$traces/$1" >/dev/null; } 2>&1 | tail -1; }
each() { echo "$1 $((($(count "$2" "${@:5}") - $(count "$3" "${@:5}")) / $4))"; }

make e1 uniform 16384 500000 0.3
make e2 uniform 16384 1000000 0.3
make m1 sequential 100000 100000 1
make m2 sequential 200000 200000 1
make c1 sequential 10000 50000 1
make c2 sequential 10000 100000 1
each event e2 e1 500000
each minor m2 m1 100000
for swap in zram nvme; do
    each "$swap" c2 c1 50000 --frames 5000 --swap "$swap" --page-cluster 0 --policy fifo
done
make r1 sequential 500000 500000 1
make r2 sequential 1000000 1000000 1
echo "memory $((($(resident r2) - $(resident r1)) * 1024 / 500000))"
