/* 128-bit vectors: intrinsics, and loops that compilers vectorize. */
#include "torture.h"
#include <emmintrin.h>

static NOINLINE __m128 axpy(__m128 a, __m128 x, __m128 y) {
    ADDED(added_counter++;)
    return _mm_add_ps(_mm_mul_ps(a, x), y);
}

/* Vectors that live across calls: no register keeps them (psABI 3.2.1). */
static NOINLINE __m128 filter(const float *in, int blocks) {
    __m128 low = _mm_setzero_ps(), high = _mm_set1_ps(0.5f);
    const __m128 gain = _mm_set_ps(0.25f, 0.5f, 0.75f, 0.125f);
    for (int i = 0; i < blocks; i++) {
        __m128 x = _mm_loadu_ps(in + 4 * i);
        low = axpy(gain, _mm_sub_ps(x, low), low);
        ADDED(if (i > 1000) _exit(9);)
        high = axpy(_mm_sub_ps(_mm_set1_ps(1), gain), high, _mm_sub_ps(x, low));
    }
    return _mm_add_ps(low, high);
}

static NOINLINE uint64_t bytes(const uint8_t *data, int count) {
    __m128i sum = _mm_setzero_si128(), zero = _mm_setzero_si128();
    for (int i = 0; i + 16 <= count; i += 16) {
        __m128i block = _mm_loadu_si128((const __m128i *)(data + i));
        sum = _mm_add_epi64(sum, _mm_sad_epu8(block, zero));
        sum = _mm_xor_si128(sum, _mm_slli_epi64(sum, 3));
    }
    uint64_t parts[2];
    _mm_storeu_si128((__m128i *)parts, sum);
    return parts[0] * 3 + parts[1];
}

static NOINLINE unsigned plain(unsigned *to, const unsigned *a, const unsigned *b, int count) {
    unsigned sum = 0;
    for (int i = 0; i < count; i++)
        to[i] = a[i] * 3 + (b[i] ^ 0x55);
    for (int i = 0; i < count; i++)
        sum += to[i] >> (i & 3);
    ADDED(added_counter += sum;)
    return sum;
}

int main(void) {
    begin();
    float in[64];
    uint8_t data[128];
    unsigned a[50], b[50], c[50];
    for (int round = 1; round <= 3; round++) {
        for (int i = 0; i < 64; i++)
            in[i] = (float)((i * round) % 17) / 4;
        for (int i = 0; i < 128; i++)
            data[i] = (uint8_t)(i * i + round);
        for (int i = 0; i < 50; i++) {
            a[i] = (unsigned)(i * round * 77);
            b[i] = (unsigned)(i + 3) * 0x01010101u;
        }
        float out[4];
        _mm_storeu_ps(out, filter(in, 16));
        say("filter", bits(out[0]) ^ bits(out[1]) ^ bits(out[2] + out[3]));
        say("bytes", bytes(data, 128));
        say("plain", plain(c, a, b, 50));
        version();
    }
    END();
}
