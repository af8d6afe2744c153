/* Double arithmetic: iterations with values in vector registers across calls. */
#include "torture.h"

static NOINLINE double root(double value) {
    double guess = value > 1 ? value / 2 : 1;
    for (int i = 0; i < 20; i++) {
        double next = (guess + value / guess) / 2;
        ADDED(if (!(next > 0)) _exit(9);)
        if (next == guess)
            break;
        guess = next;
    }
    return guess;
}

static NOINLINE double sine(double x) {
    double term = x, sum = x;
    for (int n = 1; n < 12; n++) {
        term *= -x * x / ((2 * n) * (2 * n + 1));
        sum += term;
    }
    ADDED(added_counter++;)
    return sum;
}

static NOINLINE void multiply(double out[4][4], double a[4][4], double b[4][4]) {
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) {
            double cell = 0;
            for (int k = 0; k < 4; k++)
                cell += a[i][k] * b[k][j];
            out[i][j] = cell;
        }
}

/* Calls between which several doubles live: they must be spilled. */
static NOINLINE double simpson(double from, double to, int pieces) {
    double step = (to - from) / pieces, sum = 0, odd = 0, even = 0;
    for (int i = 1; i < pieces; i++) {
        double value = sine(from + step * i) * root(1 + i);
        if (i & 1)
            odd += value;
        else
            even += value;
        ADDED(added_counter += (unsigned long)i;)
    }
    sum = sine(from) + sine(to) + 4 * odd + 2 * even;
    return sum * step / 3;
}

int main(void) {
    begin();
    double a[4][4], b[4][4], c[4][4];
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) {
            a[i][j] = root(i + 2) - j;
            b[i][j] = 1.0 / (1 + i + j);
        }
    for (int round = 0; round < 4; round++) {
        multiply(c, a, b);
        memcpy(a, c, sizeof a);
        say("cell", bits(a[round][3 - round]));
        version();
    }
    say("simpson", bits(simpson(0.25, 1.75, 14)));
    version();
    END();
}
