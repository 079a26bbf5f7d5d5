#!/usr/bin/env bash
# What recording costs: user and system time of the whole process tree under plain qemu-x86_64 and
# under `vellum record`, the median of RUNS runs (3), for four programs; and the bytes of trace for a
# million loads and stores. Needs qemu-x86_64, jq, and the programs: sort, gzip, python3, sqlite3.
#
#   recorder/benches/cost.sh [VELLUM]
set -euo pipefail
vellum=$(realpath "${1:-target/release/vellum}")
runs=${RUNS:-3}
cd "$(mktemp -d)"
trap 'rm -r "$PWD"' EXIT

python=$(python3 -c 'import sys, os; print(os.path.realpath(sys.executable))')
"$python" - <<'P'
import random
r, n = random.Random(1), 0
with open('lines', 'w') as f:
    while n < 50_000_000:
        n += f.write('%016x %d\n' % (r.getrandbits(64), r.getrandbits(60)))
P
cat >rows.sql <<'S'
create table t(a integer, b text);
with recursive c(x) as (select 1 union all select x + 1 from c where x < 1000000)
insert into t select (x * 7919) % 1000003, 'row' || x from c;
create index i on t(b);
select count(*), max(a) from t where b > 'row5';
S

# Median of user + system seconds of RUNS runs of a command.
cpu() {
    local TIMEFORMAT='%U %S'
    for ((i = 0; i < runs; i++)); do
        { time "$@" >/dev/null 2>/dev/null <"$input"; } 2>&1 | awk '{print $1 + $2}'
    done | sort -n | awk '{a[NR] = $1} END {print a[int((NR + 1) / 2)]}'
}

printf '%-8s %8s %8s %6s %22s\n' program qemu record ratio 'bytes/million accesses'
measure() {
    local name=$1
    shift
    local plain recorded accesses
    plain=$(cpu qemu-x86_64 "$@")
    recorded=$(cpu "$vellum" record -o trace.vtrace -- "$@")
    accesses=$("$vellum" info trace.vtrace --format json | jq '.summary.loads + .summary.stores')
    awk -v n="$name" -v q="$plain" -v r="$recorded" -v a="$accesses" -v b="$(stat -c %s trace.vtrace)" \
        'BEGIN {printf "%-8s %8.2f %8.2f %6.2f %22.0f\n", n, q, r, r / q, b / a * 1e6}'
}
input=/dev/null
measure sort "$(command -v sort)" lines -o sorted
measure gzip "$(command -v gzip)" -c lines
measure python "$python" -c 'l = [i * 2 for i in range(10_000_000)]; print(sum(l))'
input=rows.sql
measure sqlite "$(command -v sqlite3)" :memory:
