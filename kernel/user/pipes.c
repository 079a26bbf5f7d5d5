/* Processes that talk: bytes through pipes, programs that replace themselves, locks in shared
 * memory, and clocks that do not go back. */
#include "program.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>

enum { BYTES = 1 << 20, PROCESSES = 3, ROUNDS = 500 };

/* More bytes than a pipe holds: the writer waits for the reader. */
static void stream(void) {
    int ends[2];
    check(pipe(ends) == 0);
    pid_t child = fork();
    if (child == 0) {
        close(ends[0]);
        uint64_t page[WORDS];
        for (long i = 0; i < BYTES / PAGE; i++) {
            fill_page(page, i + 1);
            check(write(ends[1], page, PAGE) == PAGE);
        }
        _exit(0);
    }
    close(ends[1]);
    char page[PAGE];
    long bytes = 0, filled = 0, got;
    while ((got = read(ends[0], page + bytes % PAGE, PAGE - bytes % PAGE)) > 0) {
        bytes += got;
        if (bytes % PAGE == 0) filled += is_filled(page, bytes / PAGE);
    }
    check(got == 0 && ended(child) == 0);
    printf("%ld bytes and %ld pages came through, then the end\n", bytes, filled);
    close(ends[0]);
}

static void ends(void) {
    int ends[2];
    char byte;
    check(pipe2(ends, O_NONBLOCK) == 0);
    check(read(ends[0], &byte, 1) == -1 && errno == EAGAIN);
    check(write(ends[1], "x", 1) == 1 && read(ends[0], &byte, 1) == 1 && byte == 'x');
    check(lseek(ends[0], 0, SEEK_SET) == -1 && errno == ESPIPE);
    check(write(ends[0], "x", 1) == -1 && errno == EBADF);
    close(ends[0]);
    signal(SIGPIPE, SIG_IGN);
    check(write(ends[1], "x", 1) == -1 && errno == EPIPE);
    signal(SIGPIPE, SIG_DFL);
    close(ends[1]);
    pid_t child = fork();
    if (child == 0) {
        check(pipe(ends) == 0);
        close(ends[0]);
        check(write(ends[1], "x", 1) == 1);
        _exit(0);
    }
    printf("a writer without a reader ended with %d\n", ended(child));
}

/* All parts of a vector go at once, and what went before a page that is not there counts. */
static void parts(void) {
    int ends[2], count, nonblocking = 1;
    char start[4] = {0}, rest[16] = {0};
    check(pipe2(ends, 1) == -1 && errno == EINVAL && pipe(ends) == 0);
    struct iovec out[] = {{"abc", 3}, {0, 0}, {"defghij", 7}}, in[] = {{start, 4}, {rest, 16}};
    check(writev(ends[1], out, 3) == 10 && ioctl(ends[0], FIONREAD, &count) == 0 && count == 10);
    check(readv(ends[0], in, 2) == 10 && !memcmp(start, "abcd", 4) && !strcmp(rest, "efghij"));
    check(syscall(SYS_writev, ends[1], out, -1) == -1 && errno == EINVAL);
    check(ioctl(ends[0], FIONBIO, &nonblocking) == 0);
    check(read(ends[0], rest, 1) == -1 && errno == EAGAIN);
    char *pages = area(2, MAP_PRIVATE);
    check(munmap(pages + PAGE, PAGE) == 0);
    check(write(ends[1], pages, 2 * PAGE) == PAGE);
    check(write(ends[1], pages + PAGE, 1) == -1 && errno == EFAULT);
    check(munmap(pages, PAGE) == 0 && close(ends[0]) == 0 && close(ends[1]) == 0);
    printf("vectors of 10 bytes go as one\n");
}

static void *reader(void *pipe) {
    char bytes[8] = {0};
    long got = read(*(int *)pipe, bytes, sizeof bytes);
    return (void *)(got == 4 && !strcmp(bytes, "late") ? 1L : 0L);
}

/* Who waits in a file stays with it, whatever becomes of the descriptor. */
static void closing(void) {
    int ends[2], others[2];
    check(pipe(ends) == 0 && pipe(others) == 0);
    pthread_t thread;
    int waited_for = ends[0];
    check(pthread_create(&thread, 0, reader, &waited_for) == 0);
    nanosleep(&(struct timespec){0, 50000000}, 0);
    check(dup2(others[0], ends[0]) == ends[0] && close(others[0]) == 0);
    check(write(ends[1], "late", 4) == 4);
    void *got;
    check(pthread_join(thread, &got) == 0 && got);
    check(signal(SIGPIPE, SIG_IGN) != SIG_ERR && write(ends[1], "x", 1) == -1 && errno == EPIPE);
    signal(SIGPIPE, SIG_DFL);
    close(ends[0]), close(ends[1]), close(others[1]);
    printf("a reader whose descriptor is replaced gets what it waited for\n");
}

/* The program runs itself: with words, with its output in a pipe, and one that is not there. */
static void programs(char *self) {
    int ends[2];
    check(pipe(ends) == 0);
    pid_t child = vfork();
    if (child == 0) {
        dup2(ends[1], 1);
        close(ends[0]);
        close(ends[1]);
        execve(self, (char *[]){self, "say", "a word", "", 0}, (char *[]){"HOME=/root", 0});
        _exit(127);
    }
    close(ends[1]);
    char text[256];
    long bytes = 0, got;
    while ((got = read(ends[0], text + bytes, sizeof text - 1 - bytes)) > 0) bytes += got;
    text[bytes] = 0;
    close(ends[0]);
    int status;
    struct rusage usage;
    check(wait4(child, &status, 0, &usage) == child && WIFEXITED(status));
    check(usage.ru_minflt > 0);
    printf("%sit exited with %d\n", text, WEXITSTATUS(status));
    check(execve("/bin/nothing", (char *[]){"nothing", 0}, (char *[]){0}) == -1);
    printf("a program that is not there: %s\n", errno == ENOENT ? "ENOENT" : "another error");
}

/* A lock and a condition in memory that processes share, so at different addresses if they like. */
struct common {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    long turn, sum;
};

static void locks(void) {
    struct common *common = (struct common *)area(1, MAP_SHARED);
    pthread_mutexattr_t of_mutex;
    pthread_condattr_t of_condition;
    pthread_mutexattr_init(&of_mutex);
    pthread_mutexattr_setpshared(&of_mutex, PTHREAD_PROCESS_SHARED);
    pthread_mutex_init(&common->mutex, &of_mutex);
    pthread_condattr_init(&of_condition);
    pthread_condattr_setpshared(&of_condition, PTHREAD_PROCESS_SHARED);
    pthread_cond_init(&common->changed, &of_condition);
    for (long i = 0; i < PROCESSES; i++) {
        if (fork() != 0) continue;
        for (long round = 0; round < ROUNDS; round++) {
            pthread_mutex_lock(&common->mutex);
            while (common->turn % PROCESSES != i)
                pthread_cond_wait(&common->changed, &common->mutex);
            common->turn++;
            common->sum += i;
            pthread_cond_broadcast(&common->changed);
            pthread_mutex_unlock(&common->mutex);
        }
        _exit(0);
    }
    for (int i = 0; i < PROCESSES; i++) check(ended(-1) == 0);
    printf("%d processes took %ld turns that add up to %ld\n", PROCESSES, common->turn,
           common->sum);
    munmap(common, PAGE);
}

static int64_t now(void) {
    struct timespec time;
    check(clock_gettime(CLOCK_MONOTONIC, &time) == 0 && time.tv_nsec < 1000000000);
    return time.tv_sec * 1000000000 + time.tv_nsec;
}

static void clocks(void) {
    int64_t start = now(), last = start;
    for (int i = 0; i < 1000; i++) {
        int64_t next = now();
        check(next >= last);
        last = next;
    }
    start = now();
    check(nanosleep(&(struct timespec){0, 20000000}, 0) == 0);
    check(now() - start >= 20000000);
    for (int i = 0; i < 10; i++) check(sched_yield() == 0);
    printf("the clock goes on, and a sleep is as long as it was to be\n");
}

int main(int count, char **words) {
    begin();
    if (count > 1) {
        const char *home = getenv("HOME");
        printf("%d words, the last but one is '%s', home is %s\n", count, words[count - 2], home);
        return 5;
    }
    stream();
    ends();
    parts();
    closing();
    programs(words[0]);
    locks();
    clocks();
    printf("pipes: done\n");
    return 0;
}
