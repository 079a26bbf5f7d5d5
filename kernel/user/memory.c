/* What the calls of memory promise: which faults each step takes, what is left, what is refused. */
#include "program.h"

#include <fcntl.h>
#include <sys/shm.h>
#include <sys/syscall.h>

enum { PAGES = 64 };

/* Prints what a call is refused with. */
#define try(call) printf("%-52s %s\n", #call, (call) == -1 ? refusal() : "done")

static const char *refusal(void) {
    switch (errno) {
    case EACCES: return "EACCES";
    case EBADF: return "EBADF";
    case EEXIST: return "EEXIST";
    case EFAULT: return "EFAULT";
    case EINVAL: return "EINVAL";
    case ENOMEM: return "ENOMEM";
    case EOVERFLOW: return "EOVERFLOW";
    default: return strerror(errno);
    }
}

/* An address that no program has; the compiler is not to know. */
static void *volatile nowhere = (void *)1;

static long map(void *start, size_t bytes, int rights, int flags) {
    return (long)mmap(start, bytes, rights, flags, -1, 0);
}

static long move(void *start, size_t old, size_t new, int flags) {
    return (long)mremap(start, old, new, flags);
}

/* By the call itself: a C library may round the address first. */
static long protect(void *start, size_t bytes, int rights) {
    return syscall(SYS_mprotect, start, bytes, rights);
}

static void touches(void) {
    char *memory = area(PAGES, MAP_PRIVATE);
    stage("first writes", write_pages(memory, PAGES, 1));
    stage("second writes", write_pages(memory, PAGES, 2));
    munmap(memory, PAGES * PAGE);

    memory = area(PAGES, MAP_PRIVATE);
    stage("first reads find zeros", check(read_pages(memory, PAGES, 0) == PAGES));
    stage("reads again", check(read_pages(memory, PAGES, 0) == PAGES));
    stage("writes after reads", write_pages(memory, PAGES, 1));
    munmap(memory, PAGES * PAGE);

    memory = area(PAGES, MAP_SHARED);
    stage("first writes to shared memory", write_pages(memory, PAGES, 1));
    stage("second writes to shared memory", write_pages(memory, PAGES, 2));
    munmap(memory, PAGES * PAGE);

    memory = mmap(0, PAGES * PAGE, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    check(memory != MAP_FAILED);
    stage("writes to memory mapped with MAP_POPULATE", write_pages(memory, PAGES, 1));
    munmap(memory, PAGES * PAGE);

    /* The kernel writes into memory that no one has touched. */
    memory = area(PAGES, MAP_PRIVATE);
    int ends[2];
    check(pipe(ends) == 0);
    char bytes[8 * PAGE];
    memset(bytes, 3, sizeof bytes);
    check(write(ends[1], bytes, sizeof bytes) == sizeof bytes);
    stage("read() into 8 fresh pages", check(read(ends[0], memory, 8 * PAGE) == 8 * PAGE));
    check(read_pages(memory, 8, 3) == 8);
    close(ends[0]);
    close(ends[1]);
    munmap(memory, PAGES * PAGE);
}

static void advice(void) {
    char *memory = area(PAGES, MAP_PRIVATE);
    write_pages(memory, PAGES, 1);
    check(madvise(memory + 8 * PAGE, 16 * PAGE, MADV_DONTNEED) == 0);
    stage("reads of what DONTNEED kept",
          check(read_pages(memory, 8, 1) + read_pages(memory + 24 * PAGE, 40, 1) == 48));
    stage("reads of what DONTNEED dropped", check(read_pages(memory + 8 * PAGE, 16, 0) == 16));
    check(madvise(memory, PAGES * PAGE, MADV_DONTNEED) == 0);
    stage("writes after DONTNEED of all", write_pages(memory, PAGES, 2));
    check(madvise(memory, PAGES * PAGE, MADV_WILLNEED) == 0);
    check(madvise(memory, PAGES * PAGE, MADV_SEQUENTIAL) == 0);
    check(madvise(memory, PAGES * PAGE, MADV_NORMAL) == 0);
    stage("writes after advice that keeps pages", write_pages(memory, PAGES, 3));
    munmap(memory, PAGES * PAGE);
}

static void moves(void) {
    char *memory = area(PAGES, MAP_PRIVATE);
    write_pages(memory, PAGES, 1);
    char *goal = area(2 * PAGES, MAP_PRIVATE);
    write_pages(goal, 2 * PAGES, 9);
    char *moved =
        mremap(memory, PAGES * PAGE, 2 * PAGES * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, goal);
    check(moved == goal);
    stage("reads of pages that moved", check(read_pages(moved, PAGES, 1) == PAGES));
    stage("writes to pages that moved", write_pages(moved, PAGES, 2));
    stage("writes to pages that moving added", write_pages(moved + PAGES * PAGE, PAGES, 2));
    check(mincore(memory, PAGE, (unsigned char[1]){0}) == -1 && errno == ENOMEM);
    check(mremap(moved, 2 * PAGES * PAGE, PAGES / 2 * PAGE, 0) == moved);
    stage("reads after it shrank", check(read_pages(moved, PAGES / 2, 2) == PAGES / 2));
    check(mremap(moved, PAGES / 2 * PAGE, PAGES * PAGE, 0) == moved);
    stage("writes after it grew again in place", write_pages(moved, PAGES, 3));
    munmap(moved, PAGES * PAGE);
}

static void rights(void) {
    char *memory = area(PAGES, MAP_PRIVATE);
    write_pages(memory, PAGES, 1);
    check(mprotect(memory, PAGES * PAGE, PROT_READ) == 0);
    stage("reads of memory made read-only", check(read_pages(memory, PAGES, 1) == PAGES));
    check(mprotect(memory, PAGES * PAGE, PROT_NONE) == 0);
    check(mprotect(memory, PAGES * PAGE, PROT_READ | PROT_WRITE) == 0);
    stage("reads of memory made accessible again",
          check(read_pages(memory, PAGES, 1) == PAGES));
    munmap(memory, PAGES * PAGE);

    /* A hole, another right in the middle, and one unmap over all that is left. */
    memory = area(PAGES, MAP_PRIVATE);
    write_pages(memory, PAGES, 1);
    check(munmap(memory + 16 * PAGE, 8 * PAGE) == 0);
    check(mprotect(memory + 32 * PAGE, 8 * PAGE, PROT_READ) == 0);
    check(mmap(memory + 48 * PAGE, 8 * PAGE, PROT_READ | PROT_WRITE,
               MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == memory + 48 * PAGE);
    stage("reads around a hole and a new mapping",
          check(read_pages(memory, 16, 1) + read_pages(memory + 24 * PAGE, 24, 1) +
                    read_pages(memory + 56 * PAGE, 8, 1) == 48));
    stage("reads of what MAP_FIXED put there", check(read_pages(memory + 48 * PAGE, 8, 0) == 8));
    unsigned char there[PAGES];
    check(mincore(memory, PAGES * PAGE, there) == -1 && errno == ENOMEM);
    check(munmap(memory, PAGES * PAGE) == 0);
    check(mincore(memory, PAGE, there) == -1 && errno == ENOMEM);
}

/* The end of the heap, by the call itself: not every C library has a use for it. */
static char *heap_end(char *wanted) { return (char *)syscall(SYS_brk, wanted); }

static void heap(void) {
    char *start = (char *)(((uintptr_t)heap_end(0) + PAGE - 1) & -PAGE);
    char *end = start + PAGES * PAGE;
    check(heap_end(end) == end);
    stage("first writes to the heap", write_pages(start, PAGES, 1));
    check(heap_end(end - PAGES / 2 * PAGE) == end - PAGES / 2 * PAGE && heap_end(end) == end);
    stage("writes to a heap that shrank and grew", write_pages(start, PAGES, 2));
    check(heap_end(start) == start && heap_end((char *)1) == start);
}

static void locks(void) {
    char *memory = area(16, MAP_PRIVATE);
    stage("mlock() of 16 fresh pages", check(mlock(memory, 16 * PAGE) == 0));
    stage("writes to locked memory", write_pages(memory, 16, 1));
    check(munlock(memory, 16 * PAGE) == 0);
    unsigned char there[16];
    check(mincore(memory, 16 * PAGE, there) == 0);
    long resident = 0;
    for (int page = 0; page < 16; page++) resident += there[page] & 1;
    printf("%ld of 16 pages are resident\n", resident);
    check(madvise(memory, 4 * PAGE, MADV_DONTNEED) == 0);
    check(mincore(memory, 16 * PAGE, there) == 0);
    for (int page = 0; page < 4; page++) resident -= !(there[page] & 1);
    printf("%ld of 16 pages are resident after DONTNEED of 4\n", resident);
    munmap(memory, 16 * PAGE);
}

/* A shared mapping of a file that is open for reading never gets the right to write; a private one may. */
static void read_only(const char *self) {
    int file = open(self, O_RDONLY);
    check(file >= 0);
    char *shared = mmap(0, PAGE, PROT_READ, MAP_SHARED, file, 0);
    char *private = mmap(0, PAGE, PROT_READ, MAP_PRIVATE, file, 0);
    check(shared != MAP_FAILED && private != MAP_FAILED);
    const int both = PROT_READ | PROT_WRITE;
    try(protect(shared, PAGE, both));
    try(protect(shared, PAGE, PROT_READ | PROT_EXEC));
    try(protect(private, PAGE, both));
    private[1] = 'X';
    check(shared[1] == 'E');
    try((long)syscall(SYS_mmap, 0, PAGE, PROT_READ, MAP_SHARED, file, -PAGE));
    try(madvise(private, PAGE, MADV_WIPEONFORK));
    munmap(shared, PAGE);
    munmap(private, PAGE);
    close(file);
}

/* A segment that was removed lives on where it is attached. */
static void segments(void) {
    int segment = shmget(IPC_PRIVATE, 2 * PAGE, 0600);
    char *memory = shmat(segment, 0, 0);
    check(segment >= 0 && memory != (char *)-1);
    struct shmid_ds status;
    check(shmctl(segment, IPC_STAT, &status) == 0);
    printf("a segment of %ld bytes, attached %ld times\n", (long)status.shm_segsz,
           (long)status.shm_nattch);
    check(shmctl(segment, IPC_RMID, 0) == 0);
    write_pages(memory, 2, 3);
    check(read_pages(memory, 2, 3) == 2);
    check(shmdt(memory) == 0);
    check(shmdt(memory) == -1 && errno == EINVAL);
    check(shmctl(segment, IPC_STAT, &status) == -1 && errno == EINVAL);
}

/* Uses a stack far below what any call before has used. */
static __attribute__((noinline)) void use_stack(const char *name) {
    char pages[(PAGES + 32) * PAGE];
    stage(name, write_pages(pages + 8 * PAGE, PAGES, 1));
    check(read_pages(pages + 8 * PAGE, PAGES, 1) == PAGES);
}

static void refusals(void) {
    char *memory = area(4, MAP_PRIVATE), *gone = area(4, MAP_PRIVATE);
    const int both = PROT_READ | PROT_WRITE, private = MAP_PRIVATE | MAP_ANONYMOUS;
    const int at_most = private | MAP_FIXED_NOREPLACE;
    unsigned char there[4];
    munmap(gone, 4 * PAGE);
    try(map(0, 0, both, private));
    try(map(0, PAGE, both, MAP_ANONYMOUS));
    try(map(memory + 1, PAGE, both, private | MAP_FIXED));
    try(map(0, -PAGE, both, private));
    try(map(0, 1L << 47, both, private | MAP_NORESERVE));
    try(map(memory, PAGE, both, at_most));
    try(map(0, PAGE, both, MAP_PRIVATE));
    try(munmap(memory + 1, PAGE));
    try(munmap(memory, 0));
    try(munmap(gone, PAGE));
    try(protect(memory + 1, PAGE, both));
    try(protect(gone, PAGE, both));
    try(protect(memory, 0, both));
    try(protect(memory, PAGE, 64));
    try(madvise(memory + 1, PAGE, MADV_DONTNEED));
    try(madvise(gone, PAGE, MADV_DONTNEED));
    try(madvise(memory, PAGE, 9999));
    try(move(memory + 1, PAGE, PAGE, 0));
    try(move(memory, PAGE, 0, 0));
    try(move(gone, PAGE, 2 * PAGE, MREMAP_MAYMOVE));
    try(move(memory, PAGE, 2 * PAGE, 0));
    try(move(memory, PAGE, PAGE, 64));
    try(mincore(memory + 1, PAGE, there));
    try(mincore(memory, PAGE, nowhere));
    try(msync(memory + 1, PAGE, MS_SYNC));
    try(msync(memory, PAGE, MS_SYNC | MS_ASYNC));
    try(msync(gone, PAGE, MS_SYNC));
    try(mlock(gone, PAGE));
    try(munlock(gone, PAGE));
    try(map(0, PAGE, both, private | MAP_SHARED));
    try(map(0, PAGE, both, MAP_SHARED | MAP_ANONYMOUS | MAP_GROWSDOWN));
    try(map(0, 2 << 20, both, private | MAP_HUGETLB));
    try(munmap(memory, -1L));
    try(move(memory, 1L << 60, PAGE, 0));
    try(move(memory, PAGE, 1L << 60, MREMAP_MAYMOVE));
    try(mlockall(0));
    try(mlockall(64));
    try(pipe(nowhere));
    try(write(-1, memory, 1));
    try(open(nowhere, O_RDONLY));
    munmap(memory, 4 * PAGE);
}

int main(int count, char **words) {
    check(count == 1);
    begin();
    touches();
    advice();
    moves();
    rights();
    heap();
    locks();
    use_stack("first use of the stack");
    use_stack("second use of the stack");
    refusals();
    read_only(words[0]);
    segments();
    printf("memory: done\n");
    return 0;
}
