/* Float and integer conversions, comparisons, minima; mixed arguments. */
#include "torture.h"

static NOINLINE float blend(float a, int b, double c, unsigned char d, float e) {
    ADDED(added_counter += d;)
    return a * (float)b + (float)c - d * e;
}

static NOINLINE int clamp(double value, int low, int high) {
    if (value < low)
        return low;
    if (value > high)
        return high;
    return (int)value;
}

static NOINLINE uint64_t histogram(const float *values, int count, unsigned *bins) {
    float least = values[0], most = values[0];
    uint64_t ties = 0;
    for (int i = 0; i < count; i++) {
        least = values[i] < least ? values[i] : least;
        most = values[i] > most ? values[i] : most;
        for (int j = 0; j < i; j++)
            ties += values[i] == values[j];
    }
    ADDED(double width = most - least; if (width < 0) _exit(9);)
    for (int i = 0; i < count; i++) {
        double place = (values[i] - least) / (most - least) * 7.999;
        bins[clamp(place, 0, 7)]++;
    }
    return ties;
}

int main(void) {
    begin();
    float values[20];
    uint64_t sum = 0;
    for (int round = 0; round < 4; round++) {
        unsigned bins[8] = {0};
        float last = 0.5f + (float)round;
        for (int i = 0; i < 20; i++) {
            last = blend(last, i - 9, i / 3.0, (unsigned char)(i * 29), 0.125f);
            if (last > 4000 || last < -4000)
                last /= 1024;
            values[i] = (float)(int64_t)(last * 16) / 16;
        }
        uint64_t ties = histogram(values, 20, bins);
        for (int i = 0; i < 8; i++)
            sum = mix(sum, bins[i] * 100 + ties);
        sum = mix(sum, (uint64_t)(int64_t)(last * 1000));
        sum = mix(sum, (uint32_t)(unsigned)((double)(last < 0 ? -last : last) * 3.5));
        say("sum", sum);
        version();
    }
    END();
}
