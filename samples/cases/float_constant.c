// A floating point constant lives in nameless read-only data; so does a vector of them.
//# build: gcc -O2
//# build: gcc -O0
//# build: gcc -O3
//# build: clang -O2
//# changed: tax
//# kept: fee answer scale
//# before: 100 => 19.00 2.50 300
//# after: 100 => 21.00 2.50 300
#include "sample.h"

#ifdef NEW
#define RATE 0.21
#else
#define RATE 0.19
#endif

NOINLINE double tax(double amount) {
    return amount * RATE;
}

NOINLINE double fee(double amount) {
    return amount * 0.025;
}

NOINLINE float scale(float *values) {
    float sum = 0;

    for (int i = 0; i < 8; i++)
        values[i] *= 3.0f;
    for (int i = 0; i < 8; i++)
        sum += values[i];
    return sum;
}

void answer(const char *question) {
    float values[8] = {0};

    values[5] = (float)atoi(question);
    printf("%.2f %.2f %.0f\n", tax(atof(question)), fee(atof(question)), (double)scale(values));
}
