/* Threads share one address space: they start and end, take turns by mutex and condition, and fault
 * on the same pages at once. */
#include "program.h"

#include <pthread.h>
#include <stdatomic.h>

enum { THREADS = 4, ROUNDS = 2000, TURNS = 200, PAGES = 256 };

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static pthread_barrier_t barrier;
static long counter, turn;
static atomic_long atomic_counter;
static __thread long own;
static char *memory;

static void start_all(void *(*work)(void *), long sums[1]) {
    pthread_t threads[THREADS];
    sums[0] = 0;
    for (long i = 0; i < THREADS; i++)
        check(pthread_create(&threads[i], 0, work, (void *)i) == 0);
    for (int i = 0; i < THREADS; i++) {
        void *result;
        check(pthread_join(threads[i], &result) == 0);
        sums[0] += (long)result;
    }
}

/* Counts under a lock, by an atomic, and in a variable of its own. */
static void *count_up(void *index) {
    for (int i = 0; i < ROUNDS; i++) {
        pthread_mutex_lock(&mutex);
        counter++;
        pthread_mutex_unlock(&mutex);
        atomic_fetch_add(&atomic_counter, 1);
        own += (long)index;
    }
    return (void *)own;
}

/* Waits for its turn, again and again. */
static void *take_turns(void *index) {
    for (long i = 0; i < TURNS; i++) {
        pthread_mutex_lock(&mutex);
        while (turn != i * THREADS + (long)index) pthread_cond_wait(&changed, &mutex);
        turn++;
        pthread_cond_broadcast(&changed);
        pthread_mutex_unlock(&mutex);
    }
    return 0;
}

/* All begin together and touch all pages, each a byte of its own. */
static void *touch_all(void *index) {
    pthread_barrier_wait(&barrier);
    for (long page = 0; page < PAGES; page++) memory[page * PAGE + (long)index] += 1;
    return 0;
}

/* Maps, writes, moves and unmaps while the others do. */
static void *map_and_unmap(void *index) {
    uint64_t state = (long)index + 1;
    for (int i = 0; i < ROUNDS / 20; i++) {
        long pages = 1 + chance(&state) % 16;
        char *start = area(pages, MAP_PRIVATE);
        for (long page = 0; page < pages; page++) fill_page(start + page * PAGE, state + page);
        start = mremap(start, pages * PAGE, (pages + 8) * PAGE, MREMAP_MAYMOVE);
        check(start != MAP_FAILED);
        for (long page = 0; page < pages; page++)
            check(is_filled(start + page * PAGE, state + page));
        check(munmap(start, (pages + 8) * PAGE) == 0);
    }
    return (void *)1;
}

/* A heap under contention: blocks keep what was written into them. */
static void *allocate(void *index) {
    uint64_t state = (long)index + 1;
    char *blocks[32] = {0};
    size_t bytes[32] = {0};
    for (int i = 0; i < ROUNDS; i++) {
        int slot = chance(&state) % 32;
        for (size_t at = 0; at < bytes[slot]; at++) check(blocks[slot][at] == (char)slot);
        free(blocks[slot]);
        bytes[slot] = chance(&state) % 8000;
        check((blocks[slot] = malloc(bytes[slot] + 1)) != 0);
        memset(blocks[slot], slot, bytes[slot]);
    }
    for (int slot = 0; slot < 32; slot++) free(blocks[slot]);
    return (void *)1;
}

int main(void) {
    long sum;
    begin();
    start_all(count_up, &sum);
    printf("counted to %ld and %ld, variables of threads add up to %ld\n", counter,
           (long)atomic_counter, sum);
    start_all(take_turns, &sum);
    printf("took %ld turns in order\n", turn);

    memory = area(PAGES, MAP_PRIVATE);
    pthread_barrier_init(&barrier, 0, THREADS);
    start_all(touch_all, &sum);
    for (long page = 0; page < PAGES; page++)
        for (int i = 0; i < THREADS; i++) check(memory[page * PAGE + i] == 1);
    printf("%d threads touched %d pages at once\n", THREADS, PAGES);

    start_all(map_and_unmap, &sum);
    printf("%ld threads mapped and unmapped\n", sum);
    start_all(allocate, &sum);
    printf("%ld threads allocated and freed\n", sum);

    /* A thread may fork: its child has that thread alone. */
    pid_t child = fork();
    if (child == 0) {
        counter = 0;
        start_all(count_up, &sum);
        _exit(counter == (long)THREADS * ROUNDS ? 0 : 1);
    }
    printf("a child's threads exited with %d, the parent still counts %ld\n", ended(child),
           counter);
    printf("threads: done\n");
    return 0;
}
