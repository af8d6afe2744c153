// C++: a virtual function, a template and an overloaded one change; vtables, and pointers to objects in
// the heap, stay.
//# build: g++ -O2 -fno-exceptions
//# build: g++ -O0 -fno-exceptions
//# build: clang++ -O2 -fno-exceptions
//# changed: _ZNK6Square4areaEv _Z5twiceIiET_S0_ _Z4showi
//# kept: _ZNK6Circle4areaEv _Z5twiceIlET_S0_ _Z4showd answer
//# before: 3 => 9 27 [12] (8.0)
//# after: 3 => 10 27 [13]. (8.0)
#include <memory>
extern "C" {
#include "sample.h"
}

struct Shape {
    int n = 0;
    virtual ~Shape() = default;
    virtual int area() const = 0;
};

struct Square : Shape {
    NOINLINE int area() const override;
};

struct Circle : Shape {
    NOINLINE int area() const override;
};

int Square::area() const {
#ifdef NEW
    return n * n + 1;
#else
    return n * n;
#endif
}

int Circle::area() const {
    return 3 * n * n;
}

template <class T> NOINLINE T twice(T n) {
#ifdef NEW
    if (sizeof n == 4)
        return n * 2 + 1;
#endif
    return n * 2;
}

NOINLINE void show(int n) {
#ifdef NEW
    printf("[%d]. ", n);
#else
    printf("[%d] ", n);
#endif
}

NOINLINE void show(double x) {
    printf("(%.1f)\n", x);
}

static Shape *shapes[2];

__attribute__((constructor)) static void create() {
    shapes[0] = new Square;
    shapes[1] = new Circle;
}

void answer(const char *question) {
    for (Shape *s : shapes) {
        s->n = atoi(question);
        printf("%d ", s->area());
    }
    show(twice(6));
    show(static_cast<double>(twice(4L)));
}
