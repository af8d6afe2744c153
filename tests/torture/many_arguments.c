/* Arguments on the stack, more values than registers, calls between their uses. */
#include "torture.h"

static NOINLINE uint64_t ten(uint64_t a, int b, short c, uint64_t d, char e, uint64_t f, uint64_t g,
                             int h, uint64_t i, unsigned char j) {
    ADDED(added_counter++;)
    return a + (uint64_t)b * 2 + (uint64_t)c * 3 + d * 4 + (uint64_t)e * 5 + f * 6 + g * 7 +
           (uint64_t)h * 8 + i * 9 + j * 10u;
}

static NOINLINE uint64_t spread(const uint64_t *v, unsigned n) {
    uint64_t a = v[0], b = v[1], c = v[2], d = v[3], e = v[4], f = v[5], g = v[6], h = v[7];
    uint64_t i = a ^ b, j = c ^ d, k = e ^ f, l = g ^ h, m = a + h, o = b + g;
    for (unsigned x = 0; x < n; x++) {
        a = ten(a, (int)x, (short)(b & 99), c, (char)(d & 31), e, f, (int)(g & 1023), h,
                (unsigned char)i);
        b += a ^ j;
        c = (c ^ k) + b;
        d += l >> 3;
        ADDED(if (x > n) _exit(9);)
        e ^= ten(m, 1, 2, o, 3, a, b, 4, c, 5);
        f += e >> 7;
        g = g * 3 + f;
        h ^= g;
        i += h & 255;
        j = j * 5 + i;
        k ^= j >> 11;
        l += k;
        m ^= l << 2;
        o += m;
    }
    return mix(mix(a ^ b ^ c ^ d, e ^ f ^ g ^ h), i ^ j ^ k ^ l ^ m ^ o);
}

static NOINLINE double floats(double a, double b, double c, double d, double e, double f, double g,
                              double h, double i, float j, double k, int n) {
    for (int x = 0; x < n; x++) {
        a = a * 0.5 + b;
        b = b - c * 0.25;
        c = d + e - f;
        d = g * 0.125 + h;
        e = i + j;
        f = k - a;
        g = b + 1;
        h = c * 0.5;
        ADDED(added_counter++;)
    }
    return a + b + c + d + e + f + g + h;
}

int main(void) {
    begin();
    uint64_t v[8];
    for (unsigned round = 1; round < 5; round++) {
        for (unsigned i = 0; i < 8; i++)
            v[i] = mix(i, round);
        say("spread", spread(v, 12));
        say("floats", bits(floats(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, round, 9)));
        version();
    }
    END();
}
