/* Runs out of memory: a child writes page after page until the kernel kills it. Its parent, and
 * what the parent had written, survive. */
#include "program.h"

enum { PAGES = 64, STEP = 256 };

int main(void) {
    begin();
    char *memory = area(PAGES, MAP_PRIVATE);
    for (long page = 0; page < PAGES; page++) fill_page(memory + page * PAGE, page + 1);
    pid_t child = fork();
    if (child == 0) {
        for (;;) {
            char *more = mmap(0, STEP * PAGE, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
            if (more == MAP_FAILED) _exit(3);
            for (long page = 0; page < STEP; page++) fill_page(more + page * PAGE, page + 1);
        }
    }
    check(child > 0);
    int status = ended(child);
    if (status == 3) printf("the child was refused more memory\n");
    else printf("the child ended with %d\n", status);
    for (long page = 0; page < PAGES; page++) check(is_filled(memory + page * PAGE, page + 1));
    printf("the parent's %d pages are as they were\n", PAGES);
    printf("oom: done\n");
    return 0;
}
