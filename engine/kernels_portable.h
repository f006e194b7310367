/*
 * kernels_portable.h - the portable kernels that other tables borrow.
 */
#ifndef MN_ENGINE_KERNELS_PORTABLE_H
#define MN_ENGINE_KERNELS_PORTABLE_H

#include "engine/kernels.h"

void mn_portable_rotate(float *x, uint32_t width, const uint32_t *signs);
void mn_portable_make_table(const float *q, uint32_t width, uint8_t *table, struct mn_scan_query *query);
void mn_portable_make_fine(const float *q, uint32_t width, int8_t *codes, struct mn_fine_query *query);
uint32_t mn_portable_scan_block(const struct mn_scan_query *query, const uint8_t *block, float gap, float reach,
                                float limit, float low[32]);
int32_t mn_portable_dot8(const uint8_t *codes, const int8_t *query, uint32_t width);
void mn_portable_encode(const float *x, const float *c, uint32_t width, uint8_t *codes8, uint8_t *bits,
                        struct mn_code_sums *sums);
void mn_portable_products(const float *a, uint32_t na, const float *b, uint32_t nb, uint32_t width, float *out,
                          uint32_t out_stride);

#endif
