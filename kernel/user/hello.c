/* Greets, and repeats its arguments: the smallest program that shows that loading works. */
#include <stdio.h>

int main(int count, char **words) {
    printf("hello from ring 3\n");
    for (int i = 1; i < count; i++) printf("argument %d: %s\n", i, words[i]);
    return 0;
}
