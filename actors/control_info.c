/*
 * control_info.c - builds the reply to `info`. The first nine members are the protocol's; the rest is for people and
 * tools.
 */
#include "actors/control_info.h"

#include <stdio.h>
#include <unistd.h>

#include "actors/actor.h"
#include "actors/tcp.h"
#include "actors/wire.h"
#include "config/version.h"
#include "engine/tune.h"
#include "shm/process.h"

static uint32_t count_role(const struct mn_supervisor *s, enum mn_role role)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->child_count; i++)
        n += s->children[i].role == role;
    return n;
}

/* Over TCP those that another machine can reach; `endpoint` has room for either. */
static char *endpoint_of(const struct mn_supervisor *s, bool remote, char endpoint[MN_TCP_ENDPOINT_MAX],
                         const char *name)
{
    return remote && mn_tcp_on(&s->settings) ? mn_tcp_public_endpoint(&s->settings, name, endpoint)
                                             : mn_actor_endpoint(&s->store, endpoint, name);
}

/* All of them, whether anybody serves there now or not. */
static void pack_endpoints(const struct mn_supervisor *s, bool remote, struct mn_reply *reply)
{
    char endpoint[MN_TCP_ENDPOINT_MAX], name[32];
    uint32_t workers = count_role(s, MN_ROLE_RECALL);
    mn_reply_key(reply, "endpoints");
    msgpack_pack_map(&reply->pack, 4);
    mn_reply_text(reply, "write", endpoint_of(s, remote, endpoint, "write"));
    mn_reply_key(reply, "recall");
    msgpack_pack_array(&reply->pack, workers);
    for (uint32_t i = 0; i < workers; i++) {
        snprintf(name, sizeof name, "recall.%u", i);
        mn_reply_key(reply, endpoint_of(s, remote, endpoint, name));
    }
    mn_reply_text(reply, "stats", endpoint_of(s, remote, endpoint, "stats"));
    mn_reply_text(reply, "stats_pub", endpoint_of(s, remote, endpoint, "stats.pub"));
}

/* node: the NUMA node that a recall worker serves. */
static void pack_role(struct mn_reply *reply, enum mn_role role, uint32_t index, uint32_t node, pid_t pid,
                      const struct mn_role_slot *slot)
{
    msgpack_pack_map(&reply->pack, 7);
    mn_reply_text(reply, "role", mn_role_word(role));
    mn_reply_uint(reply, "index", index);
    mn_reply_uint(reply, "node", node);
    mn_reply_uint(reply, "pid", (uint64_t)pid);
    mn_reply_text(reply, "state", mn_role_state_word(atomic_load(&slot->state)));
    mn_reply_uint(reply, "restarts", atomic_load(&slot->restarts));
    mn_reply_text(reply, "scheduling", mn_scheduling_word(atomic_load(&slot->scheduler)));
}

static void pack_roles(const struct mn_supervisor *s, struct mn_reply *reply)
{
    uint32_t alive = 1;
    for (uint32_t i = 0; i < s->child_count; i++)
        alive += s->children[i].pid != 0;
    mn_reply_key(reply, "roles");
    msgpack_pack_array(&reply->pack, alive);
    pack_role(reply, MN_ROLE_SUPERVISOR, 0, 0, getpid(), &s->instance.control->roles[MN_SLOT_SUPERVISOR]);
    for (uint32_t i = 0; i < s->child_count; i++) {
        const struct mn_child *child = &s->children[i];
        if (child->pid != 0)
            pack_role(reply, child->role, child->index, child->node, child->pid, child->shared);
    }
}

/* Why the store is degraded, as sentences; empty when it is not. */
static void pack_degraded(const struct mn_supervisor *s, struct mn_reply *reply)
{
    static const struct {
        uint32_t bit;
        const char *sentence;
    } table[] = {
#define X(name, bit, sentence) {bit, sentence},
        MN_DEGRADED_TABLE(X)
#undef X
    };
    const struct mn_control *control = s->instance.control;
    uint32_t reasons = atomic_load(&control->reasons) & ~(uint32_t)MN_DEGRADED_READ_ONLY;
    reasons |= atomic_load(&control->read_only) ? MN_DEGRADED_READ_ONLY : 0;
    mn_reply_key(reply, "degraded");
    msgpack_pack_array(&reply->pack, (size_t)__builtin_popcount(reasons));
    for (size_t i = 0; i < MN_ARRAY_LEN(table); i++)
        if (reasons & table[i].bit)
            mn_reply_key(reply, table[i].sentence);
}

static void pack_recovery(struct mn_supervisor *s, struct mn_reply *reply)
{
    const struct mn_child *recovery = mn_children_find(s, MN_ROLE_RECOVERY);
    uint32_t percent = atomic_load(&recovery->shared->progress);
    mn_reply_key(reply, "recovery");
    msgpack_pack_map(&reply->pack, 2);
    mn_reply_bool(reply, "running", recovery->pid != 0);
    mn_reply_uint(reply, "percent", s->recovered ? 100 : percent < 100 ? percent : 100);
}

/* Oldest first. */
static void pack_last_words(const struct mn_supervisor *s, struct mn_reply *reply)
{
    uint64_t kept = s->death_count < MN_DEATHS_KEPT ? s->death_count : MN_DEATHS_KEPT;
    mn_reply_key(reply, "last_words");
    msgpack_pack_array(&reply->pack, kept);
    for (uint64_t i = s->death_count - kept; i < s->death_count; i++) {
        const struct mn_death *death = &s->deaths[i % MN_DEATHS_KEPT];
        msgpack_pack_map(&reply->pack, 6);
        mn_reply_text(reply, "role", mn_role_word(death->role));
        mn_reply_uint(reply, "index", death->index);
        mn_reply_uint(reply, "pid", (uint64_t)death->pid);
        mn_reply_int(reply, "at", death->at);
        mn_reply_text(reply, "how", death->how);
        mn_reply_text(reply, "text", death->words);
    }
}

static void pack_protocol(struct mn_supervisor *s, bool remote, struct mn_reply *reply)
{
    char uuid[37];
    mn_uuid_text(s->store.uuid, uuid);
    mn_reply_text(reply, "version", mn_version_build());
    mn_reply_uint(reply, "protocol", MN_PROTOCOL_VERSION);
    mn_reply_text(reply, "uuid", uuid);
    mn_reply_uint(reply, "dim", s->store.dim);
    mn_reply_text(reply, "metric", mn_metric_word(s->store.metric));
    mn_reply_text(reply, "state", mn_store_state_word(mn_supervisor_now(s)));
    pack_endpoints(s, remote, reply);
    mn_reply_uint(reply, "seq", atomic_load(&s->instance.control->visible_seq));
    pack_roles(s, reply);
}

static void pack_marks(const struct mn_control *control, struct mn_reply *reply)
{
    mn_reply_uint(reply, "oldest_seq", atomic_load(&control->oldest_seq));
    mn_reply_uint(reply, "durable_seq", atomic_load(&control->durable_seq));
    mn_reply_uint(reply, "visible_seq", atomic_load(&control->visible_seq));
    mn_reply_uint(reply, "tail_rows", atomic_load(&control->tail_rows));
    mn_reply_bool(reply, "read_only", atomic_load(&control->read_only) != 0);
}

/* How many rows the store had when recall was calibrated; 0: it never was. */
static uint64_t calibrated_rows(const struct mn_control *control)
{
    float rows = mn_tune_read(control->tuning).rows;
    return rows > 0 ? (uint64_t)rows : 0;
}

/* What recall searches through, and what it was seen to find (recall_shadow.h). */
static void pack_recall(const struct mn_supervisor *s, struct mn_reply *reply)
{
    const struct mn_stats *stats = &s->instance.stats;
    struct mn_stat_summary observed;
    mn_stats_summary(stats, MN_STAT_recall_observed, &observed);
    mn_reply_key(reply, "index");
    msgpack_pack_map(&reply->pack, 6);
    mn_reply_uint(reply, "codebook", mn_stats_value(stats, MN_STAT_codebook_gen));
    mn_reply_uint(reply, "column_rows", mn_stats_value(stats, MN_STAT_column_rows));
    mn_reply_uint(reply, "coded_rows", mn_stats_value(stats, MN_STAT_ivf_rows));
    mn_reply_uint(reply, "tail_coded_rows", mn_stats_value(stats, MN_STAT_tail_coded_rows));
    mn_reply_uint(reply, "calibrated_rows", calibrated_rows(s->instance.control));
    mn_reply_uint(reply, "rows_min", s->settings.index_rows_min);
    mn_reply_key(reply, "observed");
    msgpack_pack_map(&reply->pack, observed.count > 0 ? 2 : 1);
    mn_reply_uint(reply, "recalls", observed.count);
    if (observed.count > 0)
        mn_reply_double(reply, "recall", (double)observed.sum / (double)observed.count / 1000);
}

void mn_control_info(struct mn_supervisor *s, struct mn_str rid, bool remote, struct mn_reply *reply)
{
    char path[MN_PATH_MAX];
    const struct mn_role_slot *writer = &s->instance.control->roles[MN_SLOT_WAL_WRITER];
    mn_reply_begin(reply, rid, 9 + 5 + 3 + 2 + 7);
    pack_protocol(s, remote, reply);
    pack_marks(s->instance.control, reply);
    pack_degraded(s, reply);
    pack_recovery(s, reply);
    pack_last_words(s, reply);
    pack_recall(s, reply);
    mn_reply_text(reply, "scheduling", mn_scheduling_word(atomic_load(&writer->scheduler)));
    mn_reply_text(reply, "dir", s->store.dir);
    mn_reply_text(reply, "settings", mn_supervisor_settings_path(s, path));
    mn_reply_text(reply, "instance", s->instance.path);
    mn_reply_uint(reply, "pid", (uint64_t)getpid());
    mn_reply_int(reply, "started_at", s->started_at);
    mn_reply_uint(reply, "uptime_s", (mn_clock_ns() - s->started_ns) / 1000000000u);
}
