//! Group 3: output, files and what is not the guest's to know.

use super::{asked, item, rust};
use crate::case::Case;
use crate::expected::{COMPLETED, TRAPPED};
use crate::wat::logging;

const REFUSED: &[&str] = &["refused"];

pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![
        rust(25, "flood", &[("Completed", None), ("OutOfFuel", None), ("DeadlineExceeded", None)], &[]),
        rust(25, "one-line", &[("Completed", None), ("OutOfFuel", None), ("DeadlineExceeded", None)], &[]),
        asked(25, "/hostile/flood", &[200, 502, 504], &[]),
        rust(26, "controls", COMPLETED, &["came back"]),
        item(26, "a log line that is no UTF-8", logging((0, 4), (4, 4)), TRAPPED),
        item(26, "a log line with control characters", logging((4, 4), (8, 5)), COMPLETED),
        rust(27, "stdin", COMPLETED, &["Ok(true)"]),
        rust(27, "terminal", COMPLETED, &["terminal: false"]),
        rust(28, "environment", COMPLETED, &["CASE=environment"]),
        asked(28, "/hostile/environment", &[200], &["DUNLIN_"]),
        rust(29, "open /run/secrets/canary", COMPLETED, REFUSED),
        rust(29, "open /proc/self/environ", COMPLETED, REFUSED),
        rust(30, "preopens", COMPLETED, &["folders: 0"]),
    ];
    let forms = [
        "open /etc/passwd",
        "open ../../../../etc/passwd",
        "open a/../../b",
        "open //etc//passwd",
        "open /etc/passwd/",
        "open .",
        "open /",
        "open ",
        "open NUL",
        "open LONG",
        "open WIDE",
        "open ~/.ssh/id_rsa",
        "open /dev/mem",
        "open /proc/1/mem",
        "list /",
        "list .",
    ];
    cases.extend(forms.map(|case| rust(30, case, COMPLETED, REFUSED)));
    let writes = [
        (31, "link /etc/passwd"),
        (31, "rename /etc/passwd"),
        (31, "remove /etc/passwd"),
        (32, "truncate /etc/passwd"),
    ];
    cases.extend(writes.map(|(row, case)| rust(row, case, COMPLETED, REFUSED)));
    let fills = ["create /tmp/x", "create x", "make-folder x"];
    cases.extend(fills.map(|case| rust(33, case, COMPLETED, REFUSED)));
    cases
}
