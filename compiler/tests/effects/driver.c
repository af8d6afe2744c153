/*
 * Executes single instructions and compares what they do with what is claimed of them.
 *
 * Reads records from standard input: an instruction's bytes, which registers must not be touched
 * because they hold addresses, and for each byte of the machine's state three claims: may be read,
 * may be changed, is overwritten. Runs the instruction on several states; flips each byte of the
 * input and looks which bytes of the output follow. Prints what contradicts the claims.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { GENERAL = 0, VECTOR = 128, FLAGS = VECTOR + 2048, MASK = FLAGS + 6, MEMORY = MASK + 8, COUNT = MEMORY + 256 };
enum { READ = 1, CHANGED = 2, WRITTEN = 4, IGNORED = 8 };

struct state { uint64_t general[16]; uint64_t flags; uint64_t mask[8]; uint8_t vector[32][64] __attribute__((aligned(64))); };
struct record { uint32_t length; uint8_t code[16]; uint64_t fixed[16]; uint16_t is_fixed; uint8_t claims[COUNT]; } __attribute__((packed));

struct state in, out;
static uint8_t *scratch;
uint8_t *code;
uint64_t kept_rsp;
static sigjmp_buf back;
static int width;

/* Order of flags: as iced-x86 numbers them. */
static const int flag_bit[6] = {11, 7, 6, 4, 0, 2};

#define EACH16(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15)
#define EACH32(X) EACH16(X) X(16) X(17) X(18) X(19) X(20) X(21) X(22) X(23) X(24) X(25) X(26) X(27) X(28) X(29) X(30) X(31)
#define GENERALS(X) X(rax,0) X(rcx,8) X(rdx,16) X(rbx,24) X(rbp,40) X(rsi,48) X(rdi,56) X(r8,64) X(r9,72) X(r10,80) X(r11,88) X(r12,96) X(r13,104) X(r14,112) X(r15,120)
#define S(x) #x
#define LOADG(r, o) "mov in+" S(o) "(%rip), %" S(r) "\n"
#define STOREG(r, o) "mov %" S(r) ", out+" S(o) "(%rip)\n"
#define LOADK(n) "kmovq in+136+8*" S(n) "(%rip), %k" S(n) "\n"
#define STOREK(n) "kmovq %k" S(n) ", out+136+8*" S(n) "(%rip)\n"
#define KS(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7)
#define BASE "+256+64*"
#define LOADZ(n) "vmovdqu64 in" BASE S(n) "(%rip), %zmm" S(n) "\n"
#define STOREZ(n) "vmovdqu64 %zmm" S(n) ", out" BASE S(n) "(%rip)\n"
#define LOADY(n) "vmovdqu in" BASE S(n) "(%rip), %ymm" S(n) "\n"
#define STOREY(n) "vmovdqu %ymm" S(n) ", out" BASE S(n) "(%rip)\n"
#define LOADX(n) "movdqu in" BASE S(n) "(%rip), %xmm" S(n) "\n"
#define STOREX(n) "movdqu %xmm" S(n) ", out" BASE S(n) "(%rip)\n"
#define RUN(name, load, store) \
    __asm__(".text\n.type " name ", @function\n" name ":\n" \
        "push %rbx\npush %rbp\npush %r12\npush %r13\npush %r14\npush %r15\nsub $8, %rsp\n" \
        load "push in+128(%rip)\npopfq\n" GENERALS(LOADG) \
        "call *code(%rip)\n" \
        GENERALS(STOREG) "pushfq\npopq out+128(%rip)\n" store \
        "cld\nadd $8, %rsp\npop %r15\npop %r14\npop %r13\npop %r12\npop %rbp\npop %rbx\nret\n");
RUN("run_z", EACH32(LOADZ) KS(LOADK), EACH32(STOREZ) KS(STOREK) "vzeroupper\n")
RUN("run_y", EACH16(LOADY), EACH16(STOREY) "vzeroupper\n")
RUN("run_x", EACH16(LOADX), EACH16(STOREX))
void run_z(void);
void run_y(void);
void run_x(void);
_Static_assert(__builtin_offsetof(struct state, flags) == 128 && __builtin_offsetof(struct state, mask) == 136 && __builtin_offsetof(struct state, vector) == 256, "layout");

static void trapped(int signal) { (void)signal; siglongjmp(back, 1); }

static uint64_t seed = 88172645463325252ull;
static uint64_t random64(void) { seed ^= seed << 13; seed ^= seed >> 7; seed ^= seed << 17; return seed; }

/* The state as a row of bytes, one for each flag and mask register. */
static void flatten(const struct state *s, const uint8_t *memory, uint8_t *row) {
    memcpy(row + GENERAL, s->general, 128);
    memcpy(row + VECTOR, s->vector, 2048);
    for (int i = 0; i < 6; i++) row[FLAGS + i] = s->flags >> flag_bit[i] & 1;
    for (int i = 0; i < 8; i++) { uint64_t k = s->mask[i]; k ^= k >> 32; k ^= k >> 16; row[MASK + i] = (uint8_t)(k ^ k >> 8); }
    memcpy(row + MEMORY, memory, 256);
}

static int execute(const struct state *s, const uint8_t *memory, uint8_t *row) {
    in = *s;
    out = *s;
    memcpy(scratch, memory, 256);
    if (sigsetjmp(back, 1)) return 0;
    if (width == 64) run_z(); else if (width == 32) run_y(); else run_x();
    out.general[4] = s->general[4];
    flatten(&out, scratch, row);
    return 1;
}

static void flip(struct state *s, uint8_t *memory, int at) {
    uint8_t by = (uint8_t)(random64() | 1);
    if (at < VECTOR) ((uint8_t *)s->general)[at] ^= by;
    else if (at < FLAGS) ((uint8_t *)s->vector)[at - VECTOR] ^= by;
    else if (at < MASK) s->flags ^= 1ull << flag_bit[at - FLAGS];
    else if (at < MEMORY) s->mask[at - MASK] ^= random64() | 1;
    else memory[at - MEMORY] ^= by;
}

static int complaints;
static void complain(int number, const char *what, int from, int to) {
    printf("%d %s %d %d\n", number, what, from, to);
    complaints++;
}

/* Vector registers and memory that no claim speaks of are flipped whole. */
static int spoken(const struct record *r, int first, int length) {
    for (int i = first; i < first + length; i++) if (r->claims[i] & ~IGNORED) return 1;
    return 0;
}

static int check(int number, const struct record *r, int round) {
    struct state base;
    uint8_t memory[256], row_in[COUNT], row_out[COUNT], row_now[COUNT];
    for (size_t i = 0; i < sizeof base / 8; i++) ((uint64_t *)&base)[i] = round == 3 ? 0 : random64();
    for (int i = 0; i < 256; i++) memory[i] = round == 3 ? 0 : (uint8_t)random64();
    if (round == 1) for (int i = 0; i < 16; i++) base.general[i] &= 0x0f;
    if (round == 2) for (int i = 0; i < 32; i++) for (int j = 0; j < 8; j++) {
        double d = (double)(int16_t)random64() / 16; memcpy(&base.vector[i][8 * j], &d, 8);
    }
    base.flags = 0x202 | (base.flags & 0x8d5);
    for (int i = 0; i < 16; i++) if (r->is_fixed >> i & 1) base.general[i] = r->fixed[i];
    flatten(&base, memory, row_in);
    if (!execute(&base, memory, row_out)) return 0;
    for (int i = 0; i < COUNT; i++) {
        int kept = i >= VECTOR && i < FLAGS && (i - VECTOR) % 64 >= width;
        if (!kept && row_in[i] != row_out[i] && !(r->claims[i] & (CHANGED | IGNORED))) { complain(number, "changes", i, i); return 1; }
    }
    for (int i = 0; i < COUNT;) {
        int length = 1;
        if (i < VECTOR && (i / 8 == 4 || r->is_fixed >> (i / 8) & 1)) { i++; continue; }
        if (i >= VECTOR && i < FLAGS) {
            if ((i - VECTOR) % 64 >= width || (width < 64 && i >= VECTOR + 1024)) { i++; continue; }
            if ((i - VECTOR) % 64 == 0 && !spoken(r, i, 64)) length = 64;
        }
        if (i >= MASK && i < MEMORY && width < 64) { i++; continue; }
        if (i >= MEMORY && (i - MEMORY) % 64 == 0 && !spoken(r, i, 64)) length = 64;
        struct state other = base;
        uint8_t changed[256];
        memcpy(changed, memory, 256);
        for (int j = i; j < i + length; j++) flip(&other, changed, j);
        if (execute(&other, changed, row_now)) {
            for (int o = 0; o < COUNT; o++) {
                if (row_now[o] == row_out[o] || (r->claims[o] & IGNORED)) continue;
                int own = o >= i && o < i + length;
                int read = r->claims[i] & READ;
                if (!read && !(own && !(r->claims[o] & WRITTEN))) { complain(number, "reads", i, o); break; }
            }
        }
        i += length;
    }
    return 1;
}

int main(void) {
    scratch = mmap((void *)0x200000000, 4096 * 3, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (scratch != (void *)0x200000000) return 2;
    mprotect(scratch, 4096, PROT_NONE);
    mprotect(scratch + 8192, 4096, PROT_NONE);
    scratch += 4096 + 1024;
    code = mmap(0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (code == MAP_FAILED) return 2;
    __builtin_cpu_init();
    width = __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512f") ? 64 : __builtin_cpu_supports("avx") ? 32 : 16;
    static char stack[1 << 16];
    sigaltstack(&(stack_t){.ss_sp = stack, .ss_size = sizeof stack}, 0);
    int signals[] = {SIGILL, SIGSEGV, SIGBUS, SIGFPE, SIGTRAP};
    for (int i = 0; i < 5; i++) sigaction(signals[i], &(struct sigaction){.sa_handler = trapped, .sa_flags = SA_ONSTACK | SA_NODEFER}, 0);
    static struct record r;
    int number = 0, executed = 0;
    for (; fread(&r, sizeof r, 1, stdin) == 1; number++) {
        memset(code, 0xc3, 64);
        memcpy(code, r.code, r.length);
        int rounds = 0;
        for (int round = 0; round < 5; round++) rounds += check(number, &r, round);
        executed += rounds > 0;
    }
    printf("executed %d of %d, complaints %d, vector width %d\n", executed, number, complaints, width);
    return 0;
}
