/* Whatever a program makes for the kernel to remember, it makes until it is refused: the kernel must say
 * so, and go on. For the kernel alone: Linux has more memory for such things than a test should take.
 */
#include "program.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/shm.h>

enum { MOST = 1 << 20 };

static int files(void) {
    char name[32];
    for (int n = 0; n < MOST; n++) {
        snprintf(name, sizeof name, "/tmp/file%d", n);
        int file = open(name, O_CREAT | O_WRONLY, 0600);
        if (file < 0) {
            int refused = errno;
            for (int m = 0; m < n; m++) {
                snprintf(name, sizeof name, "/tmp/file%d", m);
                unlink(name);
            }
            return refused;
        }
        close(file);
    }
    return 0;
}

static int pipes(void) {
    static char bytes[4096];
    int ends[2];
    /* As a child, which has the table of descriptors to itself, and children of its own. */
    for (int n = 0; n < MOST; n++) {
        if (pipe(ends) < 0) {
            if (errno != EMFILE) return errno;
            pid_t child = fork();
            if (child < 0) return errno;
            if (child > 0) {
                int status;
                check(waitpid(child, &status, 0) == child && WIFEXITED(status));
                return WEXITSTATUS(status);
            }
            for (int file = 3; file < 1 << 16; file++) close(file);
            continue;
        }
        fcntl(ends[1], F_SETFL, O_NONBLOCK);
        while (write(ends[1], bytes, sizeof bytes) > 0) {
        }
    }
    return 0;
}

static int processes(void) {
    static pid_t all[1 << 15];
    int count = 0, refused = 0;
    while (count < 1 << 15 && !refused) {
        pid_t child = fork();
        if (child == 0) {
            pause();
            _exit(0);
        }
        if (child < 0) refused = errno;
        else all[count++] = child;
    }
    for (int n = 0; n < count; n++) kill(all[n], SIGKILL);
    for (int n = 0; n < count; n++) check(wait(0) > 0);
    return refused;
}

static int areas(void) {
    char *memory = mmap(0, 8L << 30, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    check(memory != MAP_FAILED);
    for (long n = 0; n < MOST; n++) {
        if (mprotect(memory + n * 2 * PAGE, PAGE, PROT_READ) < 0) {
            int refused = errno;
            fork(); /* which has to copy them all, or is refused as well */
            return refused;
        }
    }
    return 0;
}

static int segments(void) {
    static int all[1 << 18];
    int count = 0;
    while (count < 1 << 18 && (all[count] = shmget(IPC_PRIVATE, PAGE, 0600)) >= 0) count++;
    int refused = errno;
    for (int n = 0; n < count; n++) check(shmctl(all[n], IPC_RMID, 0) == 0);
    return refused;
}

static void exhaust(const char *name, int (*make)(void)) {
    for (int turn = 0; turn < 2; turn++) {
        pid_t child = fork();
        if (child == 0) _exit(make());
        check(child > 0);
        int status;
        check(waitpid(child, &status, 0) == child && WIFEXITED(status));
        printf("%-10s %s\n", name, strerror(WEXITSTATUS(status)));
    }
}

int main(void) {
    begin();
    exhaust("files", files);
    exhaust("pipes", pipes);
    exhaust("processes", processes);
    exhaust("areas", areas);
    exhaust("segments", segments);
    printf("exhaust: done\n");
    return 0;
}
