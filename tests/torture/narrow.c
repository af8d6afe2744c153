/* Bytes and half words: wrap-around, sign extension, partial registers. */
#include "torture.h"

static NOINLINE uint8_t checksum(const uint8_t *data, uint8_t count, int8_t bias) {
    uint8_t sum = (uint8_t)bias;
    uint16_t pair = 0;
    for (uint8_t i = 0; i < count; i++) {
        sum = (uint8_t)(sum + data[i]);
        sum = (uint8_t)(sum << 1 | sum >> 7);
        pair = (uint16_t)(pair * 3 + sum);
        ADDED(if (pair == 0xffff) added_counter++;)
    }
    return (uint8_t)(sum ^ pair ^ pair >> 8);
}

static NOINLINE int16_t sample(int16_t last, int8_t delta, uint8_t shift) {
    int16_t step = (int16_t)(delta << (shift & 7));
    int32_t next = last + step;
    ADDED(added_counter++;)
    return (int16_t)(next > 32767 ? 32767 : next < -32768 ? -32768 : next);
}

static NOINLINE uint64_t decode(const int8_t *deltas, unsigned n) {
    int16_t value = 0;
    uint8_t shift = 3;
    uint64_t sum = 0;
    for (unsigned i = 0; i < n; i++) {
        value = sample(value, deltas[i % 16], shift);
        shift = (uint8_t)(shift + (deltas[i % 16] < 0 ? 255 : 1));
        sum = mix(sum, (uint16_t)value);
        if ((uint8_t)sum < 4)
            shift = 2;
    }
    return sum + shift;
}

int main(void) {
    begin();
    static const int8_t deltas[16] = {5, -3, 100, -120, 7, 0, 44, -1, 127, -128, 3, 2, -9, 60, -60, 1};
    uint8_t data[40];
    for (unsigned round = 0; round < 4; round++) {
        for (unsigned i = 0; i < 40; i++)
            data[i] = (uint8_t)(i * i * (round + 3));
        say("checksum", checksum(data, 40, (int8_t)(round * 90)));
        say("decode", decode(deltas, 30 + round));
        version();
    }
    END();
}
