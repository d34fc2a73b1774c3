/* Trains a network of handwritten digits from a CSV file, in C alone: c_library.py makes the library and the files. */
#include "digits.h"

#include <stdio.h>
#include <stdlib.h>

enum { ROWS = 2000, PIXELS = 64, BATCH = DIGITS_STEP_X_0, CLASSES = DIGITS_RECOGNISE_RESULT_1, EPOCHS = 15 };

typedef struct { float x[ROWS][PIXELS]; int32_t y[ROWS]; int n; } Digits;
static Digits train, held_out;

/* A row: the digit, then its pixels. */
static int read_csv(const char *path, Digits *d) {
    FILE *f = fopen(path, "r");
    if (!f) return 0;
    for (; d->n < ROWS && fscanf(f, "%d", &d->y[d->n]) == 1; d->n++)
        for (int i = 0; i < PIXELS; i++)
            if (fscanf(f, ",%f", &d->x[d->n][i]) != 1) return 0;
    fclose(f);
    return d->n;
}

static int recognised(digits *net, const float *x) {
    float scores[CLASSES];
    int best = 0;
    if (digits_recognise(net, x, scores)) return -1;
    for (int c = 1; c < CLASSES; c++) if (scores[c] > scores[best]) best = c;
    return best;
}

int main(void) {
    static float x[BATCH * PIXELS];
    static int32_t y[BATCH];
    float loss = 0;
    digits *net = digits_create(0);
    if (!net || !read_csv("train.csv", &train) || !read_csv("held_out.csv", &held_out)) return 1;
    srand(1);
    for (int step = 0; step < EPOCHS * (train.n / BATCH); step++) {
        for (int i = 0; i < BATCH; i++) {
            int row = (int)(rand() / (RAND_MAX + 1.0) * train.n);
            for (int p = 0; p < PIXELS; p++) x[i * PIXELS + p] = train.x[row][p];
            y[i] = train.y[row];
        }
        if (digits_step(net, x, y, &loss)) return fprintf(stderr, "%s\n", digits_message(net)), 1;
    }
    int right = 0;
    for (int i = 0; i < held_out.n; i++) right += recognised(net, held_out.x[i]) == held_out.y[i];
    FILE *f = fopen("trained.safetensors", "wb");
    if (!f || fwrite(digits_state(net), 1, DIGITS_STATE_BYTES, f) != DIGITS_STATE_BYTES || fclose(f)) return 1;
    printf("loss %.3f, %.2f %% of %d held-out digits\n", (double)loss, 100.0 * right / held_out.n, held_out.n);
    digits_free(net);
    return 0;
}
