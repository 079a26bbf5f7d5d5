/* Threads share one address space: they start and end, take turns by mutex and condition, and fault
 * on the same pages at once. */
#include "program.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/syscall.h>

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

/* From `linux/futex.h`, which not every C library comes with. */
enum { FUTEX_WAKE = 1, FUTEX_WAIT_BITSET = 9, FUTEX_WAKE_BITSET = 10, FUTEX_PRIVATE_FLAG = 128 };

static uint32_t word;
static atomic_int awake;

static long futex(uint32_t *at, int operation, uint32_t value, uint32_t bits) {
    return syscall(SYS_futex, at, operation, value, 0, 0, bits);
}

/* Waits for the bit of its number alone. */
static void *wait_for_bit(void *index) {
    while (futex(&word, FUTEX_WAIT_BITSET, 0, 1u << (long)index) == -1 && errno == EINTR) {}
    atomic_fetch_add(&awake, 1 << (4 * (long)index));
    return 0;
}

static void *wake_bits(void *unused) {
    /* The others may not wait yet: whoever is woken is counted. */
    for (int woken = 0; woken < 1;) woken += futex(&word, FUTEX_WAKE_BITSET, 9, 1 << 1);
    while (awake == 0) sched_yield();
    printf("the wake of a bit woke %s\n", awake == 1 << 4 ? "who waits for it" : "another");
    for (int woken = 1; woken < 3;) woken += futex(&word, FUTEX_WAKE, 9, 0);
    return unused;
}

static void futexes(void) {
    pthread_t threads[4];
    for (long i = 0; i < 4; i++)
        check(pthread_create(&threads[i], 0, i < 3 ? wait_for_bit : wake_bits, (void *)i) == 0);
    for (int i = 0; i < 4; i++) check(pthread_join(threads[i], 0) == 0);
    check(futex(&word, FUTEX_WAIT_BITSET, 0, 0) == -1 && errno == EINVAL);
    check(futex(&word, FUTEX_WAKE_BITSET, 1, 0) == -1 && errno == EINVAL);
    check(futex((uint32_t *)8, FUTEX_WAKE, 1, 0) == -1 && errno == EFAULT);
    check(futex((uint32_t *)8, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1, 0) == 0);
}

static void *lock_for_ever(void *mutex) {
    check(pthread_mutex_lock(mutex) == 0);
    return 0;
}

/* Who ends with a mutex leaves it to the next, be it a thread or another process. */
static void dead_owners(void) {
    pthread_mutexattr_t kind;
    pthread_mutex_t *robust = (pthread_mutex_t *)area(1, MAP_SHARED);
    atomic_int *locked = (atomic_int *)(robust + 1);
    check(pthread_mutexattr_init(&kind) == 0);
    check(pthread_mutexattr_setrobust(&kind, PTHREAD_MUTEX_ROBUST) == 0);
    check(pthread_mutexattr_setpshared(&kind, PTHREAD_PROCESS_SHARED) == 0);
    check(pthread_mutex_init(robust, &kind) == 0);
    for (int is_process = 0; is_process < 2; is_process++) {
        pthread_t thread;
        pid_t child = is_process ? fork() : 0;
        if (is_process && child == 0) {
            check(pthread_mutex_lock(robust) == 0);
            atomic_store(locked, 1);
            usleep(20000);
            _exit(0);
        }
        if (is_process) {
            while (!atomic_load(locked)) sched_yield();
        } else {
            check(pthread_create(&thread, 0, lock_for_ever, robust) == 0);
            check(pthread_join(thread, 0) == 0);
        }
        const int error = pthread_mutex_lock(robust);
        printf("the owner of a mutex %s: %s\n", is_process ? "was a process" : "was a thread",
               error == EOWNERDEAD ? "it died" : "wrong");
        check(pthread_mutex_consistent(robust) == 0 && pthread_mutex_unlock(robust) == 0);
        if (is_process) check(ended(child) == 0);
    }
}

/* What cannot be made. */
static void refusals(void) {
    const unsigned long thread = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD;
    const unsigned long odd[] = {CLONE_SIGHAND, CLONE_THREAD | CLONE_VM, CLONE_THREAD};
    for (int i = 0; i < 3; i++)
        check(syscall(SYS_clone, odd[i], 0, 0, 0, 0) == -1 && errno == EINVAL);
    check(syscall(SYS_clone, thread | CLONE_SETTLS, 0, 0, 0, 1UL << 63) == -1 && errno == EPERM);
    printf("threads and processes that cannot be are refused\n");
}

static void *loop(void *unused) {
    while (unused == 0) __asm__ volatile("");
    return unused;
}

static void *sleep_long(void *unused) {
    pause();
    return unused;
}

/* A program that takes the place of another ends that one's threads, wherever they run. */
static void execute(char *self) {
    const pid_t child = fork();
    if (child == 0) {
        pthread_t threads[4];
        for (int i = 0; i < 4; i++)
            check(pthread_create(&threads[i], 0, i % 2 ? loop : sleep_long, 0) == 0);
        usleep(20000);
        execl(self, self, "again", (char *)0);
        _exit(9);
    }
    printf("a program in place of one with threads exited with %d\n", ended(child));
}

/* Arguments that are too long, and a file that is a program by its first bytes only. */
static void cannot_execute(char *self) {
    enum { LONG = 3 << 20, MANY = 150000 };
    char *text = malloc(LONG), **many = calloc(MANY + 1, sizeof *many), path[64];
    memset(text, 'x', LONG);
    text[LONG - 1] = 0;
    check(execl(self, self, text, (char *)0) == -1 && errno == E2BIG);
    text[128 << 10] = 0;
    check(execl(self, self, text, (char *)0) == -1 && errno == E2BIG);
    for (int i = 0; i < MANY; i++) many[i] = text + LONG - 20;
    check(execv(self, many) == -1 && errno == E2BIG);
    free(many), free(text);

    unsigned char head[PAGE] = "\177ELF\2\1\1";
    const uint16_t kind[] = {2, 62}, sizes[] = {64, 56, 2};
    const uint64_t places[] = {0x401000, UINT64_MAX};
    memcpy(head + 16, kind, sizeof kind);
    memcpy(head + 24, places, sizeof places);
    memcpy(head + 52, sizes, sizeof sizes);
    snprintf(path, sizeof path, "/tmp/vellum-%d", getpid());
    const int file = open(path, O_CREAT | O_EXCL | O_WRONLY, 0700);
    check(file >= 0 && write(file, head, PAGE) == PAGE && close(file) == 0);
    const int result = execl(path, path, (char *)0), error = errno;
    check(unlink(path) == 0 && result == -1);
    printf("a program without an inside: %s\n", error == ENOEXEC ? "not executable" : "wrong");
}

int main(int count, char **arguments) {
    long sum;
    if (count > 1) return 5;
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
    futexes();
    dead_owners();
    refusals();
    execute(arguments[0]);
    cannot_execute(arguments[0]);
    printf("threads: done\n");
    return 0;
}
