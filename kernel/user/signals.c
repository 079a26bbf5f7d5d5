/* Accesses that no mapping allows become signals that say what and where; handlers repair or leave.
 * Then children's ends, blocked signals, and a stack that runs out. */
#include "program.h"

#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <ucontext.h>

static sigjmp_buf escape;
static siginfo_t seen;
static long trap, error;
static char *repaired;
static volatile long handled;

static void leave(int signal, siginfo_t *info, void *context) {
    (void)signal;
    const greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    seen = *info;
    trap = registers[REG_TRAPNO];
    error = registers[REG_ERR];
    siglongjmp(escape, 1);
}

/* Gives the page that was hit its right to be written, and lets the store be tried again. */
static void repair(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)context;
    handled++;
    char *page = (char *)((uintptr_t)info->si_addr & -PAGE);
    if (page < repaired || mprotect(page, PAGE, PROT_READ | PROT_WRITE) != 0) _exit(9);
}

static void count_signal(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)context;
    seen = *info;
    handled++;
}

static void handle(int signal, void (*handler)(int, siginfo_t *, void *), int flags) {
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | flags};
    sigemptyset(&action.sa_mask);
    check(sigaction(signal, &action, 0) == 0);
}

static const char *named(int signal) {
    switch (signal) {
    case SIGSEGV: return "SIGSEGV";
    case SIGBUS: return "SIGBUS";
    case SIGFPE: return "SIGFPE";
    case SIGILL: return "SIGILL";
    default: return "?";
    }
}

static const char *cause(int signal, int code) {
    if (signal == SIGSEGV && code == SEGV_MAPERR) return "not mapped";
    if (signal == SIGSEGV && code == SEGV_ACCERR) return "not allowed";
    if (signal == SIGBUS && code == BUS_ADRERR) return "beyond the end of the file";
    if (signal == SIGFPE && code == FPE_INTDIV) return "division by zero";
    if (signal == SIGILL && code == ILL_ILLOPN) return "illegal operand";
    return "?";
}

static void tell(const char *name) {
    printf("%-36s %s, %s\n", name, named(seen.si_signo), cause(seen.si_signo, seen.si_code));
}

/* Does `access`, which is to end in a signal at `address`, and tells which. */
#define caught(name, access, address)                                     \
    do {                                                                  \
        if (sigsetjmp(escape, 1) == 0) {                                  \
            access;                                                       \
            printf("%-36s nothing\n", name);                              \
        } else {                                                          \
            tell(name);                                                   \
            check(seen.si_addr == (void *)(address));                     \
        }                                                                 \
    } while (0)

/* Near null, where nothing ever is; the compiler is not to know. */
static char *volatile null = (char *)16;

static void violations(void) {
    handle(SIGSEGV, leave, 0);
    caught("read near null", (void)*(volatile char *)null, null);
    caught("write near null", *(volatile char *)null = 1, null);
    char *const memory = area(4, MAP_PRIVATE);
    volatile char *const at = memory;
    write_pages(memory, 4, 1);
    check(mprotect(memory + PAGE, PAGE, PROT_READ) == 0);
    check(mprotect(memory + 2 * PAGE, PAGE, PROT_NONE) == 0);
    caught("write to read-only memory", at[PAGE + 5] = 1, at + PAGE + 5);
    caught("read of memory without rights", (void)at[2 * PAGE], at + 2 * PAGE);
    caught("call of memory that is no code", ((void (*)(void))(uintptr_t)memory)(), memory);
    check(munmap(memory, 4 * PAGE) == 0);
    caught("read of memory that is unmapped", (void)at[3 * PAGE], at + 3 * PAGE);
}

static void ends_of_files(void) {
    handle(SIGBUS, leave, 0);
    const int file = memfd_create("memory", 0);
    check(file >= 0 && ftruncate(file, 2 * PAGE) == 0);
    char *const memory = mmap(0, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    check(memory != MAP_FAILED);
    volatile char *const at = memory;
    caught("write within a file", at[2 * PAGE - 1] = 1, 0);
    caught("write beyond its last page", at[2 * PAGE] = 1, at + 2 * PAGE);
    check(ftruncate(file, PAGE) == 0);
    caught("read of a page that was cut off", (void)at[PAGE], at + PAGE);
    check(munmap(memory, 4 * PAGE) == 0 && close(file) == 0);
}

static void instructions(void) {
    static volatile int zero;
    handle(SIGFPE, leave, 0);
    handle(SIGILL, leave, 0);
    if (sigsetjmp(escape, 1) == 0) zero = 1000 / zero;
    tell("division by zero");
    if (sigsetjmp(escape, 1) == 0) __asm__ volatile("ud2");
    tell("undefined instruction");
    printf("that was trap %ld, with error %ld\n", trap, error);
    handle(SIGTRAP, leave, 0);
    if (sigsetjmp(escape, 1) == 0) __asm__ volatile("int3");
    check(seen.si_signo == SIGTRAP && seen.si_code == SI_KERNEL && seen.si_addr == 0);
    printf("a breakpoint is trap %ld\n", trap);
    if (sigsetjmp(escape, 1) == 0) *(volatile char *)null = 1;
    printf("a write near null is trap %ld, with error %ld\n", trap, error);
}

/* A write barrier in user space: every first store to a page is told to the program. */
static void barrier(void) {
    enum { PAGES = 32 };
    handle(SIGSEGV, repair, 0);
    repaired = area(PAGES, MAP_PRIVATE);
    write_pages(repaired, PAGES, 1);
    check(mprotect(repaired, PAGES * PAGE, PROT_READ) == 0);
    handled = 0;
    for (int page = 0; page < PAGES; page += 2) repaired[page * PAGE] = 2;
    write_pages(repaired, PAGES / 2, 3);
    printf("a write barrier was told of %ld pages of %d\n", handled, PAGES);
    check(read_pages(repaired, PAGES, 3) == 16 && read_pages(repaired, PAGES, 2) == 8);
    munmap(repaired, PAGES * PAGE);
    handle(SIGSEGV, leave, 0);
}

static void children(void) {
    handle(SIGCHLD, count_signal, SA_RESTART);
    handled = 0;
    pid_t child = fork();
    if (child == 0) _exit(42);
    check(ended(child) == 42);
    check(seen.si_signo == SIGCHLD && seen.si_code == CLD_EXITED && seen.si_pid == child);
    printf("SIGCHLD: exited with %d\n", seen.si_status);
    child = fork();
    if (child == 0)
        for (;;) pause();
    check(kill(child, SIGTERM) == 0);
    check(ended(child) == 128 + SIGTERM);
    check(seen.si_code == CLD_KILLED && seen.si_pid == child && handled == 2);
    printf("SIGCHLD: killed by %d\n", seen.si_status);
    child = fork();
    if (child == 0) {
        signal(SIGSEGV, SIG_DFL);
        *(volatile char *)null = 1;
        _exit(0);
    }
    printf("a child without a handler ended with %d\n", ended(child));
    signal(SIGCHLD, SIG_DFL);
}

static void blocking(void) {
    sigset_t set, waiting;
    handle(SIGUSR1, count_signal, 0);
    handled = 0;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    check(sigprocmask(SIG_BLOCK, &set, 0) == 0);
    check(kill(getpid(), SIGUSR1) == 0 && kill(getpid(), SIGUSR1) == 0);
    check(handled == 0 && sigpending(&waiting) == 0 && sigismember(&waiting, SIGUSR1));
    check(sigprocmask(SIG_UNBLOCK, &set, 0) == 0);
    printf("a signal sent twice while blocked was handled %s\n", handled == 1 ? "once" : "wrongly");
    check(seen.si_code == SI_USER && seen.si_pid == getpid());
    signal(SIGUSR1, SIG_IGN);
    check(kill(getpid(), SIGUSR1) == 0 && handled == 1);
    printf("an ignored signal does nothing\n");
}

/* Signals from 32 on are kept as often as they come, with what the sender says; a program may take
 * them without a handler. */
static void queued(void) {
    sigset_t set;
    siginfo_t info;
    const int signal_ = SIGRTMIN + 1;
    const struct timespec no_time = {0, 0}, limit = {10, 0};
    handle(signal_, count_signal, 0);
    handled = 0;
    sigemptyset(&set);
    sigaddset(&set, signal_);
    check(sigprocmask(SIG_BLOCK, &set, 0) == 0);
    for (int i = 0; i < 5; i++) check(kill(getpid(), signal_) == 0);
    check(sigprocmask(SIG_UNBLOCK, &set, 0) == 0);
    printf("a real-time signal sent 5 times while blocked was handled %ld times\n", handled);
    check(sigprocmask(SIG_BLOCK, &set, 0) == 0);
    for (int i = 1; i <= 3; i++)
        check(sigqueue(getpid(), signal_, (union sigval){.sival_int = i * 11}) == 0);
    for (int i = 0; i < 3; i++) {
        check(sigtimedwait(&set, &info, &limit) == signal_);
        check(info.si_code == SI_QUEUE && info.si_pid == getpid());
        printf("taken with %d\n", info.si_value.sival_int);
    }
    check(sigtimedwait(&set, &info, &no_time) == -1 && errno == EAGAIN);
    const pid_t child = fork();
    if (child == 0) {
        usleep(20000);
        _exit(sigqueue(getppid(), signal_, (union sigval){.sival_int = 44}) != 0);
    }
    check(sigtimedwait(&set, &info, &limit) == signal_ && info.si_pid == child);
    printf("waited for one with %d\n", info.si_value.sival_int);
    check(ended(child) == 0 && handled == 5);
    check(syscall(SYS_tgkill, getpid() + 1, getpid(), 0) == -1 && errno == ESRCH);
}

/* A handler ends a wait early, unless what is waited for has come. */
static void interrupted(void) {
    int early = 0;
    handle(SIGCHLD, count_signal, 0);
    for (int i = 0; i < 10; i++) {
        const pid_t child = fork();
        if (child == 0) {
            usleep(1000);
            _exit(0);
        }
        early += waitpid(child, 0, 0) != child;
    }
    printf("%d of 10 waits for a child that ended were interrupted\n", early);
    const pid_t child = fork();
    if (child == 0) {
        usleep(50000);
        _exit(0);
    }
    struct timespec wanted = {100, 0}, left = {0, 0};
    check(nanosleep(&wanted, &left) == -1 && errno == EINTR);
    check(ended(child) == 0);
    const int less = left.tv_sec == 99 && left.tv_nsec < 951000000;
    printf("what is left of an interrupted sleep is %s\n", less ? "less" : "wrong");
    signal(SIGCHLD, SIG_DFL);
}

/* Children of a parent that does not care leave nothing to be waited for. */
static void ignored_children(void) {
    struct sigaction action = {.sa_sigaction = count_signal, .sa_flags = SA_SIGINFO | SA_NOCLDWAIT};
    for (int ignores = 0; ignores < 2; ignores++) {
        handled = 0;
        if (ignores) signal(SIGCHLD, SIG_IGN);
        else check(sigaction(SIGCHLD, &action, 0) == 0);
        if (fork() == 0) _exit(3);
        while (waitpid(-1, 0, 0) == -1 && errno == EINTR) {}
        check(errno == ECHILD);
        printf("a child that nobody waits for is told of %ld times\n", handled);
    }
    signal(SIGCHLD, SIG_DFL);
}

/* An alarm ends a wait for nothing; a signal that is let through for as long ends one for a pipe. */
static void waits(void) {
    int ends[2];
    sigset_t set, none;
    handle(SIGALRM, count_signal, SA_RESTART);
    handled = 0;
    check(alarm(100) == 0 && alarm(0) == 100);
    check(setitimer(ITIMER_REAL, &(struct itimerval){{0, 0}, {0, 10000}}, 0) == 0);
    check(pause() == -1 && errno == EINTR && seen.si_code == SI_KERNEL);
    printf("the alarm went off %ld times\n", handled);
    check(pipe(ends) == 0);
    sigemptyset(&none);
    sigemptyset(&set);
    sigaddset(&set, SIGALRM);
    check(sigprocmask(SIG_BLOCK, &set, 0) == 0 && raise(SIGALRM) == 0 && handled == 1);
    check(ppoll(&(struct pollfd){ends[0], POLLIN, 0}, 1, 0, &none) == -1 && errno == EINTR);
    check(handled == 2 && sigprocmask(SIG_BLOCK, 0, &none) == 0 && sigismember(&none, SIGALRM));
    check(sigprocmask(SIG_UNBLOCK, &set, 0) == 0);
    for (int full = 0; full < 2; full++) {
        fd_set input, output;
        struct timeval limit = {0, 1000};
        FD_ZERO(&input);
        FD_ZERO(&output);
        FD_SET(ends[0], &input);
        FD_SET(ends[1], &output);
        if (full) pass(ends[1]);
        check(select(ends[0] + 1, &input, 0, 0, &limit) == full);
        check(!FD_ISSET(ends[0], &input) == !full);
        if (full) check(select(ends[1] + 1, &input, &output, 0, 0) == 2);
    }
    check(close(ends[0]) == 0 && close(ends[1]) == 0);
    fd_set closed;
    FD_ZERO(&closed);
    FD_SET(ends[0], &closed);
    check(select(ends[0] + 1, &closed, 0, 0, 0) == -1 && errno == EBADF);
    printf("a pipe was waited for in two ways\n");
}

/* A child can be asked about before it is forgotten. */
static void asked_twice(void) {
    const pid_t child = fork();
    siginfo_t info;
    if (child == 0) _exit(8);
    check(waitid(P_PID, child, &info, WEXITED | WNOWAIT) == 0 && info.si_status == 8);
    check(waitid(P_ALL, 0, &info, WEXITED) == 0 && info.si_pid == child);
    printf("a child that is asked about twice exited with %d\n", info.si_status);
    check(waitid(P_ALL, 0, &info, WEXITED) == -1 && errno == ECHILD);
}

/* A thread's name. */
static void name(void) {
    char name[16];
    check(prctl(PR_SET_NAME, "a name that is too long") == 0 && prctl(PR_GET_NAME, name) == 0);
    printf("the name is '%s'\n", name);
    check(prctl(-1) == -1 && errno == EINVAL);
}

/* Fills the vector registers, whole, with other values. */
static void spoil(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)info, (void)context;
    static const char ones[32] __attribute__((aligned(32))) = {1, 1, 1, 1};
    __asm__ volatile("vmovaps %0, %%ymm0; vmovaps %%ymm0, %%ymm15"
                     : : "m"(ones) : "memory", "xmm0", "xmm15");
    handled++;
}

/* What a handler, and another process, do to the vector registers, the program does not see. */
static void registers(void) {
    static char before[64] __attribute__((aligned(32))), after[64] __attribute__((aligned(32)));
    for (int i = 0; i < 64; i++) before[i] = (char)(i + 100);
    handle(SIGUSR1, spoil, 0);
    handled = 0;
    const pid_t child = fork();
    if (child == 0)
        for (;;) spoil(0, 0, 0);
    /* Long enough for the other process to have its turn, then a signal to itself. */
    long result = __NR_kill, times = 50 * 1000 * 1000;
    __asm__ volatile("vmovaps (%[before]), %%ymm0; vmovaps 32(%[before]), %%ymm15\n"
                     "1: dec %[times]; jnz 1b\n"
                     "syscall\n"
                     "vmovaps %%ymm0, (%[after]); vmovaps %%ymm15, 32(%[after])"
                     : "+a"(result), [times] "+r"(times)
                     : [before] "r"(before), [after] "r"(after), "D"((long)getpid()),
                       "S"((long)SIGUSR1)
                     : "rcx", "r11", "memory", "xmm0", "xmm15");
    check(result == 0 && handled == 1);
    check(kill(child, SIGKILL) == 0 && ended(child) == 128 + SIGKILL);
    printf("vector registers are %s\n", memcmp(before, after, 64) == 0 ? "kept" : "spoilt");
    signal(SIGUSR1, SIG_DFL);
}

/* Recursion deeper than any stack. */
static __attribute__((noinline)) long recurse(long depth) {
    volatile char frame[PAGE];
    frame[0] = (char)depth;
    return depth == 0 ? 0 : recurse(depth - 1) + frame[0];
}

/* A stack that ends beyond all addresses holds no frame. */
static void no_stack(void) {
    const pid_t child = fork();
    if (child == 0) {
        check(sigaltstack(&(stack_t){.ss_sp = (void *)-4096L, .ss_size = 1L << 40}, 0) == 0);
        handle(SIGUSR1, count_signal, SA_ONSTACK);
        signal(SIGSEGV, SIG_DFL);
        raise(SIGUSR1);
        _exit(0);
    }
    printf("a handler on a stack that is none ended with %d\n", ended(child));
}

/* A stack that has run out cannot hold the frame of a handler, which has a stack of its own. */
static void overflow(void) {
    char *stack = area(16, MAP_PRIVATE);
    check(sigaltstack(&(stack_t){.ss_sp = stack, .ss_size = 16 * PAGE}, 0) == 0);
    check(setrlimit(RLIMIT_STACK, &(struct rlimit){1 << 20, 1 << 20}) == 0);
    handle(SIGSEGV, leave, SA_ONSTACK);
    if (sigsetjmp(escape, 1) == 0) check(recurse(1L << 40) == 0);
    tell("a stack that ran out");
}

int main(void) {
    begin();
    violations();
    ends_of_files();
    instructions();
    barrier();
    children();
    blocking();
    queued();
    interrupted();
    ignored_children();
    waits();
    asked_twice();
    name();
    registers();
    no_stack();
    overflow();
    printf("signals: done\n");
    return 0;
}
