/* Rounds of rotations: many values alive at once, tables, byte order. */
#include "torture.h"

INLINE uint32_t left(uint32_t v, unsigned by) { return v << by | v >> (32 - by); }

/* The compression of SHA-1 (FIPS 180-4, 6.1.2). */
static NOINLINE void sha1(uint32_t state[5], const uint8_t block[64]) {
    uint32_t w[80], a = state[0], b = state[1], c = state[2], d = state[3], e = state[4];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 |
               (uint32_t)block[4 * i + 2] << 8 | block[4 * i + 3];
    for (int i = 16; i < 80; i++)
        w[i] = left(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    for (int i = 0; i < 80; i++) {
        uint32_t f, k;
        if (i < 20) {
            f = (b & c) | (~b & d);
            k = 0x5a827999;
        } else if (i < 40) {
            f = b ^ c ^ d;
            k = 0x6ed9eba1;
        } else if (i < 60) {
            f = (b & c) | (b & d) | (c & d);
            k = 0x8f1bbcdc;
        } else {
            f = b ^ c ^ d;
            k = 0xca62c1d6;
        }
        uint32_t t = left(a, 5) + f + e + k + w[i];
        e = d;
        d = c;
        c = left(b, 30);
        b = a;
        a = t;
        ADDED(if (i == 40) added_counter++;)
    }
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
    state[4] += e;
}

/* XTEA, 32 rounds. */
static NOINLINE void xtea(uint32_t v[2], const uint32_t key[4]) {
    uint32_t a = v[0], b = v[1], sum = 0;
    for (int i = 0; i < 32; i++) {
        a += ((b << 4 ^ b >> 5) + b) ^ (sum + key[sum & 3]);
        sum += 0x9e3779b9;
        b += ((a << 4 ^ a >> 5) + a) ^ (sum + key[sum >> 11 & 3]);
    }
    ADDED(added_counter += sum;)
    v[0] = a;
    v[1] = b;
}

static NOINLINE uint32_t crc(const uint8_t *data, size_t n) {
    uint32_t value = ~0u;
    for (size_t i = 0; i < n; i++) {
        value ^= data[i];
        for (int bit = 0; bit < 8; bit++)
            value = value & 1 ? value >> 1 ^ 0xedb88320u : value >> 1;
    }
    return ~value;
}

int main(void) {
    begin();
    uint32_t state[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
    uint32_t v[2] = {1, 2}, key[4] = {3, 1, 4, 1};
    uint8_t block[64];
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < 64; i++)
            block[i] = (uint8_t)(state[i % 5] >> (i % 24));
        sha1(state, block);
        xtea(v, key);
        key[round] ^= state[round];
        say("sha1", state[0] ^ (uint64_t)state[4] << 32);
        say("xtea", v[0] + ((uint64_t)v[1] << 32));
        say("crc", crc(block, 40));
        version();
    }
    END();
}
