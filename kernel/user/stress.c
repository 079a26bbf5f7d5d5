/* Processes that map, write, fork, move, protect and drop memory as chance has it, and know of
 * every page what it must hold. With less memory than they use this is also swap, and death for
 * lack of it.
 *
 *     stress [ROUNDS] [SEED] [PROCESSES] [SIZE]    500 rounds or 60s, seed 1, 4, 32M in all
 */
#include "program.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>

enum { RANGES = 16, CHILDREN = 2, DEPTH = 2, OWN_PAGES = 24 };

/* A mapping, and what each of its pages holds: zeros, or what follows from a stamp. */
struct range {
    char *start;
    long pages;
    int flags; /* MAP_PRIVATE or MAP_SHARED */
    uint64_t *stamps;
};

static struct range ranges[RANGES];
static long pages_used, pages_max, round_now, rounds;
static int process, depth, children;
static uint64_t state, stamps_made;
static time_t last_second; /* 0: rounds count, not seconds */
static atomic_long *killed;

static void verify(const struct range *range, long page) {
    if (is_filled(range->start + page * PAGE, range->stamps[page])) return;
    printf("FAILED: process %d, depth %d, round %ld: page %ld of %ld, %s, holds %#lx where %#lx "
           "was written\n", process, depth, round_now, page, range->pages,
           range->flags == MAP_SHARED ? "shared" : "private",
           ((unsigned long *)(range->start + page * PAGE))[0],
           (unsigned long)range->stamps[page]);
    _exit(1);
}

static void verify_all(const struct range *range) {
    for (long page = 0; page < range->pages; page++) verify(range, page);
}

/* Checks what a page holds and gives it something new. */
static void write_page(struct range *range, long page) {
    verify(range, page);
    range->stamps[page] = (uint64_t)(process * 8 + depth + 1) << 32 | ++stamps_made;
    fill_page(range->start + page * PAGE, range->stamps[page]);
}

static uint64_t *new_stamps(const uint64_t *old, long kept, long pages) {
    uint64_t *stamps = calloc(pages, sizeof *stamps);
    check(stamps != 0);
    if (old) memcpy(stamps, old, kept * sizeof *stamps);
    return stamps;
}

static struct range *free_slot(void) {
    for (int i = 0; i < RANGES; i++)
        if (ranges[i].start == 0) return &ranges[i];
    return 0;
}

static void map(void) {
    struct range *range = free_slot();
    long pages = 1 + chance(&state) % (pages_max / 4);
    if (range == 0 || pages_used + pages > pages_max) return;
    int shared = chance(&state) % 4 == 0, file = -1, flags = shared ? MAP_SHARED : MAP_PRIVATE;
    if (shared && chance(&state) % 2) {
        file = memfd_create("stress", 0);
        check(file >= 0 && ftruncate(file, pages * PAGE) == 0);
    }
    char *start = mmap(0, pages * PAGE, PROT_READ | PROT_WRITE,
                       flags | (file < 0 ? MAP_ANONYMOUS : 0), file, 0);
    if (file >= 0) close(file);
    if (start == MAP_FAILED) return;
    *range = (struct range){start, pages, flags, new_stamps(0, 0, pages)};
    pages_used += pages;
}

/* Unmaps the pages from `from` to `to`; what is behind them becomes a range of its own. */
static void cut(struct range *range, long from, long to) {
    struct range *rest = free_slot();
    if (rest == 0) to = range->pages;
    check(munmap(range->start + from * PAGE, (to - from) * PAGE) == 0);
    pages_used -= to - from;
    long left = range->pages - to;
    if (left > 0)
        *rest = (struct range){range->start + to * PAGE, left, range->flags,
                               new_stamps(range->stamps + to, left, left)};
    range->pages = from;
    if (from == 0) {
        free(range->stamps);
        *range = (struct range){0};
    }
}

/* Makes a private range longer, which may move it, or shorter. */
static void resize(struct range *range) {
    long pages = 1 + chance(&state) % (2 * range->pages);
    if (range->flags == MAP_SHARED || pages_used + pages - range->pages > pages_max) return;
    char *start = mremap(range->start, range->pages * PAGE, pages * PAGE, MREMAP_MAYMOVE);
    if (start == MAP_FAILED) return;
    uint64_t *old = range->stamps;
    range->stamps = new_stamps(old, pages < range->pages ? pages : range->pages, pages);
    free(old);
    pages_used += pages - range->pages;
    range->start = start;
    range->pages = pages;
}

/* Drops pages: private ones are zeros again, shared ones are still there. */
static void drop(struct range *range, long from, long to) {
    check(madvise(range->start + from * PAGE, (to - from) * PAGE, MADV_DONTNEED) == 0);
    if (range->flags == MAP_PRIVATE)
        memset(range->stamps + from, 0, (to - from) * sizeof *range->stamps);
}

/* Puts fresh pages where others were. */
static void replace(struct range *range, long from, long to) {
    if (range->flags == MAP_SHARED) return;
    if (mmap(range->start + from * PAGE, (to - from) * PAGE, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
        return;
    memset(range->stamps + from, 0, (to - from) * sizeof *range->stamps);
}

/* Pages made read-only are read, and are writable again afterwards. */
static void protect(struct range *range, long from, long to) {
    char *start = range->start + from * PAGE;
    if (mprotect(start, (to - from) * PAGE, PROT_READ) != 0) return;
    for (long page = from; page < to; page++) verify(range, page);
    check(mprotect(start, (to - from) * PAGE, PROT_READ | PROT_WRITE) == 0);
    write_page(range, from);
}

/* A child ends well, or is killed because memory ran out; nothing else is allowed. */
static void reap(void) {
    int status = ended(-1);
    if (status == 128 + SIGKILL) atomic_fetch_add(killed, 1);
    else if (status != 0) _exit(status);
    children--;
}

static void live(void);

/* The child has copies of private memory, and leaves shared memory to its parent. */
static void spawn(void) {
    if (depth == DEPTH) return;
    if (children == CHILDREN) reap();
    uint64_t seed = chance(&state);
    pid_t child = fork();
    if (child > 0) children++;
    if (child != 0) return;
    depth++;
    children = 0;
    state = seed;
    for (int i = 0; i < RANGES; i++)
        if (ranges[i].start && ranges[i].flags == MAP_SHARED) cut(&ranges[i], 0, ranges[i].pages);
    rounds = round_now + 1 + chance(&state) % 64;
    live();
    _exit(0);
}

static void act(void) {
    struct range *range = &ranges[chance(&state) % RANGES];
    if (range->start == 0) return map();
    long from = chance(&state) % range->pages;
    long to = from + 1 + chance(&state) % (range->pages - from);
    switch (chance(&state) % 16) {
    case 0: return cut(range, from, to);
    case 1: return resize(range);
    case 2: return drop(range, from, to);
    case 3: return replace(range, from, to);
    case 4: return protect(range, from, to);
    case 5: return spawn();
    case 6: return verify_all(range);
    case 7: sched_yield(); return;
    default:
        for (long page = from; page < to; page++) write_page(range, page);
    }
}

static int is_over(void) {
    if (last_second == 0 || depth > 0) return round_now >= rounds;
    struct timespec time;
    return clock_gettime(CLOCK_MONOTONIC, &time) != 0 || time.tv_sec >= last_second;
}

static void live(void) {
    for (; !is_over(); round_now++) act();
    for (int i = 0; i < RANGES; i++)
        if (ranges[i].start) verify_all(&ranges[i]);
    while (children > 0) reap();
}

static atomic_int stopped;

/* A second thread uses pages of its own while the first changes the address space around it. */
static void *accompany(void *unused) {
    struct range own = {area(OWN_PAGES, MAP_PRIVATE), OWN_PAGES, MAP_PRIVATE,
                        new_stamps(0, 0, OWN_PAGES)};
    uint64_t count = 0;
    while (!stopped) {
        long page = count % OWN_PAGES;
        verify(&own, page);
        own.stamps[page] = ++count;
        fill_page(own.start + page * PAGE, count);
        sched_yield();
    }
    return unused;
}

static void run(uint64_t seed) {
    state = seed * 2 + process;
    pthread_t companion;
    check(pthread_create(&companion, 0, accompany, 0) == 0);
    live();
    stopped = 1;
    check(pthread_join(companion, 0) == 0);
    _exit(0);
}

int main(int count, char **words) {
    begin();
    rounds = count_of(count > 1 ? words[1] : "500");
    uint64_t seed = count_of(count > 2 ? words[2] : "1");
    int processes = count_of(count > 3 ? words[3] : "4");
    long pages = count_of(count > 4 ? words[4] : "32M") / PAGE;
    if (rounds < 1 || processes < 1 || processes > 64 || pages / processes < 16) {
        printf("usage: stress [ROUNDS|60s] [SEED] [PROCESSES] [SIZE], 64k a process at least\n");
        return 2;
    }
    if (count > 1 && strchr(words[1], 's')) {
        struct timespec time;
        check(clock_gettime(CLOCK_MONOTONIC, &time) == 0);
        last_second = time.tv_sec + rounds;
    }
    pages_max = pages / processes;
    killed = (atomic_long *)area(1, MAP_SHARED);
    for (process = 0; process < processes; process++) {
        pid_t child = fork();
        if (child == 0) run(seed);
        check(child > 0);
    }
    int finished = 0;
    for (int i = 0; i < processes; i++) {
        int status = ended(-1);
        finished += status == 0;
        if (status == 128 + SIGKILL) atomic_fetch_add(killed, 1);
        else if (status != 0) return 1;
    }
    printf("%d of %d processes finished, every byte as written; %ld were killed\n", finished,
           processes, *killed);
    printf("stress: done\n");
    return 0;
}
