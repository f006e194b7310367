/*
 * layout.h - every structure that two processes of Mneme share, declared once.
 *
 * Each struct is a list of rows `F(offset, type, name, dims, "who writes it: what it is")`; L is an F that begins a
 * 64-byte line of its own (hot words do not share a line with anything that another process writes). The list expands
 * to the struct, to static assertions on each offset, to the layout fingerprint that a process compares before it
 * trusts a mapping, and to LAYOUT.md. Fields have fixed widths; there are no pointers and no locks.
 */
#ifndef MN_SHM_LAYOUT_H
#define MN_SHM_LAYOUT_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define MN_LINE           64
#define MN_LAYOUT_VERSION 1
#define MN_ROLE_SLOTS     72 /* supervisor, recovery, writer, compactor, up to 64 recall workers, spare */
#define MN_LAST_WORDS_MAX 240
#define MN_UUID_BYTES     16
#define MN_STATS_PAGES    MN_ROLE_SLOTS
#define MN_TUNING_WORDS   32

/* At the front of every shared segment. */
#define MN_SEGMENT_HEADER_FIELDS(F, L)                                                                                 \
    F(0, uint64_t, magic, , "creator: MN_MAGIC_*, which segment this is")                                              \
    F(8, uint32_t, version, , "creator: MN_LAYOUT_VERSION")                                                            \
    F(12, uint32_t, header_bytes, , "creator: sizeof(struct mn_segment_header)")                                       \
    F(16, uint64_t, fingerprint, , "creator: hash of the field lists both sides were compiled with")                   \
    F(24, uint64_t, bytes, , "creator: length of the whole segment")                                                   \
    F(32, uint8_t, boot_id, [16], "creator: the boot that this memory belongs to")                                     \
    F(48, uint8_t, instance, [16], "creator: the running instance, random at each supervisor start")                   \
    L(64, _Atomic uint32_t, ready, , "creator: 1, stored last with release, when the rest is laid out")

/* One per process that the supervisor started (slot 0 is the supervisor itself). */
#define MN_ROLE_SLOT_FIELDS(F, L)                                                                                      \
    F(0, _Atomic uint32_t, role, , "supervisor: enum mn_role + 1; 0 = free")                                           \
    F(4, _Atomic uint32_t, index, , "supervisor: worker number (recall), else 0")                                      \
    F(8, _Atomic uint32_t, node, , "supervisor: NUMA node")                                                            \
    F(12, _Atomic uint32_t, state, , "the role: enum mn_role_state")                                                   \
    F(16, _Atomic uint32_t, pid, , "supervisor: 0 = not running")                                                      \
    F(20, _Atomic uint32_t, restarts, , "supervisor: times it was started again")                                      \
    F(24, _Atomic uint64_t, start_time, , "supervisor: of the pid, in clock ticks since boot (a generation)")          \
    F(32, _Atomic uint64_t, heartbeat_ns, , "the role: CLOCK_MONOTONIC, each turn of its loop")                        \
    F(40, _Atomic uint32_t, progress, , "the role: percent of long work (recovery)")                                   \
    F(44, _Atomic uint32_t, scheduler, , "the role: enum mn_scheduling it runs under")                                 \
    F(48, char, last_words, [MN_LAST_WORDS_MAX], "the role: why it stopped; text")                                     \
    F(288, uint8_t, spare, [32], "nobody")

#define MN_CONTROL_FIELDS(F, L)                                                                                        \
    F(0, struct mn_segment_header, header, , "supervisor")                                                             \
    F(128, uint8_t, store_uuid, [16], "supervisor: of the data folder")                                                \
    F(144, uint32_t, dim, , "supervisor: floats in an embedding")                                                      \
    F(148, uint32_t, metric, , "supervisor: enum mn_metric")                                                           \
    F(152, uint32_t, reader_slots, , "supervisor: slots in the readers segment")                                       \
    F(156, _Atomic uint32_t, state, , "supervisor: enum mn_store_state, as info tells it")                             \
    F(160, _Atomic uint32_t, reasons, , "writer, recovery: bits of enum mn_degraded; set, never cleared by readers")   \
    F(164, _Atomic uint32_t, read_only, , "writer: 1 while writes are refused")                                        \
    L(192, _Atomic uint64_t, durable_seq, , "writer: all up to here is on disk")                                       \
    L(256, _Atomic uint64_t, visible_seq, , "writer: all up to here may be read")                                      \
    L(320, _Atomic uint64_t, acked_seq, , "writer: a reply up to here may have left")                                  \
    L(384, _Atomic uint64_t, view_gen, , "writer, recovery: the newest view file; the epoch that readers pin")         \
    L(448, _Atomic uint64_t, oldest_seq, , "writer: reads as of an older seq are refused")                             \
    F(456, _Atomic uint64_t, tail_rows, , "writer: rows not yet in columns")                                           \
    F(464, _Atomic uint64_t, instance_gen, , "recovery: counts the tails built in this instance")                      \
    F(472, _Atomic uint64_t, history_seq, , "writer: versions that died up to here are older than history.window")     \
    F(480, _Atomic uint64_t, recovery_gen, , "recovery: the last instance_gen that any try has used")                  \
    L(512, struct mn_role_slot, roles, [MN_ROLE_SLOTS], "see there")                                                   \
    L(23552, _Atomic uint32_t, tuning, [MN_TUNING_WORDS],                                                              \
      "writer: how recall keeps its targets, from the manifest: floats as bits, see engine/tune.h; 0 = untuned")       \
    L(23680, _Atomic uint64_t, codes_gen, ,                                                                            \
      "compactor: counts the files with codes of tail chunks that were published, see engine/tail_codes.h")            \
    F(23688, _Atomic uint64_t, hot_gen, ,                                                                              \
      "compactor: counts the times that hot copies came or went, see engine/hot.h")                                    \
    F(23696, _Atomic uint64_t, mended, ,                                                                               \
      "compactor: upper half: counts the column segments mended in place; lower half: of the id of the last one")

/* A reader's lease, alone on its line. Cleared by the supervisor alone (or by its owner on a clean end). */
#define MN_READER_SLOT_FIELDS(F, L)                                                                                    \
    F(0, _Atomic uint64_t, owner, , "claimer, by compare-and-swap from 0: pid << 32 | slot generation")                \
    F(8, _Atomic uint64_t, start_time, , "owner: of its pid, in clock ticks since boot; 0 = not yet told")             \
    F(16, _Atomic uint64_t, epoch, , "owner: the pinned view_gen; 0 = nothing pinned")                                 \
    F(24, _Atomic uint64_t, pinned_ns, , "owner: CLOCK_MONOTONIC at the pin")                                          \
    F(32, uint8_t, spare, [32], "nobody")

#define MN_FIELD(offset, type, name, dims, help)      type name dims;
#define MN_LINE_FIELD(offset, type, name, dims, help) _Alignas(MN_LINE) type name dims;
#define MN_STRUCT(tag, FIELDS)                                                                                         \
    struct tag {                                                                                                       \
        FIELDS(MN_FIELD, MN_LINE_FIELD)                                                                                \
    };

MN_STRUCT(mn_segment_header, MN_SEGMENT_HEADER_FIELDS)
MN_STRUCT(mn_role_slot, MN_ROLE_SLOT_FIELDS)
MN_STRUCT(mn_control, MN_CONTROL_FIELDS)
MN_STRUCT(mn_reader_slot, MN_READER_SLOT_FIELDS)

/* Name, struct, field list, size: what the assertions, the fingerprint and LAYOUT.md run over. Engine segments (tail
 * chunk, liveness, view) add theirs in engine/shared.h. */
#define MN_LAYOUT_TABLE(X)                                                                                             \
    X(mn_segment_header, MN_SEGMENT_HEADER_FIELDS, 128)                                                                \
    X(mn_role_slot, MN_ROLE_SLOT_FIELDS, 320)                                                                          \
    X(mn_control, MN_CONTROL_FIELDS, 512 + 320 * MN_ROLE_SLOTS + 4 * MN_TUNING_WORDS + 64)                             \
    X(mn_reader_slot, MN_READER_SLOT_FIELDS, 64)

/* The compiler's check of a list: every field is where its row says, and the struct has its size. */
#define MN_CHECK_FIELD(offset, type, name, dims, help)                                                                 \
    _Static_assert(offsetof(self, name) == (offset), #name " has moved");
#define MN_CHECK_STRUCT(tag, FIELDS, size)                                                                             \
    static inline void mn_check_##tag(void)                                                                            \
    {                                                                                                                  \
        typedef struct tag self;                                                                                       \
        _Static_assert(sizeof(self) == (size), #tag " has changed its size");                                          \
        FIELDS(MN_CHECK_FIELD, MN_CHECK_FIELD)                                                                         \
    }
MN_LAYOUT_TABLE(MN_CHECK_STRUCT)

/* Which segment a header belongs to. */
#define MN_MAGIC_CONTROL UINT64_C(0x314c5254434e4d01) /* little-endian "\x01MNCTRL1" */
#define MN_MAGIC_READERS UINT64_C(0x31534452524e4d02)
#define MN_MAGIC_STATS   UINT64_C(0x31544154534e4d03)
#define MN_MAGIC_TAIL    UINT64_C(0x314c4941544e4d04)
#define MN_MAGIC_LIVE    UINT64_C(0x315645564c4e4d05)
#define MN_MAGIC_VIEW    UINT64_C(0x31574549564e4d06)
#define MN_MAGIC_CODES   UINT64_C(0x315345444f434d07)
#define MN_MAGIC_HOT     UINT64_C(0x31544f48004e4d08)

/* Wire words of the enums below are in actors; each list is (enum name, word). */
#define MN_ROLE_TABLE(X)                                                                                               \
    X(MN_ROLE_SUPERVISOR, "supervisor")                                                                                \
    X(MN_ROLE_RECOVERY, "recovery")                                                                                    \
    X(MN_ROLE_WAL_WRITER, "wal-writer")                                                                                \
    X(MN_ROLE_RECALL, "recall")                                                                                        \
    X(MN_ROLE_COMPACTOR, "compactor")

#define MN_ROLE_STATE_TABLE(X)                                                                                         \
    X(MN_ROLE_STARTING, "starting")                                                                                    \
    X(MN_ROLE_READY, "ready")                                                                                          \
    X(MN_ROLE_STOPPING, "stopping")

#define MN_STORE_STATE_TABLE(X)                                                                                        \
    X(MN_STORE_STARTING, "starting")                                                                                   \
    X(MN_STORE_RECOVERING, "recovering")                                                                               \
    X(MN_STORE_READY, "ready")                                                                                         \
    X(MN_STORE_DEGRADED, "degraded")                                                                                   \
    X(MN_STORE_STOPPING, "stopping")

/* Why a store is degraded; more than one may hold. (bit, what a person reads in info.degraded) */
#define MN_DEGRADED_TABLE(X)                                                                                           \
    X(MN_DEGRADED_QUARANTINE, 1, "damaged data is in quarantine/: read the notes there, then move them out")           \
    X(MN_DEGRADED_LOST, 2, "acknowledged data was damaged and could not be recovered")                                 \
    X(MN_DEGRADED_COLUMN, 4, "a column file is damaged")                                                               \
    X(MN_DEGRADED_READ_ONLY, 8, "writes are refused: the disk is full or read-only")                                   \
    X(MN_DEGRADED_ROLE, 16, "a role keeps dying")                                                                      \
    X(MN_DEGRADED_INDEX, 32, "an index file is damaged: recall is slower until it is rebuilt")                         \
    X(MN_DEGRADED_COPY, 64, "the second copy of the log is not up to date: writes are kept once (store.copy_dir)")     \
    X(MN_DEGRADED_MANIFEST, 128, "MANIFEST is kept once: its copy could not be written, and is as soon as it can be")

#define MN_METRIC_TABLE(X)                                                                                             \
    X(MN_METRIC_COSINE, "cosine")                                                                                      \
    X(MN_METRIC_IP, "ip")                                                                                              \
    X(MN_METRIC_L2, "l2")

#define MN_SCHEDULING_TABLE(X)                                                                                         \
    X(MN_SCHEDULING_NORMAL, "normal")                                                                                  \
    X(MN_SCHEDULING_REALTIME, "fifo")                                                                                  \
    X(MN_SCHEDULING_BATCH, "batch")                                                                                    \
    X(MN_SCHEDULING_PROMPT, "prompt")

#define X(name, word) name,
enum mn_role { MN_ROLE_TABLE(X) MN_ROLE_COUNT };
enum mn_role_state { MN_ROLE_STATE_TABLE(X) };
enum mn_store_state { MN_STORE_STATE_TABLE(X) };
enum mn_metric { MN_METRIC_TABLE(X) MN_METRIC_COUNT };
enum mn_scheduling { MN_SCHEDULING_TABLE(X) };
#undef X
#define X(name, bit, help) name = bit,
enum mn_degraded { MN_DEGRADED_TABLE(X) };
#undef X

/* Words of the tables above. Never NULL; an unknown number is "?". */
const char *mn_role_word(unsigned role);
const char *mn_role_state_word(unsigned state);
const char *mn_store_state_word(unsigned state);
const char *mn_metric_word(unsigned metric);
const char *mn_scheduling_word(unsigned scheduling);

/* FNV-1a over every row of MN_LAYOUT_TABLE (struct, field, offset, type): equal only for builds that agree.
 * mn_layout_hash adds a text to such a hash; the engine goes on from here with its own tables. */
uint64_t mn_layout_fingerprint(void);
uint64_t mn_layout_hash(uint64_t hash, const char *text);

/* A list as the text that is hashed. */
#define MN_FIELD_TEXT(offset, type, name, dims, help) #offset " " #type " " #name #dims ";"
#define MN_STRUCT_TEXT(tag, FIELDS, size)             #tag "{" FIELDS(MN_FIELD_TEXT, MN_FIELD_TEXT) "}"

#endif
