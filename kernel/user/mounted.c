/* A file of a disk, read by calls and through a mapping: each page is the same both ways, or cannot
 * be had either way.
 */
#include "program.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>

/* Whether who touches a page is killed for it. */
static int is_bus_error(const volatile char *page) {
    pid_t child = fork();
    if (child == 0) _exit(*page == 0);
    int status;
    check(waitpid(child, &status, 0) == child);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS;
}

int main(int count, char **words) {
    begin();
    check(count == 2);
    int file = open(words[1], O_RDONLY);
    struct stat status;
    check(file >= 0 && fstat(file, &status) == 0);
    char *map = mmap(0, status.st_size, PROT_READ, MAP_PRIVATE, file, 0);
    check(map != MAP_FAILED);
    char read[PAGE];
    int same = 0, lost = 0, wrong = 0;
    for (long at = 0; at < status.st_size; at += PAGE) {
        ssize_t bytes = pread(file, read, PAGE, at);
        if (bytes > 0 && memcmp(read, map + at, bytes) == 0) same++;
        else if (bytes < 0 && errno == EIO && is_bus_error(map + at)) lost++;
        else wrong++;
    }
    printf("%d pages the same, %d failed, %d wrong\n", same, lost, wrong);
    check(open(words[1], O_RDWR) < 0 && errno == EROFS);
    return 0;
}
