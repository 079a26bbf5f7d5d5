/* Touches memory in known numbers. Each phase begins with a mark: an madvise of a null range. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <unistd.h>

enum { PAGE = 4096 };

static char *anonymous(long pages, int flags) {
    char *start = mmap(0, pages * PAGE, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED) exit(9);
    return start;
}

static void write_all(char *start, long pages) {
    for (long page = 0; page < pages; page++) ((volatile char *)start)[page * PAGE] = 1;
}

int main(int count, char **words) {
    if (count < 2) return 8;
    /* 1000 pages written, twice, then dropped and 600 written again. */
    char *area = anonymous(1000, MAP_PRIVATE);
    write_all(area, 1000);
    write_all(area, 1000);
    madvise(area, 600 * PAGE, MADV_DONTNEED);
    write_all(area, 600);
    mprotect(area, 10 * PAGE, PROT_READ);
    munmap(area, 1000 * PAGE);

    /* The kernel writes 64 fresh pages and reads 32 of them. */
    int file = open(words[1], O_RDWR | O_CREAT | O_TRUNC, 0600);
    char *data = anonymous(64, MAP_PRIVATE);
    if (ftruncate(file, 64 * PAGE) != 0) return 7;
    if (pread(file, data, 64 * PAGE, 0) != 64 * PAGE) return 7;
    if (lseek(file, 8 * PAGE, SEEK_SET) < 0) return 7;
    if (write(file, data, 32 * PAGE) != 32 * PAGE) return 7;
    fsync(file);
    char *mapped = mmap(0, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 4 * PAGE);
    write_all(mapped, 16);
    msync(mapped, 16 * PAGE, MS_SYNC);
    close(file);
    unlink(words[1]);

    /* Shared memory of both kinds, a move, a heap, a failure. */
    write_all(anonymous(5, MAP_SHARED), 5);
    int segment = shmget(IPC_PRIVATE, 3 * PAGE, IPC_CREAT | 0600);
    if (segment >= 0) {
        char *attached = shmat(segment, 0, 0);
        write_all(attached, 3);
        shmdt(attached);
        shmctl(segment, IPC_RMID, 0);
    }
    char *small = anonymous(4, MAP_PRIVATE);
    write_all(small, 4);
    char *grown = mremap(small, 4 * PAGE, 400 * PAGE, MREMAP_MAYMOVE);
    write_all(grown, 400);
    char *heap = sbrk(20 * PAGE);
    write_all(heap, 20);
    munmap((void *)1, PAGE);
    return 42;
}
