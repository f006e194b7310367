/*
 * usearch.cc - usearch as it is used: connectivity 16, rows as bf16, its own kernels chosen for this processor.
 */
#include <cstdio>
#include <string>
#include <vector>

#include <usearch/index_dense.hpp>

#include "tests/bench/peers/peers.h"

namespace {

namespace us = unum::usearch;

struct Engine {
    us::index_dense_t index;
    peer_cost cost{};
};

us::index_dense_t Make(size_t dim, size_t rows)
{
    us::index_dense_config_t config(16);
    us::metric_punned_t metric(dim, us::metric_kind_t::ip_k, us::scalar_kind_t::bf16_k);
    auto made = us::index_dense_t::make(metric, config);
    if (!made)
        peer_die("usearch: %s", made.error.what());
    us::index_dense_t index = std::move(made.index);
    if (rows && !index.try_reserve(us::index_limits_t(rows, 1)))
        peer_die("usearch: no memory");
    return index;
}

void Build(Engine *e, const peer_data *data)
{
    std::vector<float> row(data->dim);
    uint64_t begun = peer_cpu_ns(), told = peer_now_ns();
    for (uint64_t i = 0; i < data->rows; i++) {
        peer_data_row(data, i, row.data());
        if (auto added = e->index.add(i, row.data(), 0); !added)
            peer_die("usearch: %s", added.error.what());
        if (peer_now_ns() - told > 20000000000u) {
            told = peer_now_ns();
            peer_say("usearch: %.0f %%", 100.0 * double(i) / double(data->rows));
        }
    }
    e->cost.build_s = double(peer_cpu_ns() - begun) / 1e9;
}

void Load(Engine *e, const std::string &path, const peer_data *data)
{
    if (auto loaded = e->index.load(path.c_str()); !loaded)
        peer_die("usearch: %s", loaded.error.what());
    if (e->index.size() != data->rows)
        peer_die("%s holds other rows: remove it", path.c_str());
    if (!e->index.try_reserve(us::index_limits_t(data->rows, 1)))
        peer_die("usearch: no memory");
}

void Open(peer *self, const peer_data *data, const char *dir)
{
    std::string path = std::string(dir) + "/usearch.index";
    double none, before = peer_anonymous();
    auto *e = new Engine{Make(data->dim, data->rows)};
    self->state = e;
    if (peer_times_read(dir, "usearch", &none, &e->cost.build_s)) {
        Load(e, path, data);
    } else {
        Build(e, data);
        if (auto saved = e->index.save(path.c_str()); !saved)
            peer_die("usearch: %s", saved.error.what());
        peer_times_write(dir, "usearch", 0, e->cost.build_s);
    }
    snprintf(self->note, sizeof self->note, "M 16, expansion 128, bf16, kernels %s", e->index.metric().isa_name());
    e->cost.resident = peer_anonymous() - before;
    e->cost.disk = peer_disk(path.c_str());
}

void Close(peer *self)
{
    delete static_cast<Engine *>(self->state);
}

void Tune(peer *self, double knob)
{
    static_cast<Engine *>(self->state)->index.change_expansion_search(size_t(knob));
}

uint32_t Ask(peer *self, const float *query, uint32_t *ids, uint64_t *scanned)
{
    us::default_key_t keys[PEER_K];
    auto found = static_cast<Engine *>(self->state)->index.search(query, PEER_K, 0);
    auto count = uint32_t(found.dump_to(keys));
    for (uint32_t i = 0; i < count; i++)
        ids[i] = uint32_t(keys[i]);
    *scanned = found.computed_distances;
    return count;
}

void Cost(peer *self, peer_cost *cost)
{
    *cost = static_cast<Engine *>(self->state)->cost;
}

} // namespace

const struct peer peer_usearch = {"usearch", "", true, nullptr, Open, Close, Tune, Ask, Cost};
