// main never returns, has a handler for exceptions, and the user says that none passes: the call that it waits
// in returns into NEW's main.
//# build: g++ -O2
//# build: g++ -O0
//# build: clang++ -O2
//# build-args: --accept-no-unwinding
//# changed: main
//# kept: _Z5counti
//# before: 3 => 3
//# after: 4 => 8
//# after: 5 => 13
#include <stdexcept>
extern "C" {
#include "sample.h"
}

static int total;

NOINLINE int count(int n) {
    if (n < 0)
        throw std::runtime_error("negative");
    total += n;
    return total;
}

int main() {
    static char line[64];

    setvbuf(stdout, nullptr, _IOLBF, 0);
    puts("ready");
    for (;;) {
        try {
            if (!fgets(line, sizeof line, stdin))
                exit(0);
#ifdef NEW
            printf("%d\n", count(atoi(line)) + 1);
#else
            printf("%d\n", count(atoi(line)));
#endif
        } catch (const std::exception &problem) {
            printf("%s\n", problem.what());
        }
    }
}
