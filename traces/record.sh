#!/bin/sh
# Records the traces of this directory again: traces/record.sh [VELLUM [DIRECTORY]]
#
# The programs run in /tmp/vellum-demo with a small, fixed environment, so that nothing of whoever
# records gets into a trace but versions, the date and process numbers. Inputs are made by awk and
# are the same everywhere. Needs gcc, python3, bash, coreutils and QEMU with plugins (see `vellum
# record --help`).
set -eu

vellum=$(realpath "${1:-target/release/vellum}")
traces=$(realpath "${2:-$(dirname "$0")}")
demo=/tmp/vellum-demo
mkdir "$demo"
trap 'rm -r "$demo"' EXIT
cd "$demo"

# record NAME OPTION… -- COMMAND…
record() {
    name=$1
    shift
    env -i PATH=/usr/bin:/bin HOME="$demo" TMPDIR="$demo" LC_ALL=C PYTHONHASHSEED=0 \
        ${VELLUM_QEMU:+VELLUM_QEMU="$VELLUM_QEMU"} \
        ${VELLUM_PLUGIN:+VELLUM_PLUGIN="$VELLUM_PLUGIN"} \
        "$vellum" record --output "$traces/$name.vtrace" "$@" >/dev/null
}

# 100 000 lines that look random: Lehmer's generator with Park and Miller's constants.
awk 'BEGIN {
    x = 1
    for (line = 0; line < 100000; line++) {
        x = (x * 16807) % 2147483647
        printf "%010d line %06d of a small file to sort\n", x, line
    }
}' >lines.txt

# Some C: gcc's start takes more than compiling it.
cat >tables.c <<'C'
#include <stdio.h>
#include <stdlib.h>

struct table {
    size_t count;
    unsigned keys[256];
    double values[256];
};

static double look_up(const struct table *table, unsigned key)
{
    size_t low = 0, high = table->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (table->keys[middle] < key)
            low = middle + 1;
        else
            high = middle;
    }
    return low < table->count && table->keys[low] == key ? table->values[low] : 0;
}

int main(int argc, char **argv)
{
    struct table *table = calloc(1, sizeof *table);

    if (table == NULL)
        return 1;
    for (unsigned n = 0; n < 256; n++) {
        table->keys[n] = 3 * n;
        table->values[n] = 1.0 / (n + 1);
    }
    table->count = 256;
    for (int n = 1; n < argc; n++)
        printf("%g\n", look_up(table, (unsigned)strtoul(argv[n], NULL, 10)));
    free(table);
    return 0;
}
C

cat >objects.py <<'PYTHON'
# A list and a dictionary that grow, are read in order, and are half forgotten.
squares = [number * number for number in range(300_000)]
by_number = {number: str(number) for number in range(100_000)}
print(sum(squares), sum(len(text) for text in by_number.values()))
for number in range(50_000):
    del by_number[number]
squares.reverse()
print(sum(squares[:150_000]), len(by_number))
PYTHON

cat >loops.sh <<'BASH'
# Children, pipelines and subshells, as scripts make them.
for directory in /usr/bin /usr/lib /etc; do
    ls -l "$directory" | sort -k 5 -n | tail -n 3
done
for ((number = 0; number < 6; number++)); do
    (total=0; for ((i = 0; i < 500; i++)); do ((total += i * number)); done; echo "$total")
done | sort | uniq -c
names=$(ls /usr/bin | cut -c 1 | sort | uniq -c | sort -rn | head -n 5)
echo "$names" | while read -r count letter; do echo "$letter: $count"; done
BASH

# One thread, since which of two comes first is not the same twice.
record sort --filter-events 64 -- sort --parallel=1 -o sorted.txt lines.txt
record python --filter-events 64 -- python3 objects.py
record gcc --filter-events 64 -- gcc -O2 -c tables.c -o tables.o
record shell --filter-events 64 -- bash loops.sh
record ls-exact --exact -- ls -l /usr
ls -l "$traces"/*.vtrace
