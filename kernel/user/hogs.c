/* A process whose threads want more memory than there is, on several processors, beside others that want
 * little. Only the first may be killed, though another processor may run it when that is decided. For
 * the kernel alone: Linux would have to be short of memory.
 */
#include "program.h"

#include <pthread.h>
#include <signal.h>

enum { ROUNDS = 3, OTHERS = 3, FEW = 256, PAGES = 1 << 16 };

static char *memory;

static void *hog(void *first) {
    for (long page = first != 0; page < PAGES; page += 2) memory[page * PAGE] = 1;
    return 0;
}

static void modest(void) {
    for (;;) {
        char *some = area(FEW, MAP_PRIVATE);
        write_pages(some, FEW, 1);
        munmap(some, FEW * PAGE);
    }
}

int main(void) {
    begin();
    for (int round = 0; round < ROUNDS; round++) {
        pid_t others[OTHERS];
        for (int n = 0; n < OTHERS; n++)
            if ((others[n] = fork()) == 0) modest();
        pid_t child = fork();
        if (child == 0) {
            memory = area(PAGES, MAP_PRIVATE | MAP_NORESERVE);
            pthread_t thread;
            check(pthread_create(&thread, 0, hog, memory) == 0);
            hog(0);
        }
        int status, killed = 0;
        check(waitpid(child, &status, 0) == child && WIFSIGNALED(status));
        for (int n = 0; n < OTHERS; n++) {
            killed += waitpid(others[n], &status, WNOHANG) == others[n];
            kill(others[n], SIGKILL);
            waitpid(others[n], &status, 0);
        }
        printf("the hog was killed, and %d others\n", killed);
    }
    return 0;
}
