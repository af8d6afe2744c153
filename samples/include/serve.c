/* The question loop of the cases that have no main of their own. It is on the stack at all times,
   and the same in both builds. */
#include "sample.h"

int main(void) {
    char line[256];

    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = 0;
        answer(line);
        fflush(stdout);
    }
    return 0;
}
