/* What the programs share: areas counted in pages, counts of faults, chance from a seed, checks.
 *
 * The programs print no address, pid or time, so that a program prints the same lines on Linux and
 * on Vellum's kernel. Each line is written at once: a process that is forked has nothing to repeat.
 */
#ifndef PROGRAM_H
#define PROGRAM_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096, WORDS = PAGE / sizeof(uint64_t) };

/* Ends the program with a line that says what does not hold. */
#define check(truth) ((truth) ? (void)0 : failed(#truth, __FILE__, __LINE__))

static inline void failed(const char *truth, const char *file, int line) {
    const char *name = strrchr(file, '/');
    printf("FAILED at %s:%d: %s (errno %d)\n", name ? name + 1 : file, line, truth, errno);
    exit(1);
}

/* To be called first: makes standard output write line by line, also into a pipe. */
static inline void begin(void) { setvbuf(stdout, 0, _IOLBF, BUFSIZ); }

/* Faults of this process so far. */
static inline long faults(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_minflt + usage.ru_majflt;
}

/* Does `work` and prints how many faults it took. The first count is for the stack, which may not
 * be there yet, or not be ours alone since a fork. */
#define stage(name, work)                                   \
    do {                                                    \
        faults();                                           \
        long before = faults();                             \
        work;                                               \
        long count = faults() - before;                     \
        printf("%-52s %6ld faults\n", name, count);         \
    } while (0)

/* Pages of memory that hold zeros and are not there yet; never huge, which is Linux's to choose. */
static inline char *area(long pages, int flags) {
    char *start = mmap(0, pages * PAGE, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);
    check(start != MAP_FAILED);
    madvise(start, pages * PAGE, MADV_NOHUGEPAGE);
    return start;
}

static inline void write_pages(char *start, long pages, char value) {
    for (long page = 0; page < pages; page++) ((volatile char *)start)[page * PAGE] = value;
}

/* How many of the pages begin with `value`. */
static inline long read_pages(const char *start, long pages, char value) {
    long equal = 0;
    for (long page = 0; page < pages; page++)
        equal += ((const volatile char *)start)[page * PAGE] == value;
    return equal;
}

/* Fills every byte of a page with what follows from `stamp`; 0 means zeros. */
static inline void fill_page(void *page, uint64_t stamp) {
    for (uint64_t i = 0; i < WORDS; i++)
        ((volatile uint64_t *)page)[i] = stamp * (2 * i + 1);
}

/* Whether every byte of a page is as `fill_page` left it. */
static inline int is_filled(const void *page, uint64_t stamp) {
    for (uint64_t i = 0; i < WORDS; i++)
        if (((const volatile uint64_t *)page)[i] != stamp * (2 * i + 1)) return 0;
    return 1;
}

/* The next number that looks random: a linear congruential generator with Knuth's MMIX constants,
 * of which the high bits are good. */
static inline uint64_t chance(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 33;
}

/* A count as people write it, `64M`; a factor of 1024 for each of k, M and G. */
static inline long count_of(const char *text) {
    char *unit;
    long count = strtol(text, &unit, 10);
    switch (*unit) {
    case 'G': count *= 1024; /* fall through */
    case 'M': count *= 1024; /* fall through */
    case 'k': count *= 1024;
    }
    return count;
}

/* Waits for `child`, or any child if that is -1: its exit status, or 128 and the signal. */
static inline int ended(pid_t child) {
    int status;
    check(waitpid(child, &status, 0) > 0);
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* A turn passed between two processes: whoever waits goes on when the other passes. */
static inline void pass(int pipe) { check(write(pipe, "", 1) == 1); }

static inline void wait_for(int pipe) {
    char byte;
    check(read(pipe, &byte, 1) == 1);
}

#endif
