// A C++ exception passes from a kept function through a replaced one to a kept handler. The unwinder
// does not know NEW's code, so this is refused.
//# build: g++ -O2
//# build: g++ -O0
//# build: clang++ -O2
//# changed: _Z5pricei
//# refused: unwinding _Z5pricei
#include <stdexcept>
extern "C" {
#include "sample.h"
}

NOINLINE int check(int n) {
    if (n < 0)
        throw std::runtime_error("negative");
    return n;
}

struct Receipt {
    int n;
    explicit Receipt(int n) : n(n) {}
    NOINLINE ~Receipt() { printf("closed %d ", n); }
};

NOINLINE int price(int n) {
    Receipt receipt(n);
#ifdef NEW
    return check(n) * 3;
#else
    return check(n) * 2;
#endif
}

extern "C" void answer(const char *question) {
    try {
        printf("%d\n", price(atoi(question)));
    } catch (const std::exception &e) {
        printf("%s\n", e.what());
    }
}
