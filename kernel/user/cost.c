/* What the kernel's work costs, in instructions: on a machine that counts them as time (`--icount`)
 * the processor's counter is their number. For the kernel alone: on Linux it would show nanoseconds.
 */
#include "program.h"

#include <sched.h>
#include <sys/syscall.h>

enum { PAGES = 1024, LEAVING = 64 };

static inline uint64_t counter(void) {
    uint32_t low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return (uint64_t)high << 32 | low;
}

static inline void null_call(void) {
    long number = SYS_getpid;
    __asm__ volatile("syscall" : "+a"(number) : : "rcx", "r11", "memory");
}

static void touch(char *memory, char byte) {
    for (long page = 0; page < PAGES; page++) *(volatile char *)(memory + page * PAGE) = byte;
}

#define elapsed(work)               \
    ({                              \
        uint64_t start = counter(); \
        work;                       \
        counter() - start;          \
    })

#define cost(name, count, work) show(name, elapsed(work) / (count))

static void show(const char *name, uint64_t instructions) {
    printf("%-28s %lu\n", name, (unsigned long)instructions);
}

/* Long enough for the disk, and then a call, in which the kernel looks what the disk has done. */
static void pass_time(void) {
    for (volatile long i = 0; i < 10000000; i++) {
    }
    sched_yield();
}

int main(void) {
    begin();
    printf("instructions\n");
    null_call();
    cost("null system call", PAGES, for (long i = 0; i < PAGES; i++) null_call());
    char *memory = area(PAGES + 1, MAP_PRIVATE);
    *(volatile char *)(memory + PAGES * PAGE) = 1; /* makes the tables */
    cost("demand-zero fault", PAGES, touch(memory, 1));
    pid_t child;
    cost("fork, each resident page", PAGES, child = fork(); if (child == 0) goto child);
    check(child > 0);
    check(ended(child) == 0);
    cost("fault of the last owner", PAGES, touch(memory, 3));
    cost("munmap, each page", PAGES - LEAVING, munmap(memory + LEAVING * PAGE, (PAGES - LEAVING) * PAGE));
    /* The disk works while the program does; what the kernel does then is counted too. */
    uint64_t alone = elapsed(pass_time());
    uint64_t with = elapsed(madvise(memory, LEAVING * PAGE, MADV_PAGEOUT); pass_time());
    show("eviction with swap-out", (with - alone) / LEAVING);
    return 0;
child:
    cost("copy-on-write fault", PAGES, touch(memory, 2));
    fflush(stdout);
    _exit(0);
}
