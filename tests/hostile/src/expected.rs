//! What may become of a case, by name: outcomes, codes of refusals and codes of problems, once for all cases.
//!
//! When the product finds a better name for an end, this is the one place to change.

/// The ends of an item that are right for a case: names of outcomes, with the limit if it must be named.
pub(crate) type Ends = &'static [(&'static str, Option<&'static str>)];

/// It came back by itself.
pub(crate) const COMPLETED: Ends = &[("Completed", None)];
/// It ended itself with a code.
pub(crate) const EXITED: Ends = &[("Exited", None)];
/// It broke a rule.
pub(crate) const TRAPPED: Ends = &[("Trapped", None)];
/// It computed too much.
pub(crate) const FUEL: Ends = &[("OutOfFuel", None)];
/// It took too long.
pub(crate) const DEADLINE: Ends = &[("DeadlineExceeded", None)];
/// It computed too much or took too long, whichever comes first on this machine.
pub(crate) const BUSY: Ends = &[("OutOfFuel", None), ("DeadlineExceeded", None)];
/// The same, or its library gave up.
pub(crate) const BUSY_OR_TRAPPED: Ends =
    &[("OutOfFuel", None), ("DeadlineExceeded", None), ("Trapped", None)];
/// It was told no and went on, or its library gave up.
pub(crate) const COMPLETED_OR_TRAPPED: Ends = &[("Completed", None), ("Trapped", None)];
/// It wanted too much memory.
pub(crate) const MEMORY: Ends = &[("OutOfMemory", None)];
/// It recursed too deep.
pub(crate) const STACK: Ends = &[("LimitExceeded", Some("stack"))];
/// It recursed too deep in a language which keeps a stack of its own in memory.
pub(crate) const OWN_STACK: Ends = &[("LimitExceeded", Some("stack")), ("Trapped", None)];
/// It wanted too many elements of tables.
pub(crate) const TABLE_ELEMENTS: Ends = &[("LimitExceeded", Some("table_elements"))];
/// It has too many tables.
pub(crate) const TABLES: Ends = &[("LimitExceeded", Some("tables"))];
/// It has too many memories.
pub(crate) const MEMORIES: Ends = &[("LimitExceeded", Some("memories"))];
/// It instantiates too often.
pub(crate) const CORE_INSTANCES: Ends = &[("LimitExceeded", Some("core_instances"))];
/// It holds too many handles.
pub(crate) const HANDLES: Ends = &[("LimitExceeded", Some("handles")), ("OutOfMemory", None)];
/// It wanted too much randomness at once.
pub(crate) const RANDOM: Ends = &[("LimitExceeded", Some("random_bytes"))];
/// It passed too much in one call.
pub(crate) const HOST_CALL_BYTES: Ends = &[("LimitExceeded", Some("host_call_bytes")), ("Trapped", None)];
/// It made too many or too large headers.
pub(crate) const HEADERS: Ends =
    &[("LimitExceeded", Some("headers")), ("LimitExceeded", Some("header_bytes")), ("Completed", None)];
/// It cannot be started as what it says it is.
pub(crate) const NOT_STARTED: Ends = &[("NotStarted", None)];
/// What it exports is not of the right type.
pub(crate) const MISTYPED: Ends = &[("NotStarted", None), ("Trapped", None)];
/// It wanted a table larger than any, and was refused or ran out of the fuel that so many elements cost.
pub(crate) const TABLE_GROW: Ends = &[("Completed", None), ("OutOfFuel", None)];
/// Whatever a random program does, as long as it has a name.
pub(crate) const ANY: Ends = &[
    ("Completed", None),
    ("Exited", None),
    ("Trapped", None),
    ("OutOfFuel", None),
    ("OutOfMemory", None),
    ("DeadlineExceeded", None),
    ("LimitExceeded", None),
    ("NotStarted", None),
];
