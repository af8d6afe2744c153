/* Backtracking: recursion inside loops, by masks and by boards. */
#include "torture.h"

static NOINLINE unsigned masks(unsigned all, unsigned columns, unsigned left, unsigned right) {
    unsigned solutions = 0;
    if (columns == all)
        return 1;
    for (unsigned free = all & ~(columns | left | right); free; free &= free - 1) {
        unsigned here = free & -free;
        solutions += masks(all, columns | here, (left | here) << 1, (right | here) >> 1);
        ADDED(added_counter++;)
    }
    return solutions;
}

static NOINLINE int is_free(const signed char *board, int row, int column) {
    for (int r = 0; r < row; r++) {
        int distance = board[r] - column;
        if (distance == 0 || distance == row - r || distance == r - row)
            return 0;
    }
    return 1;
}

static NOINLINE uint64_t boards(signed char *board, int row, int n, unsigned *found) {
    uint64_t sum = 0;
    if (row == n) {
        ++*found;
        for (int i = 0; i < n; i++)
            sum = mix(sum, (uint64_t)board[i]);
        return sum;
    }
    for (int column = 0; column < n; column++) {
        if (!is_free(board, row, column))
            continue;
        board[row] = (signed char)column;
        ADDED(if (column > n) _exit(9);)
        sum += boards(board, row + 1, n, found);
    }
    return sum;
}

int main(void) {
    begin();
    signed char board[8];
    for (int n = 4; n <= 5; n++) {
        unsigned found = 0;
        say("masks", masks((1u << n) - 1, 0, 0, 0));
        say("boards", boards(board, 0, n, &found));
        say("found", found);
        version();
    }
    say("masks", masks(63, 0, 0, 0));
    version();
    END();
}
