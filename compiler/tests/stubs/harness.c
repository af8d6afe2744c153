/* Runs stubs. Reads cases from standard input, writes what each left behind to standard output.

   A case: length of the stub (8 bytes), the stub, OLD's state, the memory around the frame. The stub is
   run one instruction at a time; before each one, all memory more than 128 bytes below the stack
   pointer is overwritten, as a signal handler might. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#define STUB 0x10000000ul
#define LANDING 0x10040000ul
#define STACK 0x20000000ul
#define CFA 0x20010000ul
#define STACK_SIZE 0x12000ul
#define BELOW 8192
#define ABOVE 512
#define TRAP_FLAG 0x100

struct state {
    uint64_t general[16];
    uint64_t flags;
    uint64_t canary;
    uint64_t steps;
    uint64_t spare[5];
    uint8_t vector[32][64];
};
struct state in, out;
uint64_t host_sp, level;
void *start = (void *)STUB;

/* Puts the state in place and goes to the stub; `dump` is where the stub ends. */
void enter(void);
void dump(void);
__asm__(
    ".text\n"
    ".macro vectors op, prefix, first, last, size\n"
    "  .set i, \\first\n"
    "  .rept \\last - \\first + 1\n"
    "    each \\op, \\prefix, %i, \\size\n"
    "    .set i, i + 1\n"
    "  .endr\n"
    ".endm\n"
    ".altmacro\n"
    ".macro each op, prefix, n, size\n"
    "  \\op \\prefix, \\n, \\size\n"
    ".endm\n"
    ".macro load prefix, n, size\n"
    "  .ifc \\size, 16\n  movups in+192+64*\\n(%rip), %\\prefix\\n\n  .else\n  vmovups in+192+64*\\n(%rip), %\\prefix\\n\n  .endif\n"
    ".endm\n"
    ".macro save prefix, n, size\n"
    "  .ifc \\size, 16\n  movups %\\prefix\\n, out+192+64*\\n(%rip)\n  .else\n  vmovups %\\prefix\\n, out+192+64*\\n(%rip)\n  .endif\n"
    ".endm\n"
    ".globl enter, dump\n"
    "enter:\n"
    "  push %rbx\n  push %rbp\n  push %r12\n  push %r13\n  push %r14\n  push %r15\n"
    "  mov %rsp, host_sp(%rip)\n"
    "  cmpq $2, level(%rip)\n  je 2f\n  cmpq $1, level(%rip)\n  je 1f\n"
    "  vectors load, xmm, 0, 15, 16\n  jmp 3f\n"
    "1: vectors load, ymm, 0, 15, 32\n  jmp 3f\n"
    "2: vectors load, zmm, 0, 31, 64\n"
    "3: pushq in+128(%rip)\n"
    "  mov in(%rip), %rax\n  mov in+8(%rip), %rcx\n  mov in+16(%rip), %rdx\n  mov in+24(%rip), %rbx\n"
    "  mov in+40(%rip), %rbp\n  mov in+48(%rip), %rsi\n  mov in+56(%rip), %rdi\n"
    "  mov in+64(%rip), %r8\n  mov in+72(%rip), %r9\n  mov in+80(%rip), %r10\n  mov in+88(%rip), %r11\n"
    "  mov in+96(%rip), %r12\n  mov in+104(%rip), %r13\n  mov in+112(%rip), %r14\n  mov in+120(%rip), %r15\n"
    "  popfq\n"
    "  mov in+32(%rip), %rsp\n"
    "  jmp *start(%rip)\n"
    "dump:\n"
    "  mov %rsp, out+32(%rip)\n  mov host_sp(%rip), %rsp\n"
    "  mov %rax, out(%rip)\n  mov %rcx, out+8(%rip)\n  mov %rdx, out+16(%rip)\n  mov %rbx, out+24(%rip)\n"
    "  mov %rbp, out+40(%rip)\n  mov %rsi, out+48(%rip)\n  mov %rdi, out+56(%rip)\n"
    "  mov %r8, out+64(%rip)\n  mov %r9, out+72(%rip)\n  mov %r10, out+80(%rip)\n  mov %r11, out+88(%rip)\n"
    "  mov %r12, out+96(%rip)\n  mov %r13, out+104(%rip)\n  mov %r14, out+112(%rip)\n  mov %r15, out+120(%rip)\n"
    "  pushfq\n  popq out+128(%rip)\n"
    "  cmpq $2, level(%rip)\n  je 2f\n  cmpq $1, level(%rip)\n  je 1f\n"
    "  vectors save, xmm, 0, 15, 16\n  jmp 3f\n"
    "1: vectors save, ymm, 0, 15, 32\n  vzeroupper\n  jmp 3f\n"
    "2: vectors save, zmm, 0, 31, 64\n  vzeroupper\n"
    "3: cld\n"
    "  pop %r15\n  pop %r14\n  pop %r13\n  pop %r12\n  pop %rbp\n  pop %rbx\n"
    "  ret\n"
    ".noaltmacro\n");

static uint64_t stub_end, stepped, number;

static void on_step(int signal, siginfo_t *info, void *context)
{
    (void)signal, (void)info;
    greg_t *g = ((ucontext_t *)context)->uc_mcontext.gregs;
    uint64_t pc = g[REG_RIP], sp = g[REG_RSP];
    int landed = pc == LANDING;
    if (landed)
        g[REG_EFL] &= ~TRAP_FLAG;
    if (!landed && !(STUB <= pc && pc < stub_end))
        return;
    stepped++;
    if (sp - 128 <= STACK || sp > CFA) {
        fprintf(stderr, "case %lu: stack pointer %#lx at stub + %#lx\n", number, sp, pc - STUB);
        _exit(3);
    }
    memset((void *)STACK, 0xa5 ^ (int)stepped, sp - 128 - STACK);
}

static void on_fault(int signal, siginfo_t *info, void *context)
{
    greg_t *g = ((ucontext_t *)context)->uc_mcontext.gregs;
    fprintf(stderr, "case %lu: signal %d at stub + %#lx (address %p)\n", number, signal,
            (uint64_t)g[REG_RIP] - STUB, info->si_addr);
    _exit(3);
}

static void handle(int signal, void (*handler)(int, siginfo_t *, void *))
{
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigaction(signal, &action, NULL);
}

static void map(uint64_t at, uint64_t size, int protection)
{
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;
    if (mmap((void *)at, size, protection, flags, -1, 0) != (void *)at) {
        perror("mmap");
        exit(2);
    }
}

static int get(void *to, size_t size) { return fread(to, 1, size, stdin) == size; }

int main(void)
{
    map(STUB, LANDING + 4096 - STUB, PROT_READ | PROT_WRITE | PROT_EXEC);
    map(STACK, STACK_SIZE, PROT_READ | PROT_WRITE);
    /* jmp *0(%rip) */
    memcpy((void *)LANDING, "\xff\x25\0\0\0\0", 6);
    void (*to)(void) = dump;
    memcpy((void *)(LANDING + 6), &to, 8);
    level = __builtin_cpu_supports("avx512vl") ? 2 : __builtin_cpu_supports("avx2") ? 1 : 0;
    static char alternate[1 << 17];
    sigaltstack(&(stack_t){.ss_sp = alternate, .ss_size = sizeof alternate}, NULL);
    handle(SIGTRAP, on_step);
    handle(SIGSEGV, on_fault);
    handle(SIGBUS, on_fault);
    handle(SIGILL, on_fault);
    uint64_t length;
    for (; get(&length, 8); number++) {
        if (length > LANDING - STUB || !get((void *)STUB, length) || !get(&in, sizeof in) ||
            !get((void *)(CFA - BELOW), BELOW + ABOVE)) {
            fputs("a case is cut short\n", stderr);
            return 2;
        }
        stub_end = STUB + length;
        stepped = 0;
        in.flags |= 0x202 | TRAP_FLAG;
        enter();
        __asm__("mov %%fs:0x28, %0" : "=r"(out.canary));
        out.steps = stepped;
        fwrite(&out, 1, sizeof out, stdout);
        fwrite((void *)(CFA - BELOW), 1, BELOW + ABOVE, stdout);
    }
    return 0;
}
