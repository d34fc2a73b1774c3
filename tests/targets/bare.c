/* The machine of driver.c is a Cortex-M4 without a system, whose debugger reads the file "job" and writes the file
   "results" (semihosting). */
#include <stddef.h>
#include <stdint.h>

enum { OPEN = 1, WRITE = 5, READ = 6, EXIT = 0x20 };
enum { READ_BINARY = 1, WRITE_BINARY = 5, APPLICATION_EXIT = 0x20026 };

int run(void);
extern char heap[], heap_end[], stack_end[];

static int debugger(int operation, const void *arguments) {
  register int r0 __asm__("r0") = operation;
  register const void *r1 __asm__("r1") = arguments;
  __asm__ volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
  return r0;
}

void leave(int code) {
  uint32_t arguments[] = {APPLICATION_EXIT, (uint32_t)code};
  for (;;) debugger(EXIT, arguments);
}

static uint32_t opened(const char *name, uint32_t length, uint32_t mode) {
  uint32_t arguments[] = {(uint32_t)name, mode, length};
  int found = debugger(OPEN, arguments);
  if (found < 0) leave(104);
  return (uint32_t)found;
}

void get(void *to, size_t count) {
  static uint32_t job;
  if (!job) job = opened("job", 3, READ_BINARY);
  uint32_t arguments[] = {job, (uint32_t)to, count};
  if (debugger(READ, arguments)) leave(100);
}

void put(const void *from, size_t count) {
  static uint32_t results;
  if (!results) results = opened("results", 7, WRITE_BINARY);
  uint32_t arguments[] = {results, (uint32_t)from, count};
  if (debugger(WRITE, arguments)) leave(101);
}

void *memory(size_t count) {
  static size_t used;
  void *found = heap + used;
  used += (count + 63) / 64 * 64;
  if (used > (size_t)(heap_end - heap)) leave(102);
  return found;
}

/* what the C library's functions ask of a system */
void *_sbrk(int count) {
  leave(106);
  return (void *)(intptr_t)count;
}

static void fault(void) { leave(105); }

static void start(void) {
  *(volatile uint32_t *)0xE000ED88 |= 0xFu << 20; /* CPACR: the floating-point unit is on */
  __asm__ volatile("dsb\n isb");
  leave(run());
}

__attribute__((section(".vectors"), used)) static void (*const vectors[16])(void) = {
    (void (*)(void))stack_end, start, fault, fault, fault, fault, fault};
