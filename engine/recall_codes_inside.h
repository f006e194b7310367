/*
 * recall_codes_inside.h - what the files of the search through codes share, and nobody else sees. A search passes them
 * in this order:
 *
 *   recall_codes.c   the search: its sources, its flow, and the last word
 *   recall_select.c  which rows of a source match, in which way it is gone through, and rows followed one by one
 *   recall_blocks.c  blocks scanned by 1-bit codes, those of the nearest clusters first
 *   recall_late.c    whether what was found came so late that the rule is not to be trusted
 *   recall_weigh.c   rows that passed are weighed by their 8-bit codes, and become candidates
 */
#ifndef MN_ENGINE_RECALL_CODES_INSIDE_H
#define MN_ENGINE_RECALL_CODES_INSIDE_H

#include <math.h>

#include "engine/probe.h"
#include "engine/recall_inside.h"
#include "engine/selection.h"

#define MN_RECALL_PROBES  4    /* codebooks that one search goes through; parts on others are scanned exactly */
#define MN_RECALL_WAITING 512u /* rows that wait for their 8-bit codes, */
#define MN_RECALL_TURNS   3u   /* while so many blocks are scanned */

enum mn_recall_way { MN_RECALL_BY_CLUSTERS, MN_RECALL_BY_FLAT, MN_RECALL_BY_LIST };

/* A part with an inverted file that this search goes through. */
struct mn_recall_source {
    uint32_t part;
    const struct mn_part *rows_of;
    const struct mn_ivf *ivf;
    struct mn_probe *probe;
    struct mn_selection selection;
    bool whole; /* every row matches */
    bool every; /* every row is to be looked at, whether or not it matches */
    enum mn_recall_way way;
    bool ask_born, ask_died, ask_expires;
    uint32_t excluded; /* number of the space of the memory that is left out, or MN_NONE */
    /* Kept from search to search. */
    struct mn_matcher matcher;
    struct mn_selector selector;
    float together;        /* selected rows in the cluster of a selected row, on average */
    const uint64_t *marks; /* of the selected rows their slots, as a set; NULL: the selection says it of rows */
    uint64_t *words;       /* that set */
    uint64_t words_max;
    uint64_t *seen; /* clusters whose rest was scanned: mn_rowset_words(clusters) */
    uint64_t seen_max;
};

/* Whether it is gone through by the clusters that a probe has in order. */
static inline bool mn_recall_goes_by(const struct mn_recall_source *source, const struct mn_probe *probe)
{
    return source->probe == probe && source->way == MN_RECALL_BY_CLUSTERS;
}

/* A row that was weighed. key: its distance; under rank the distance at which a row of its score would lie if its
 * factors were 1. least: what the key may well be, by the error of codes. */
struct mn_recall_candidate {
    float key, least;
    uint32_t source, row;
};

/* The k best: a heap, worst on top. Those behind that may well belong among them: in no order. */
struct mn_recall_candidates {
    struct mn_recall_candidate *heap;
    uint32_t count, max; /* max: of the current search */
    uint32_t room;
};

/* A row that waits for its 8-bit codes. */
struct mn_recall_waiting {
    float low; /* lower bound of its distance; -INFINITY when its 1-bit codes were not scanned */
    float gap; /* between the query and its cluster */
    uint32_t source, slot;
};

/* Scratch of one caller's searches, one after the other. Begins as zeros. */
struct mn_recall_codes {
    struct mn_recall_source *sources;
    uint32_t source_count, source_max;
    struct mn_probe probes[MN_RECALL_PROBES];
    struct mn_recall_candidates best, close;
    bool alike; /* there are too many close ones: codes are no help to this query */
    struct mn_recall_waiting waiting[MN_RECALL_WAITING];
    uint32_t waiting_first, waiting_end;
    uint32_t scans;                  /* blocks scanned */
    uint32_t marks[MN_RECALL_TURNS]; /* a ring: waiting_end before each of the last of them */
    uint32_t seeds; /* of those that wait, the first so many are to set the first limit; see mn_recall_weigh_seed */
    /* The current search's. */
    struct mn_recall *recall;
    struct mn_tune_rule rule;
    float bound; /* what is farther cannot enter, whatever is found: of min_score, and of rows compared exactly */
    float limit; /* what is not below it cannot enter */
    /* Where matches may lie otherwise than the rule knows, of clusters, where on the way they were opened; NaN: not. */
    bool watched;
    float *opened_at; /* [opened_max] */
    uint32_t opened_max;
    float chance;   /* how many of the best may have come late by chance */
    float look_at;  /* on the way: when what was found is looked at next */
    bool ending;    /* the clusters are near their end: the embeddings of the best are asked for */
    uint32_t asked; /* of the best: embeddings that were asked for */
    /* Of the block being scanned. */
    _Alignas(MN_LINE) float low[MN_IVF_LANES];
    float gaps[2 * MN_IVF_LANES], reaches[2 * MN_IVF_LANES]; /* written beyond its lanes: see place_shared_lanes */
};

/* ---- recall_select.c ---- */

/* Bit i: whether the row at slot first + i is selected, of 1 to 32 slots. */
uint32_t mn_recall_select_slots(const struct mn_recall_source *s, uint32_t first, uint32_t count);
/* Finds the matching rows of each source; *rows: how many would be looked at if all were followed one by one. */
enum mn_status mn_recall_select_rows(struct mn_recall_codes *c, uint64_t *rows) MN_MUST_USE;
/* Chooses the way through each source, once its rows are selected, and sorts the clusters of each codebook: those with
 * a selected row in them, as far as that is known. */
enum mn_status mn_recall_select_ways(struct mn_recall_codes *c) MN_MUST_USE;
/* The rule for the clusters of a codebook: the calibrated one, and under a filter what becomes of it. */
struct mn_tune_rule mn_recall_select_rule(const struct mn_recall_codes *c, const struct mn_tune_rule *calibrated,
                                          const struct mn_probe *probe);
/* Weighs the selected rows of a source one by one, without a look at their 1-bit codes. */
void mn_recall_select_follow(struct mn_recall_codes *c, uint32_t source);
/* Compares the selected rows of a source at once. */
void mn_recall_select_compare(struct mn_recall_codes *c, const struct mn_recall_source *s);

/* ---- recall_blocks.c ---- */

/* Scans the sources on one codebook that go BY_CLUSTERS, nearest clusters first, until the rule says that it is
 * enough; probe is sorted. Nobody waits any more when it returns. */
void mn_recall_blocks_scan_clusters(struct mn_recall_codes *c, struct mn_probe *probe);
/* Scans all of a flat source. Nobody waits any more when it returns. */
void mn_recall_blocks_scan_flat(struct mn_recall_codes *c, uint32_t source);

/* ---- recall_late.c ---- */

/* Makes room for the clusters of the sources. */
enum mn_status mn_recall_late_reserve(struct mn_recall_codes *c) MN_MUST_USE;
/* Before the clusters of a codebook: decides whether they are watched. */
void mn_recall_late_begin(struct mn_recall_codes *c, const struct mn_probe *probe);
/* A cluster is opened, at `rank` on the way. */
static inline void mn_recall_late_opened(struct mn_recall_codes *c, uint32_t cluster, float rank)
{
    if (c->watched)
        c->opened_at[cluster] = rank;
}
/* The rule would end at `rank`: whether too many of the best came from the later half of the way. */
bool mn_recall_late(struct mn_recall_codes *c, const struct mn_probe *probe, float rank);

/* ---- recall_weigh.c ---- */

/* Makes room for the k best, and forgets those of the last search and the close ones behind them. */
enum mn_status mn_recall_weigh_reserve(struct mn_recall_codes *c, uint32_t k) MN_MUST_USE;
/* Sets the limit to what min_score and the rows compared so far leave to find; before anything is weighed. */
void mn_recall_weigh_begin(struct mn_recall_codes *c);
/* Weighs those that wait, in their order, up to place `end`. */
void mn_recall_weigh_until(struct mn_recall_codes *c, uint32_t end);
/* While nothing keeps rows out: brings those of the waiting with the lowest bounds to the front and asks for their
 * codes, if there are enough of them to set a limit. */
void mn_recall_weigh_seed(struct mn_recall_codes *c);
/* Weighs those, and of the others drops what the limit keeps out. */
void mn_recall_weigh_seeds(struct mn_recall_codes *c);
/* Weighs all that wait; while nothing keeps rows out, those with the lowest bounds first. */
void mn_recall_weigh_rest(struct mn_recall_codes *c);
/* Of the close ones, drops those that what was found since keeps out. */
void mn_recall_weigh_drop_far(struct mn_recall_codes *c);
/* Of these selected rows, compares those that may come back by their embeddings, at once. rows: is overwritten. */
void mn_recall_weigh_now(struct mn_recall_codes *c, const struct mn_recall_source *s, uint32_t *rows, uint32_t count);
/* Asks memory for what a comparison of the candidate's embedding will read. */
void mn_recall_weigh_ask_for_row(const struct mn_recall_codes *c, const struct mn_recall_candidate *candidate);

/* Asks memory for what weighing the row will read: into the second level's cache, which has room for many more requests
 * at once than the first. */
static inline void mn_recall_weigh_ask_for_codes(const struct mn_recall_codes *c, const struct mn_recall_waiting *w)
{
    const struct mn_ivf *ivf = c->sources[w->source].ivf;
    uint32_t width = ivf->codebook->width;
    const uint8_t *codes = ivf->codes8 + (size_t)w->slot * width;
    for (uint32_t i = 0; i < width; i += MN_LINE)
        __builtin_prefetch(codes + i, 0, 2);
    __builtin_prefetch(&ivf->fine[w->slot], 0, 2);
    if (ivf->order)
        __builtin_prefetch(&ivf->order[w->slot], 0, 2);
}

/* Has a row wait; here, because it is called for every row that passes a scan. While nothing keeps rows out its codes
 * are not asked for yet: most will not be needed once the lowest bounds have been weighed. */
static inline void mn_recall_weigh_wait(struct mn_recall_codes *c, struct mn_recall_waiting w)
{
    if (c->waiting_end == MN_RECALL_WAITING)
        mn_recall_weigh_rest(c);
    c->waiting[c->waiting_end++] = w;
    if (c->limit < INFINITY)
        mn_recall_weigh_ask_for_codes(c, &w);
}

#endif
