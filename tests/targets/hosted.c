/* The machine of driver.c is a C library. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int run(void);

void leave(int code) { exit(code); }

void get(void *to, size_t count) {
  if (fread(to, 1, count, stdin) != count) leave(100);
}

void put(const void *from, size_t count) {
  if (fwrite(from, 1, count, stdout) != count) leave(101);
}

void *memory(size_t count) {
  void *found = calloc(count, 1);
  if (!found) leave(102);
  return found;
}

int main(void) {
  int code = run();
  if (fflush(stdout)) leave(103);
  return code;
}
