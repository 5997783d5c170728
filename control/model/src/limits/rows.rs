//! The rows of the limits table.

use super::{LimitRow, LimitValue, SetIn};
use crate::{Bytes, DurationMs};

const fn manifest(
    id: &'static str,
    name: &'static str,
    bounds: &'static str,
    refusal: &'static str,
    test: &'static str,
) -> LimitRow {
    LimitRow { id, name, set_in: SetIn::Manifest, bounds, refusal, metric: HITS, test }
}

/// A limit of the manifest that nothing counts: who hits it is answered, or nothing is refused.
const fn uncounted(row: LimitRow) -> LimitRow {
    LimitRow { metric: ANSWERED, ..row }
}

const fn fixed(
    id: &'static str,
    name: &'static str,
    value: LimitValue,
    bounds: &'static str,
    (refusal, metric): (&'static str, &'static str),
    test: &'static str,
) -> LimitRow {
    LimitRow { id, name, set_in: SetIn::Fixed(value), bounds, refusal, metric, test }
}

/// A limit of a node's config file: its default and its maximum.
const fn node(
    id: &'static str,
    name: &'static str,
    (default, most): (LimitValue, LimitValue),
    bounds: &'static str,
    (refusal, metric): (&'static str, &'static str),
    test: &'static str,
) -> LimitRow {
    LimitRow { id, name, set_in: SetIn::Node { default, most }, bounds, refusal, metric, test }
}

/// The counter of most limits; its label `limit` is the limit's name.
const HITS: &str = "dunlin_limit_hits_total";
/// Where a refusal is an answer to who asks, and in the log.
const ANSWERED: &str = "-";

const fn bytes(value: u64) -> LimitValue {
    LimitValue::Bytes(Bytes(value))
}

const fn time(millis: u64) -> LimitValue {
    LimitValue::Duration(DurationMs(millis))
}

const REFUSED: (&str, &str) = ("refused at deploy", ANSWERED);

impl LimitRow {
    /// The whole table.
    pub const TABLE: &'static [Self] = &[
        manifest(
            "G1",
            "memory",
            "linear memory of an instance, the sum over all its memories; what an allocation reserves",
            "-1 to the guest; `OutOfMemory` if it then fails",
            "memory_is_summed_over_all_memories",
        ),
        manifest(
            "G2",
            "table_elements",
            "elements of an instance's tables, all together",
            "-1 to the guest; `LimitExceeded` if it then fails",
            "table_elements_are_summed_over_all_tables",
        ),
        manifest(
            "G3",
            "core_instances",
            "core instances of an instance",
            EXCEEDED,
            "core_instances_are_counted",
        ),
        manifest("G3", "memories", "memories of an instance", EXCEEDED, "memories_are_counted"),
        manifest("G3", "tables", "tables of an instance", EXCEEDED, "tables_are_counted"),
        fixed(
            "G4",
            "stack",
            bytes(512 << 10),
            "stack of a guest's own calls",
            (EXCEEDED, HITS),
            "a_recursion_without_end_hits_the_stack",
        ),
        fixed(
            "G4",
            "instance_stack",
            bytes(2 << 20),
            "stack of an instance, with what the host needs for its calls",
            ("the host never comes near it", ANSWERED),
            "the_host_has_stack_left_where_a_guest_has_none",
        ),
        fixed(
            "G5",
            "slice",
            time(10),
            "time that a guest computes before others have their turn",
            ("it goes to the back of the queue", ANSWERED),
            "guests_that_compute_do_not_keep_others_from_being_served",
        ),
        manifest(
            "G6",
            "fuel",
            "fuel of one request or one item",
            "`OutOfFuel`",
            "a_guest_that_burns_all_its_fuel_is_ended",
        ),
        manifest(
            "G6",
            "fuel_rate",
            "fuel per second of an allocation; what it reserves",
            "it is slowed down",
            "a_guest_beyond_its_fuel_rate_waits_and_is_counted",
        ),
        manifest(
            "G6",
            "fuel_burst",
            "fuel of an allocation at once, beyond its rate; what a quarter of a second gives if only the rate is named",
            "it is slowed down, counted as `fuel_rate`",
            "a_guest_within_its_burst_does_not_wait_and_beyond_it_does",
        ),
        manifest(
            "G7",
            "deadline",
            "time of one request or one item",
            "`DeadlineExceeded`",
            "a_guest_that_takes_too_long_is_ended",
        ),
        manifest(
            "G8",
            "host_call_bytes",
            "bytes that one call into the host may copy from the guest",
            EXCEEDED,
            "what_one_call_copies_from_the_guest_is_bounded",
        ),
        manifest(
            "G9",
            "host_calls",
            "calls into the host per second of an instance",
            "it is slowed down",
            "calls_beyond_the_rate_are_slowed_down_and_nothing_else",
        ),
        manifest(
            "G9",
            "host_call_burst",
            "calls into the host at once, beyond the rate",
            "it is slowed down, counted as `host_calls`",
            "calls_within_the_burst_do_not_wait_and_beyond_it_do",
        ),
        manifest(
            "G10",
            "handles",
            "handles of an instance: streams, header objects, its own resources, ...",
            EXCEEDED,
            "handles_of_the_host_are_bounded",
        ),
        manifest("G11", "random_bytes", "random bytes of one call", EXCEEDED, "random_bytes_are_bounded"),
        manifest(
            "G12",
            "header_bytes",
            "bytes of all header fields of one request or response, in and out",
            "431 `head_too_large` to the client; 502 `response_too_large`; `LimitExceeded`",
            "the_head_of_a_request_is_bounded",
        ),
        manifest(
            "G12",
            "headers",
            "header fields of one request or response, in and out",
            "431 `head_too_large` to the client; 502 `response_too_large`",
            "the_head_of_a_request_is_bounded",
        ),
        manifest(
            "G13",
            "request_body",
            "body of a request",
            "413 `body_too_large`, or an error to the guest where it is",
            "the_body_of_a_request_is_bounded",
        ),
        manifest(
            "G13",
            "response_body",
            "body of a response",
            "502 `response_too_large`, or a broken body",
            "the_body_of_a_response_is_bounded",
        ),
        fixed(
            "G13",
            "write",
            bytes(64 << 10),
            "one write to a stream, and what a body buffers",
            ("the guest is told how much it may write, and ended if it writes more", ANSWERED),
            "no_more_is_written_at_once_than_the_limit_says",
        ),
        manifest(
            "G14",
            "concurrency",
            "instances of an allocation at the same time; as many wait, for 5 s at most",
            "503 `overloaded`",
            "the_queue_is_short_and_the_wait_is_too",
        ),
        Self {
            id: "G14",
            name: "namespace_concurrency",
            set_in: SetIn::Node { default: LimitValue::Count(256), most: LimitValue::Count(100_000) },
            bounds: "instances of a namespace on one node, of all its allocations",
            refusal: "503 `overloaded`",
            metric: HITS,
            test: "the_allocations_of_a_namespace_share_its_room",
        },
        manifest(
            "G15",
            "connections",
            "outbound connections of an instance, by HTTP and by sockets together",
            "an error to the guest",
            "no_more_connections_are_open_than_the_limit_says",
        ),
        manifest(
            "G15",
            "connection_rate",
            "outbound connections that an instance opens in a second; and as many names that it looks up",
            "it waits, or an error to the guest where that would take longer than `connect_timeout`",
            "connections_beyond_the_rate_come_later_or_not_at_all",
        ),
        manifest(
            "G16",
            "connect_timeout",
            "time to connect, and to look up a name for a socket",
            "an error to the guest",
            "a_server_that_is_not_reached_in_time_is_given_up",
        ),
        manifest(
            "G16",
            "first_byte_timeout",
            "time from an outbound request to its response",
            "an error to the guest",
            "a_server_that_is_silent_or_stalls_is_given_up",
        ),
        manifest(
            "G16",
            "between_bytes_timeout",
            "time between two pieces of a response's body",
            "an error to the guest",
            "a_server_that_is_silent_or_stalls_is_given_up",
        ),
        manifest(
            "G17",
            "log_rate",
            "bytes of log per second",
            "dropped, counted, and told in the log",
            "a_flood_is_dropped_counted_and_told_once",
        ),
        manifest(
            "G17",
            "log_burst",
            "bytes of log at once, beyond the rate",
            "dropped, counted as `log_rate`, and told in the log",
            "what_is_within_the_burst_is_kept_and_what_is_beyond_it_is_dropped",
        ),
        manifest(
            "G17",
            "log_line",
            "bytes of one line of log",
            "cut, and the line says so",
            "a_long_line_is_cut_and_says_so",
        ),
        uncounted(manifest(
            "G17",
            "log_kept",
            "bytes of log that the node keeps of an allocation",
            "the oldest lines go",
            "the_files_of_one_allocation_are_bounded",
        )),
        uncounted(manifest(
            "G18",
            "environment",
            "variables and configuration of a guest, names and values together",
            "refused at deploy, and not started",
            "a_guest_is_not_given_more_than_its_environment_may_hold",
        )),
        fixed(
            "G18",
            "secret_size",
            LimitValue::Bytes(Bytes(crate::MAX_SECRET as u64)),
            "the value of a secret",
            ("422 `limit_exceeded`", ANSWERED),
            "a_value_is_not_shown_and_has_bounds",
        ),
        fixed(
            "G18",
            "secrets",
            LimitValue::Count(crate::MAX_SECRETS as u64),
            "secrets of a namespace",
            ("409 `too_many_secrets`", ANSWERED),
            "a_namespace_has_so_many_secrets_and_no_more",
        ),
        manifest(
            "G19",
            "scratch",
            "the scratch folders of an allocation's instances together, if it is granted them",
            "an error to the guest",
            "scratch_is_empty_at_first_bounded_and_gone_at_the_end",
        ),
        fixed(
            "G20",
            "restart_wait",
            time(300_000),
            "wait before an allocation is started again: 1 s, doubled up to this, and 1 s again after 10 healthy minutes",
            ("`backing-off`, with the reason", ANSWERED),
            "further_deaths_wait_longer_until_ten_healthy_minutes_have_passed",
        ),
        node(
            "G21",
            "coredump_size",
            (bytes(72 << 20), bytes(1152 << 20)),
            "a core dump, and the memory of the instance of which it is made",
            ("none is made, and the record of the trap says so", ANSWERED),
            "a_dump_that_would_be_too_large_is_not_made_and_the_record_says_so",
        ),
        node(
            "G21",
            "coredumps",
            (LimitValue::Count(3), LimitValue::Count(100)),
            "core dumps that the node keeps of an allocation",
            ("the oldest go", ANSWERED),
            "of_core_dumps_the_latest_are_kept_within_both_bounds",
        ),
        node(
            "G21",
            "coredump_disk",
            (bytes(1 << 30), bytes(64 << 30)),
            "core dumps that the node keeps, all together",
            ("the oldest go", ANSWERED),
            "of_core_dumps_the_latest_are_kept_within_both_bounds",
        ),
        fixed(
            "G22",
            "hops",
            LimitValue::Count(crate::MAX_HOPS as u64),
            "services that a request goes through, one asking the other",
            ("508 `loop_detected`", HITS),
            "a_request_that_comes_through_too_many_services_is_refused",
        ),
        node(
            "C1",
            "component_size",
            (bytes(64 << 20), bytes(256 << 20)),
            "a component",
            REFUSED,
            "a_component_that_is_too_large_is_refused",
        ),
        node(
            "C2",
            "functions",
            (LimitValue::Count(50_000), LimitValue::Count(200_000)),
            "functions of a component, over all its modules",
            REFUSED,
            "a_component_with_too_much_of_anything_is_refused",
        ),
        node(
            "C2",
            "types",
            (LimitValue::Count(10_000), LimitValue::Count(40_000)),
            "types of a component, over all its parts",
            REFUSED,
            "a_component_with_too_much_of_anything_is_refused",
        ),
        node(
            "C2",
            "imports",
            (LimitValue::Count(4_000), LimitValue::Count(16_000)),
            "imports of a component, over all its parts; the interpreter of Python has 1,034",
            REFUSED,
            "a_component_with_too_much_of_anything_is_refused",
        ),
        node(
            "C2",
            "data_segments",
            (LimitValue::Count(40_000), LimitValue::Count(160_000)),
            "data segments of a component, over all its modules; a small program of Go has 30,600",
            REFUSED,
            "a_component_with_too_much_of_anything_is_refused",
        ),
        node(
            "C2",
            "nesting",
            (LimitValue::Count(100), LimitValue::Count(400)),
            "how deep the parts of a component nest",
            REFUSED,
            "types_nested_without_end_are_refused_without_recursion",
        ),
        node(
            "C3",
            "compile_memory",
            (bytes(1 << 30), bytes(4 << 30)),
            "memory of the compiler, of which one runs at a time on a node",
            (NOT_STARTED, ANSWERED),
            COMPILER_TEST,
        ),
        node(
            "C3",
            "compile_time",
            (time(60_000), time(600_000)),
            "processor time of the compiler for one component",
            (NOT_STARTED, ANSWERED),
            "compilers_that_take_too_much_are_ended_and_the_limit_is_told",
        ),
        node(
            "C4",
            "compiled_size",
            (bytes(256 << 20), bytes(1 << 30)),
            "a compiled component",
            (NOT_STARTED, ANSWERED),
            "compilers_that_take_too_much_are_ended_and_the_limit_is_told",
        ),
        node(
            "C4",
            "compiled_kept",
            (bytes(1 << 30), bytes(4 << 30)),
            "compiled code that a node keeps of a namespace; what is assigned to the node is kept in any case",
            ("what was not used for longest goes, and is compiled again when it is wanted", ANSWERED),
            "the_oldest_code_goes_first_and_what_is_needed_never",
        ),
        node(
            "W1",
            "worker_reserve",
            (bytes(128 << 20), bytes(4 << 30)),
            "memory of a worker process beyond the `memory` of all instances that it may have; counted by the kernel, \
             where it can",
            ("the worker is ended, and started again", ANSWERED),
            "the_kernel_ends_who_takes_more_memory_than_its_group_has",
        ),
    ];
}

const EXCEEDED: &str = "`LimitExceeded`";
const NOT_STARTED: &str = "not started, with the reason";
const COMPILER_TEST: &str = "the_component_is_blamed_for_its_limits_and_not_for_a_kill_from_outside";
