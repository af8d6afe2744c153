/* An interpreter: a loop around a switch with a jump table. */
#include "torture.h"

enum { PUSH, ADD, SUB, MUL, DUP, SWAP, OVER, JNZ, LOAD, STORE, SHR, XOR, DROP, OUT, HALT };

static NOINLINE uint64_t run(const uint8_t *code, unsigned limit) {
    uint64_t stack[16] = {0}, slots[4] = {0}, sum = 0;
    unsigned sp = 0, pc = 0, steps = 0;
    ADDED(unsigned long jumps = 0;)
    while (steps++ < limit) {
        switch (code[pc++]) {
        case PUSH: stack[sp++] = code[pc++]; break;
        case ADD: sp--; stack[sp - 1] += stack[sp]; break;
        case SUB: sp--; stack[sp - 1] -= stack[sp]; break;
        case MUL: sp--; stack[sp - 1] *= stack[sp]; break;
        case DUP: stack[sp] = stack[sp - 1]; sp++; break;
        case SWAP: {
            uint64_t top = stack[sp - 1];
            stack[sp - 1] = stack[sp - 2];
            stack[sp - 2] = top;
            break;
        }
        case OVER: stack[sp] = stack[sp - 2]; sp++; break;
        case JNZ:
            ADDED(jumps++;)
            if (stack[--sp])
                pc = code[pc];
            else
                pc++;
            break;
        case LOAD: stack[sp++] = slots[code[pc++] & 3]; break;
        case STORE: slots[code[pc++] & 3] = stack[--sp]; break;
        case SHR: stack[sp - 1] >>= code[pc++]; break;
        case XOR: sp--; stack[sp - 1] ^= stack[sp]; break;
        case DROP: sp--; break;
        case OUT: sum = mix(sum, stack[--sp]); say("out", sum); version(); break;
        case HALT: ADDED(added_counter += jumps;) return mix(sum, steps);
        default: _exit(4);
        }
        ADDED(if (sp > 15) _exit(9);)
    }
    return sum;
}

int main(void) {
    begin();
    /* slot 0 counts down; slot 1 gathers; every 16th value is printed. */
    static const uint8_t code[] = {
        PUSH, 90, STORE, 0, PUSH, 7, STORE, 1,
        /* 8: */ LOAD, 1, PUSH, 33, MUL, LOAD, 0, ADD, DUP, SHR, 9, XOR, STORE, 1,
        /* 22: */ LOAD, 0, PUSH, 1, SUB, DUP, STORE, 0,
        /* 30: */ DUP, PUSH, 45, SUB, JNZ, 39, LOAD, 1, OUT,
        /* 39: */ JNZ, 8, LOAD, 1, OUT, HALT,
    };
    say("run", run(code, 5000));
    version();
    END();
}
