/* A disk that gives nothing back: a child has more memory than the machine and dies when its pages
 * cannot be read from swap. Its parent, whose pages are locked, sees it die and lives on.
 */
#include "program.h"

#include <signal.h>

int main(int count, char **words) {
    begin();
    long pages = (count > 1 ? atol(words[1]) : 64) * 256; /* of MiB */
    check(mlockall(MCL_CURRENT) == 0);
    pid_t child = fork();
    if (child == 0) {
        char *memory = area(pages, MAP_PRIVATE);
        for (int pass = 1; pass < 3; pass++)
            for (long page = 0; page < pages; page++) memory[page * PAGE] = (char)pass;
        _exit(0);
    }
    check(child > 0);
    int status;
    check(waitpid(child, &status, 0) == child);
    if (WIFSIGNALED(status)) printf("the child was killed by %s\n", strsignal(WTERMSIG(status)));
    else printf("the child exited with %d\n", WEXITSTATUS(status));
    printf("unreadable: done\n");
    return 0;
}
