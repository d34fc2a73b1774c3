/* Trains with an exported library and predicts, where hosted.c or bare.c is the machine: reads how many threads, a
   batch and its classes; writes the losses of ten steps and a prediction. */
#include "net.h"

#include <stddef.h>

enum { STEPS = 10, BATCH = 8, FEATURES = 64, CLASSES = 10 };

void get(void *to, size_t count);
void put(const void *from, size_t count);
void *memory(size_t count);

int run(void) {
  static float x[BATCH * FEATURES], result[BATCH * CLASSES], loss;
  static int32_t threads, y[BATCH];
  get(&threads, sizeof threads);
  get(x, sizeof x);
  get(y, sizeof y);
  int64_t bytes = net_memory(BATCH, threads);
  char *room = memory((size_t)bytes + 64);
  net *instance = (net *)(room + 63 - ((uintptr_t)room + 63) % 64);
  int status = net_init(instance, bytes, threads);
  for (int step = 0; step < STEPS && !status; step++) {
    status = net_step(instance, x, y, &loss);
    put(&loss, sizeof loss);
  }
  if (!status) status = net_predict(instance, BATCH, x, result);
  put(result, sizeof result);
  return status ? status : net_predict(instance, -1, x, result) == 0;
}
