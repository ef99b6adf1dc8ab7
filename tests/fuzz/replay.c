/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A driver for fuzz targets where libFuzzer is not: runs every file of the corpus folders and files
 * that are named on the command line, then repeatable mutations of them (bytes changed, numbers
 * made extreme, ends cut, two inputs spliced), and inputs of noise. The number of mutations is
 * FUZZ_RUNS (default 20000), their seed FUZZ_SEED (default 1). When an input kills the target, the
 * seed and the number of the run are the last line on standard error.
 */
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/byte_buffer.h"
#include "base/random.h"
#include "tests/fuzz/fuzz.h"

enum {
    INPUT_BYTES_MAX = 1 << 16,
    CORPUS_FILES_MAX = 4096,
    MUTATIONS_MAX = 8,
};

struct corpus {
    struct byte_buffer inputs[CORPUS_FILES_MAX];
    size_t count;
};

static volatile unsigned long current_run;
static unsigned long seed_of_run;

static void
on_death(int number)
{
    char line[128];
    int length = snprintf(line, sizeof(line), "fuzz: died by signal %d in FUZZ_SEED=%lu run %lu\n",
                          number, seed_of_run, current_run);
    if (write(STDERR_FILENO, line, (size_t)length) < 0) {
        _exit(1);
    }
    /* SA_RESETHAND: the second time kills. */
    raise(number);
}

static void
watch_for_death(void)
{
    static const int numbers[] = { SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL };
    struct sigaction action = { .sa_handler = on_death, .sa_flags = (int)SA_RESETHAND };
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        sigaction(numbers[i], &action, NULL);
    }
}

static void
corpus_add_file(struct corpus *corpus, const char *path)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL || corpus->count == CORPUS_FILES_MAX) {
        fprintf(stderr, "fuzz: cannot take %s: %s\n", path, strerror(errno));
        exit(1);
    }
    struct byte_buffer *input = &corpus->inputs[corpus->count++];
    uint8_t *space = byte_buffer_reserve(input, INPUT_BYTES_MAX);
    input->length_bytes = fread(space, 1, INPUT_BYTES_MAX, file);
    fclose(file);
}

static void
corpus_add(struct corpus *corpus, const char *path)
{
    struct stat status;
    if (stat(path, &status) < 0) {
        return; /* no corpus yet */
    }
    if (!S_ISDIR(status.st_mode)) {
        corpus_add_file(corpus, path);
        return;
    }
    struct dirent **entries = NULL;
    int count = scandir(path, &entries, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        if (entries[i]->d_name[0] != '.') {
            char name[4096];
            snprintf(name, sizeof(name), "%s/%s", path, entries[i]->d_name);
            corpus_add_file(corpus, name);
        }
        free(entries[i]);
    }
    free(entries);
}

/* One change of `data`; returns the new length. */
static size_t
mutate(struct random *random, const struct corpus *corpus, uint8_t *data, size_t length)
{
    static const uint64_t extremes[] = { 0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff,
                                         0x7fffffff, 0x80000000, UINT32_MAX, INT64_MAX,
                                         UINT64_MAX };
    uint64_t choice = random_below(random, 6);
    if (length == 0 || choice == 0) { /* grow by noise */
        size_t more = random_below(random, 32);
        for (size_t i = 0; i < more && length < INPUT_BYTES_MAX; i++) {
            data[length++] = (uint8_t)random_u64(random);
        }
        return length;
    }
    size_t at = random_below(random, length);
    if (choice == 1) {
        data[at] ^= (uint8_t)(1u << random_below(random, 8));
    } else if (choice == 2) {
        data[at] = (uint8_t)random_u64(random);
    } else if (choice == 3) { /* an extreme number of 1, 2, 4 or 8 bytes, in either byte order */
        size_t width = (size_t)1 << random_below(random, 4);
        uint64_t value = extremes[random_below(random, sizeof(extremes) / sizeof(extremes[0]))];
        bool is_big_endian = random_chance(random, 1, 2);
        for (size_t i = 0; i < width && at + i < length; i++) {
            data[at + i] = (uint8_t)(value >> (8 * (is_big_endian ? width - 1 - i : i)));
        }
    } else if (choice == 4) {
        return at;
    } else if (corpus->count > 0) { /* go on as another input does */
        const struct byte_buffer *other = &corpus->inputs[random_below(random, corpus->count)];
        if (at < other->length_bytes) {
            memcpy(data + at, other->data + at, other->length_bytes - at);
            return other->length_bytes;
        }
    }
    return length;
}

/* Run on memory of exactly this size, so that a sanitizer sees the first byte beyond. */
static void
run_one(const uint8_t *data, size_t length)
{
    uint8_t *copy = malloc(length > 0 ? length : 1);
    if (copy == NULL) {
        exit(1);
    }
    memcpy(copy, data, length);
    LLVMFuzzerTestOneInput(copy, length);
    free(copy);
}

static unsigned long
setting(const char *name, unsigned long otherwise)
{
    const char *text = getenv(name);
    return text == NULL ? otherwise : strtoul(text, NULL, 0);
}

int
main(int argc, char **argv)
{
    static struct corpus corpus;
    static uint8_t data[INPUT_BYTES_MAX];
    unsigned long runs = setting("FUZZ_RUNS", 20000);
    struct random random;

    watch_for_death();
    seed_of_run = setting("FUZZ_SEED", 1);
    random_seed(&random, seed_of_run);
    for (int i = 1; i < argc; i++) {
        corpus_add(&corpus, argv[i]);
    }
    for (size_t i = 0; i < corpus.count; i++) {
        run_one(corpus.inputs[i].data, corpus.inputs[i].length_bytes);
    }
    for (current_run = 1; current_run <= runs; current_run++) {
        size_t length = 0;
        if (corpus.count > 0 && !random_chance(&random, 1, 16)) {
            const struct byte_buffer *input = &corpus.inputs[random_below(&random, corpus.count)];
            memcpy(data, input->data, input->length_bytes);
            length = input->length_bytes;
        }
        uint64_t mutations = 1 + random_below(&random, MUTATIONS_MAX);
        for (uint64_t i = 0; i < mutations; i++) {
            length = mutate(&random, &corpus, data, length);
        }
        run_one(data, length);
    }
    printf("%zu inputs of the corpus and %lu mutations\n", corpus.count, runs);
    for (size_t i = 0; i < corpus.count; i++) {
        byte_buffer_free(&corpus.inputs[i]);
    }
    return 0;
}
