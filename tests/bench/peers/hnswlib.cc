/*
 * hnswlib.cc - hnswlib as it is used: M = 16, efConstruction = 200, f32, inner product of rows of unit length.
 */
#include <string>
#include <vector>

#include <hnswlib/hnswlib.h>

#include "tests/bench/peers/peers.h"

namespace {

constexpr size_t kLinks = 16, kEffort = 200;

struct Engine {
    hnswlib::InnerProductSpace space;
    hnswlib::HierarchicalNSW<float> *index = nullptr;
    peer_cost cost{};
    explicit Engine(size_t dim) : space(dim) {}
    ~Engine() { delete index; }
};

void Build(Engine *e, const peer_data *data)
{
    std::vector<float> row(data->dim);
    e->index = new hnswlib::HierarchicalNSW<float>(&e->space, data->rows, kLinks, kEffort);
    uint64_t begun = peer_cpu_ns(), told = peer_now_ns();
    for (uint64_t i = 0; i < data->rows; i++) {
        peer_data_row(data, i, row.data());
        e->index->addPoint(row.data(), i);
        if (peer_now_ns() - told > 20000000000u) {
            told = peer_now_ns();
            peer_say("hnswlib: %.0f %%", 100.0 * double(i) / double(data->rows));
        }
    }
    e->cost.build_s = double(peer_cpu_ns() - begun) / 1e9;
}

void Open(peer *self, const peer_data *data, const char *dir)
{
    std::string path = std::string(dir) + "/hnswlib.index";
    double none, before = peer_anonymous();
    auto *e = new Engine(data->dim);
    self->state = e;
    if (peer_times_read(dir, "hnswlib", &none, &e->cost.build_s)) {
        e->index = new hnswlib::HierarchicalNSW<float>(&e->space, path);
        if (e->index->cur_element_count != data->rows)
            peer_die("%s holds other rows: remove the folder", dir);
    } else {
        Build(e, data);
        e->index->saveIndex(path);
        peer_times_write(dir, "hnswlib", 0, e->cost.build_s);
    }
    e->cost.resident = peer_anonymous() - before;
    e->cost.resident_vector = 4.0 * data->dim * double(data->rows);
    e->cost.disk = peer_disk(path.c_str());
}

void Close(peer *self)
{
    delete static_cast<Engine *>(self->state);
}

void Tune(peer *self, double knob)
{
    static_cast<Engine *>(self->state)->index->setEf(size_t(knob));
}

uint32_t Ask(peer *self, const float *query, uint32_t *ids, uint64_t *scanned)
{
    auto *index = static_cast<Engine *>(self->state)->index;
    long before = index->metric_distance_computations;
    auto found = index->searchKnn(query, PEER_K);
    auto count = uint32_t(found.size());
    for (uint32_t i = count; i-- > 0; found.pop())
        ids[i] = uint32_t(found.top().second);
    *scanned = uint64_t(index->metric_distance_computations - before);
    return count;
}

void Cost(peer *self, peer_cost *cost)
{
    *cost = static_cast<Engine *>(self->state)->cost;
}

} // namespace

const struct peer peer_hnswlib = {"hnswlib", "M 16, efConstruction 200, f32", true, nullptr, Open, Close, Tune, Ask,
                                  Cost};
