/* Needs more memory than the machine may have: writes all pages in an order that chance chooses,
 * again and again, and checks every byte that an earlier pass left.
 *
 *     churn [SIZE] [PASSES] [SEED]          64M, 3 passes, seed 1
 */
#include "program.h"

/* What a page holds after a pass. */
static uint64_t stamp(long page, long pass) { return 1 + (uint64_t)page * 64 + pass; }

static void shuffle(uint32_t *order, long pages, uint64_t *state) {
    for (long left = pages; left > 1; left--) {
        long other = chance(state) % left;
        uint32_t page = order[left - 1];
        order[left - 1] = order[other];
        order[other] = page;
    }
}

int main(int count, char **words) {
    begin();
    long pages = count_of(count > 1 ? words[1] : "64M") / PAGE;
    long passes = count_of(count > 2 ? words[2] : "3");
    uint64_t state = count_of(count > 3 ? words[3] : "1");
    if (pages < 1 || pages > UINT32_MAX || passes < 1 || passes > 63) {
        printf("usage: churn [SIZE] [PASSES] [SEED], from a page to 16384G, 1 to 63 passes\n");
        return 2;
    }
    char *memory = area(pages, MAP_PRIVATE);
    uint32_t *order = malloc(pages * sizeof *order);
    check(order != 0);
    for (long page = 0; page < pages; page++) order[page] = page;
    for (long pass = 1; pass <= passes; pass++) {
        shuffle(order, pages, &state);
        for (long i = 0; i < pages; i++) {
            char *page = memory + (long)order[i] * PAGE;
            check(is_filled(page, pass == 1 ? 0 : stamp(order[i], pass - 1)));
            fill_page(page, stamp(order[i], pass));
        }
        printf("pass %ld: %ld pages hold what the pass before wrote\n", pass, pages);
    }
    for (long page = 0; page < pages; page++)
        check(is_filled(memory + page * PAGE, stamp(page, passes)));
    printf("churn: done\n");
    return 0;
}
