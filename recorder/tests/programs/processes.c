/* Makes processes and threads: what is asked for in the first argument. */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096, THREADS = 4, CROWD = 530 };

static char *area;

static void write_pages(long from, long to) {
    for (long page = from; page < to; page++) ((volatile char *)area)[page * PAGE] += 1;
}

static void *churn(void *argument) {
    long seed = (long)argument;
    for (int round = 0; round < 300; round++) {
        long pages = 1 + (seed + round) % 7;
        char *start =
            mmap(0, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (start == MAP_FAILED) exit(9);
        for (long page = 0; page < pages; page++) ((volatile char *)start)[page * PAGE] = 1;
        madvise(start, pages * PAGE, MADV_DONTNEED);
        for (long page = 0; page < pages; page++) ((volatile char *)start)[page * PAGE] = 1;
        munmap(start, pages * PAGE);
    }
    return 0;
}

static pthread_barrier_t barrier;

static void *meet(void *argument) {
    pthread_barrier_wait(&barrier);
    return argument;
}

int main(int count, char **words) {
    if (count < 2) return 8;
    area = mmap(0, 500 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    write_pages(0, 300);
    const char *what = words[1];
    if (!strcmp(what, "fork")) {
        int child = fork();
        if (child == 0) {
            write_pages(0, 100);
            write_pages(300, 350);
            _exit(3);
        }
        int status;
        waitpid(child, &status, 0);
        write_pages(0, 200);
        return WEXITSTATUS(status);
    }
    if (!strcmp(what, "vfork")) {
        int child = vfork();
        if (child == 0) {
            execl("/bin/true", "true", (char *)0);
            _exit(9);
        }
        int status;
        waitpid(child, &status, 0);
        return WEXITSTATUS(status);
    }
    if (!strcmp(what, "threads")) {
        pthread_t threads[THREADS];
        for (long index = 0; index < THREADS; index++)
            pthread_create(&threads[index], 0, churn, (void *)index);
        for (int index = 0; index < THREADS; index++) pthread_join(threads[index], 0);
        return 0;
    }
    if (!strcmp(what, "crowd")) {
        /* More threads at a time than there are slots. */
        pthread_attr_t attributes;
        pthread_attr_init(&attributes);
        pthread_attr_setstacksize(&attributes, 65536);
        pthread_t threads[CROWD];
        pthread_barrier_init(&barrier, 0, CROWD);
        for (int index = 0; index < CROWD; index++)
            if (pthread_create(&threads[index], &attributes, meet, 0)) return 7;
        for (int index = 0; index < CROWD; index++) pthread_join(threads[index], 0);
        return 0;
    }
    if (!strcmp(what, "segv")) {
        write_pages(300, 400);
        *(volatile char *)8 = 1;
    }
    if (!strcmp(what, "abort")) abort();
    if (!strcmp(what, "kill")) {
        int child = fork();
        if (child == 0) {
            write_pages(300, 333);
            kill(getpid(), SIGKILL);
        }
        int status;
        waitpid(child, &status, 0);
        return WIFSIGNALED(status) ? WTERMSIG(status) : 99;
    }
    if (!strcmp(what, "orphan")) {
        if (fork() == 0) {
            usleep(300000);
            write_pages(300, 377);
            _exit(5);
        }
        return 0;
    }
    if (!strcmp(what, "hang"))
        for (;;) {
            write_pages(0, 300);
            usleep(1000);
        }
    return 8;
}
