/* Around a program of csmith: compiled with -DSOURCE="the file", whose main has no arguments. */
#include "torture.h"
#include <stdio.h>

#define main random_main
#include SOURCE
#undef main

int main(void) {
    begin();
    random_main();
    fflush(stdout);
    END();
}
