// Counts the words of one item. For each item Dunlin starts it with the item's name as first argument and the item's
// bytes on standard input. It is a plain program: nothing in it knows of Dunlin.

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>

int main(int count, char **arguments) {
    unsigned long long words = 0;
    bool in_word = false;
    for (int byte = getchar(); byte != EOF; byte = getchar()) {
        bool is_part = !isspace(byte);
        words += is_part && !in_word;
        in_word = is_part;
    }
    if (ferror(stdin)) {
        perror("standard input");
        return 1;
    }
    printf("%llu %s\n", words, count > 1 ? arguments[1] : "standard input");
    return 0;
}
