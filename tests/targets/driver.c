/* Runs a compiled graph on a machine that is not ours: reads a job from standard input, writes results to standard
   output. A job is a row of 64-bit words, then data:

     runs, arena bytes, scratch bytes, words of the table of sizes, whether gc_prepare is called,
     constants, inputs, outputs, state, derived: the number of arrays of each kind (constants: 0 or 1),
     the table of sizes, and the bytes of each array in that order;
     the data of constants, inputs and state.

   Results: the status word; the data of all outputs of the last run and of the state. Pointers in tables and in the
   context take 8 bytes, whatever the machine's have. */
#include <stddef.h>
#include <stdint.h>

#define MOST 4096
#define LINE 64

typedef struct {
  union { void *pointer; uint64_t word; } field[14];
} context;
enum { PARALLEL, POOL, THREADS, ARENA, CONSTS, INPUTS, OUTPUTS, STATE, SCRATCH, SCRATCH_BYTES, STATUS, CANCEL, PROFILE, SIZES };

int gc_main(context *);
#ifdef PREPARE
int gc_prepare(context *);
#endif

/* what the machine gives: an exact number of bytes in, out; memory; an end */
void get(void *to, size_t count);
void put(const void *from, size_t count);
void *memory(size_t count);
void leave(int code);

static void parallel(context *ctx, void (*tile)(context *, void *, int64_t, void *), void *frame, int64_t tiles) {
  for (int64_t i = 0; i < tiles; i++) tile(ctx, frame, i, ctx->field[SCRATCH].pointer);
}

static void *aligned(uint64_t count) {
  uintptr_t start = (uintptr_t)memory((size_t)count + 2 * LINE);
  return (void *)((start + LINE - 1) / LINE * LINE);
}

static uint64_t words[MOST], table[MOST];

/* memory that is not a number until it is written */
static void *unwritten(uint64_t count) {
  unsigned char *found = aligned(count);
  for (uint64_t i = 0; i < count; i++) found[i] = 0xFF;
  return found;
}

int run(void) {
  static context ctx;
  get(words, 10 * sizeof(uint64_t));
  uint64_t runs = words[0], count[5], *sizes = words + 10, all = 0;
  for (int kind = 0; kind < 5; kind++) all += count[kind] = words[5 + kind];
  get(sizes, (size_t)(words[3] + all) * sizeof(uint64_t));
  uint64_t *bytes = sizes + words[3];
  for (uint64_t i = 0; i < all; i++) {
    *(void **)(table + i) = aligned(bytes[i]);
    int given = i < count[0] + count[1] || (i >= all - count[3] - count[4] && i < all - count[4]);
    if (given) get(*(void **)(table + i), (size_t)bytes[i]);
  }
  ctx.field[PARALLEL].pointer = (void *)(uintptr_t)parallel;
  ctx.field[THREADS].word = 1;
  ctx.field[ARENA].pointer = unwritten(words[1]);
  ctx.field[SCRATCH].pointer = unwritten(words[2]);
  ctx.field[SCRATCH_BYTES].word = words[2];
  ctx.field[SIZES].pointer = sizes;
  ctx.field[CONSTS].pointer = count[0] ? *(void **)table : 0;
  ctx.field[INPUTS].pointer = table + count[0];
  ctx.field[OUTPUTS].pointer = table + count[0] + count[1];
  ctx.field[STATE].pointer = table + count[0] + count[1] + count[2];
  int code = 0;
  for (uint64_t i = 0; i < runs && code == 0; i++) {
    ctx.field[STATUS].word = 0x7FFFFFFFFFFFFFFF;
#ifdef PREPARE
    if (words[4]) code = gc_prepare(&ctx);
#endif
    if (code == 0) code = gc_main(&ctx);
  }
  put(&ctx.field[STATUS].word, 8);
  for (uint64_t i = count[0] + count[1]; i < all - count[4]; i++) put(*(void **)(table + i), (size_t)bytes[i]);
  return code;
}
