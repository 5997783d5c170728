//! The threat list, as far as it speaks of guests and of what comes to the ingress, and the page of the book that says
//! how often each of its lines is tried.

use std::collections::BTreeSet;

use crate::case::Case;

/// Each line: its number, its group and what is tried.
#[rustfmt::skip]
pub const THREATS: &[(u8, &str, &str)] = &[
    (1, "Time", "endless loops without calls"),
    (2, "Time", "bulk operations on all memory, for ever"),
    (3, "Time", "busy polling, yields, clocks and chance without a pause"),
    (4, "Time", "sleeps for ever, polls on nothing"),
    (5, "Time", "timers and times in the past and far away"),
    (6, "Time", "recursion, also in start functions and `realloc`"),
    (7, "Time", "traps and loops in start functions and after the return"),
    (8, "Time", "exits with every code, exits in a request"),
    (9, "Time", "clients that go away at every moment of a request"),
    (10, "Time", "a crash loop with an expensive start"),
    (11, "Memory and handles", "growing to the limit and beyond"),
    (12, "Memory and handles", "many memories, each within the limit"),
    (13, "Memory and handles", "memories that begin above the limit, or above 4 GiB"),
    (14, "Memory and handles", "64-bit memories and tables, pages of one byte"),
    (15, "Memory and handles", "tables that grow by everything, or for ever"),
    (16, "Memory and handles", "thousands of core instances and tables"),
    (17, "Memory and handles", "handles without end, and handles that are not there"),
    (18, "Memory and handles", "values that are huge in one call"),
    (19, "Memory and handles", "random bytes without end"),
    (20, "Memory and handles", "millions of empty writes, flushes and fields"),
    (21, "Memory and handles", "shared memory and atomics"),
    (22, "Memory and handles", "remains of the instance before"),
    (23, "Memory and handles", "every own limit at once"),
    (24, "Memory and handles", "a service that calls itself to grow"),
    (25, "Output, files, secrets", "floods of output, lines without end"),
    (26, "Output, files, secrets", "control characters and forged lines in the log"),
    (27, "Output, files, secrets", "standard input that is closed, terminals"),
    (28, "Output, files, secrets", "the host's environment"),
    (29, "Output, files, secrets", "secrets of others"),
    (30, "Output, files, secrets", "paths out of the sandbox, in every spelling"),
    (31, "Output, files, secrets", "links and renames across folders"),
    (32, "Output, files, secrets", "truncating what may only be read"),
    (33, "Output, files, secrets", "filling a disk"),
    (34, "Output, files, secrets", "descriptors of preview 1, leaked and renumbered"),
    (35, "Output, files, secrets", "names and labels of metrics"),
    (36, "Output, files, secrets", "precise timers"),
    (37, "Network", "metadata services, loopback, private addresses"),
    (38, "Network", "the same in other spellings"),
    (39, "Network", "names of hosts that are inside"),
    (40, "Network", "floods of names to look up"),
    (41, "Network", "redirects to where nobody may go, connections of another tenant"),
    (42, "Network", "ambiguous requests, `CONNECT`, upgrades"),
    (43, "Network", "UDP and listening"),
    (44, "Network", "heads without end, bytes that are no HTTP"),
    (45, "Network", "services that ask themselves, or each other, for ever"),
    (46, "Network", "responses that break the rules of HTTP"),
    (47, "Network", "answers that stall or never end"),
    (48, "The component itself", "bytes that are no component, mutated components"),
    (49, "The component itself", "compiled code that was tampered with"),
    (50, "The component itself", "code that is expensive to compile, features that are off"),
    (51, "The component itself", "types and components nested or doubled without end"),
    (52, "The component itself", "imports that nobody provides, exports that are missing"),
    (53, "The component itself", "exports of the wrong type"),
    (54, "The component itself", "pointers and lengths out of range"),
    (55, "The component itself", "random programs"),
    (56, "The component itself", "components that are huge, or of a hundred thousand parts"),
    (57, "The component itself", "distinct components to fill the cache of compiled code"),
];

/// Returns the table of the book: every line with how many cases there are of it, and how they are tried.
pub fn page(cases: &[Case]) -> String {
    let mut text = String::new();
    let mut last = "";
    for (row, group, what) in THREATS {
        if *group != last {
            text += &format!(
                "\n### {group}\n\n| Line | What is tried | Cases | As |\n| --- | --- | --- | --- |\n"
            );
            last = group;
        }
        let of_row = || cases.iter().filter(|case| case.row == *row);
        let ways: BTreeSet<&str> = of_row().map(Case::tried).collect();
        let ways: Vec<&str> = ways.into_iter().collect();
        text += &format!("| {row} | {what} | {} | {} |\n", of_row().count(), ways.join(", "));
    }
    text + &format!("\n{} cases, all of them contained.\n", cases.len())
}
