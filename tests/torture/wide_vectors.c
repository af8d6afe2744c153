/* 256-bit vectors where the processor has them; the same numbers by words where it has not. */
#include "torture.h"
#include <immintrin.h>

#define AVX __attribute__((target("avx2"), noinline))

static AVX __m256i stir(__m256i v, unsigned round) {
    ADDED(added_counter += round;)
    v = _mm256_add_epi64(v, _mm256_slli_epi64(v, 5));
    return _mm256_xor_si256(v, _mm256_set1_epi64x((long long)round * 0x1234567));
}

/* Wide vectors in frames and registers, across calls. */
static AVX uint64_t wide(const uint64_t *in, unsigned blocks) {
    __m256i a = _mm256_set1_epi64x(1), b = _mm256_set_epi64x(4, 3, 2, 1);
    for (unsigned i = 0; i < blocks; i++) {
        __m256i x = _mm256_loadu_si256((const __m256i *)(in + 4 * i));
        a = stir(_mm256_add_epi64(a, x), i);
        ADDED(if (i > blocks) _exit(9);)
        b = _mm256_xor_si256(stir(b, i + 1), _mm256_srli_epi64(a, 7));
    }
    uint64_t parts[4];
    _mm256_storeu_si256((__m256i *)parts, _mm256_add_epi64(a, b));
    return parts[0] + 3 * parts[1] + 5 * parts[2] + 7 * parts[3];
}

static NOINLINE uint64_t stir_word(uint64_t v, unsigned round) {
    v += v << 5;
    return v ^ (uint64_t)round * 0x1234567;
}

static NOINLINE uint64_t narrow(const uint64_t *in, unsigned blocks) {
    uint64_t a[4] = {1, 1, 1, 1}, b[4] = {1, 2, 3, 4}, sum = 0;
    for (unsigned i = 0; i < blocks; i++)
        for (unsigned j = 0; j < 4; j++) {
            a[j] = stir_word(a[j] + in[4 * i + j], i);
            b[j] = stir_word(b[j], i + 1) ^ a[j] >> 7;
        }
    for (unsigned j = 0; j < 4; j++)
        sum += (2 * j + 1) * (a[j] + b[j]);
    return sum;
}

int main(void) {
    begin();
    uint64_t in[64];
    int has = __builtin_cpu_supports("avx2");
    for (unsigned round = 1; round <= 5; round++) {
        for (unsigned i = 0; i < 64; i++)
            in[i] = mix(i, round);
        uint64_t by_words = narrow(in, 16);
        say("words", by_words);
        say("wide", has ? wide(in, 16) : by_words);
        version();
    }
    END();
}
