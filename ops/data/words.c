/*
 * words.c - mneme-words: prints the shipped data set as JSON lines, ready for `mneme import`.
 *
 *   mneme-words [--data FOLDER] [--count N]
 *
 * One memory a line, the most frequent word first: id, content (the word), embedding, tags (first letter, length, a
 * kind where kinds.txt knows one), meta, and two columns that make filters and ranking worth trying: `confidence` falls
 * with the logarithm of the frequency rank from 1 to 0.2, and `at` says that the word of rank r was last met r hours
 * ago. FOLDER holds words.txt, words.f16 and kinds.txt; it is the folder of this file in the source tree unless given.
 * Exit status: 0; 1 when the data cannot be read, with a sentence; 2 for a bad command line.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { DIM = 100, WORDS_MAX = 20000, WORD_MAX = 64, KINDS_MAX = 1024, LINE_MAX_BYTES = 4096 };

/* A word and its kind, from kinds.txt. */
struct kind {
    char word[WORD_MAX];
    char kind[WORD_MAX];
};

struct data {
    FILE *words;
    FILE *vectors;
    struct kind kinds[KINDS_MAX];
    size_t kind_count;
};

static FILE *open_in(const char *folder, const char *name)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "rb");
    if (!file) {
        fprintf(stderr, "mneme-words: cannot read %s: %s\n", path, strerror(errno));
        exit(1);
    }
    return file;
}

/* Takes a line "kind: word word ..." apart; comments and empty lines have no colon before a word and add nothing. */
static void add_kinds(struct data *data, char *line)
{
    char *rest, *kind = strtok_r(line, ":\n", &rest);
    if (!kind || *kind == '#')
        return;
    for (char *word; (word = strtok_r(NULL, " \n", &rest)) && data->kind_count < KINDS_MAX;) {
        struct kind *entry = &data->kinds[data->kind_count++];
        snprintf(entry->word, sizeof entry->word, "%s", word);
        snprintf(entry->kind, sizeof entry->kind, "%s", kind);
    }
}

static void open_data(struct data *data, const char *folder)
{
    char line[LINE_MAX_BYTES];
    data->words = open_in(folder, "words.txt");
    data->vectors = open_in(folder, "words.f16");
    FILE *kinds = open_in(folder, "kinds.txt");
    while (fgets(line, sizeof line, kinds))
        add_kinds(data, line);
    fclose(kinds);
}

/* A half float as a double. The data holds neither infinities nor NaN. */
static double half_value(uint16_t bits)
{
    int exponent = (bits >> 10) & 31;
    double fraction = (bits & 1023) / 1024.0;
    double magnitude = exponent ? ldexp(1 + fraction, exponent - 15) : ldexp(fraction, -14);
    return bits & 0x8000 ? -magnitude : magnitude;
}

static void print_embedding(const unsigned char *row)
{
    printf("\"embedding\":[");
    for (int i = 0; i < DIM; i++)
        printf("%s%.5g", i ? "," : "", half_value((uint16_t)(row[2 * i] | row[2 * i + 1] << 8)));
    printf("]");
}

/* A word may be of more than one kind (an orange is a food and a colour). */
static void print_tags(const struct data *data, const char *word)
{
    printf("\"tags\":[\"letter:%c\",\"length:%zu\"", word[0], strlen(word));
    for (size_t i = 0; i < data->kind_count; i++) {
        if (strcmp(data->kinds[i].word, word) == 0)
            printf(",\"kind:%s\"", data->kinds[i].kind);
    }
    printf("]");
}

static void print_memory(const struct data *data, int rank, const char *word, const unsigned char *row, time_t now)
{
    const int64_t hour_ns = INT64_C(3600) * 1000000000;
    double confidence = 1 - 0.8 * log(1 + rank) / log(WORDS_MAX);
    printf("{\"id\":%d,\"content\":\"%s\",", rank + 1, word);
    print_tags(data, word);
    printf(",\"meta\":{\"rank\":%d},\"confidence\":%.3f,\"at\":%" PRId64 ",", rank + 1, confidence,
           (int64_t)now * 1000000000 - rank * hour_ns);
    print_embedding(row);
    printf("}\n");
}

/* Prints `count` words; false when the files are shorter or a word is not plain letters (then they are not our files).
 */
static bool print_words(const struct data *data, int count)
{
    char word[WORD_MAX];
    unsigned char row[2 * DIM];
    time_t now = time(NULL);
    for (int rank = 0; rank < count; rank++) {
        if (!fgets(word, sizeof word, data->words) || fread(row, sizeof row, 1, data->vectors) != 1)
            return false;
        word[strcspn(word, "\n")] = '\0';
        if (!*word || word[strspn(word, "abcdefghijklmnopqrstuvwxyz")] != '\0')
            return false;
        print_memory(data, rank, word, row, now);
    }
    return true;
}

static int usage(FILE *out, int status)
{
    fprintf(
        out,
        "usage: mneme-words [--data FOLDER] [--count 1..%d]\n"
        "prints English words as memories for `mneme import -`: GloVe embeddings of %d numbers, the commonest first\n",
        WORDS_MAX, DIM);
    return status;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"data", required_argument, NULL, 'd'},
                                            {"count", required_argument, NULL, 'c'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    static struct data data;
    const char *folder = MN_WORDS_FOLDER;
    int count = WORDS_MAX, option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'd')
            folder = optarg;
        else if (option == 'c')
            count = atoi(optarg);
        else
            return option == 'h' ? usage(stdout, 0) : usage(stderr, 2);
    }
    if (count < 1 || count > WORDS_MAX || optind != argc)
        return usage(stderr, 2);
    open_data(&data, folder);
    if (!print_words(&data, count)) {
        fprintf(stderr, "mneme-words: the files in %s are not the shipped data: see README.md there\n", folder);
        return 1;
    }
    return fflush(stdout) == 0 ? 0 : 1;
}
