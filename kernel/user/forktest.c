/* Shows copy-on-write: after a fork nothing is copied until someone writes, and whoever is left
 * alone with a page keeps it. Counts the faults of each step; then children, and how they end. */
#include "program.h"

#include <signal.h>

enum { PAGES = 256, CHILDREN = 8 };

/* The child copies; then the parent, alone again, takes its own pages back. */
static void child_writes(char *memory) {
    pid_t child = fork();
    if (child == 0) {
        stage("child: reads what the parent wrote", check(read_pages(memory, PAGES, 1) == PAGES));
        stage("child: writes, which copies", write_pages(memory, PAGES, 2));
        stage("child: writes again", write_pages(memory, PAGES, 3));
        _exit(7);
    }
    int status = ended(child);
    printf("parent: the child exited with %d\n", status);
    check(read_pages(memory, PAGES, 1) == PAGES);
    stage("parent: writes, alone again", write_pages(memory, PAGES, 4));
    stage("parent: writes again", write_pages(memory, PAGES, 5));
}

/* The parent writes first and pays for the copies; the child is then alone with the originals. */
static void parent_writes(char *memory) {
    int to_child[2], to_parent[2];
    check(pipe(to_child) == 0 && pipe(to_parent) == 0);
    pid_t child = fork();
    if (child == 0) {
        wait_for(to_child[0]);
        check(read_pages(memory, PAGES, 5) == PAGES);
        stage("child: writes what the parent has copied", write_pages(memory, PAGES / 2, 7));
        stage("child: writes what is still shared", write_pages(memory + PAGES / 2 * PAGE, 8, 7));
        pass(to_parent[1]);
        wait_for(to_child[0]);
        _exit(0);
    }
    stage("parent: writes half while the child lives", write_pages(memory, PAGES / 2, 6));
    pass(to_child[1]);
    wait_for(to_parent[0]);
    check(read_pages(memory, PAGES / 2, 6) == PAGES / 2);
    check(read_pages(memory + PAGES / 2 * PAGE, PAGES / 2, 5) == PAGES / 2);
    stage("parent: writes the rest", write_pages(memory + PAGES / 2 * PAGE, PAGES / 2, 6));
    pass(to_child[1]);
    check(ended(child) == 0);
}

/* Pages of three generations: each has its own copy of what it wrote and shares the rest. */
static void generations(char *memory) {
    pid_t child = fork();
    if (child == 0) {
        write_pages(memory, 64, 10);
        pid_t grandchild = fork();
        if (grandchild == 0) {
            stage("grandchild: writes pages of parent and grandparent",
                  write_pages(memory, 128, 11));
            check(read_pages(memory, PAGES, 11) == 128);
            _exit(3);
        }
        int status = ended(grandchild);
        check(read_pages(memory, PAGES, 10) == 64);
        _exit(status + 1);
    }
    printf("parent: child and grandchild exited with %d\n", ended(child));
    check(read_pages(memory, PAGES, 6) == PAGES);
}

/* Memory that is shared on purpose is the same for all. */
static void shared(void) {
    char *memory = area(PAGES, MAP_SHARED);
    write_pages(memory, PAGES, 1);
    pid_t child = fork();
    if (child == 0) {
        stage("child: writes shared memory, by entries of its own", write_pages(memory, PAGES, 2));
        _exit(0);
    }
    check(ended(child) == 0);
    stage("parent: reads it", check(read_pages(memory, PAGES, 2) == PAGES));
    munmap(memory, PAGES * PAGE);
}

/* Children end in every way, in any order, and each is waited for once. */
static void endings(void) {
    int sum = 0, killed = 0;
    for (int i = 0; i < CHILDREN; i++) {
        pid_t child = fork();
        if (child == 0) {
            if (i % 4 == 3) raise(SIGKILL);
            _exit(i);
        }
        check(child > 0);
    }
    for (int i = 0, status; i < CHILDREN; i++) {
        check(wait(&status) > 0);
        if (WIFEXITED(status)) sum += WEXITSTATUS(status);
        else if (WIFSIGNALED(status)) killed += WTERMSIG(status) == SIGKILL;
    }
    check(wait(0) == -1 && errno == ECHILD);
    printf("%d children: exit codes add up to %d, %d were killed\n", CHILDREN, sum, killed);
    check(waitpid(-1, 0, WNOHANG) == -1 && errno == ECHILD);
}

int main(void) {
    begin();
    char *memory = area(PAGES, MAP_PRIVATE);
    stage("parent: first writes", write_pages(memory, PAGES, 1));
    child_writes(memory);
    parent_writes(memory);
    generations(memory);
    shared();
    endings();
    printf("forktest: done\n");
    return 0;
}
