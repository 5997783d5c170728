//! What an agent's log says of the components that it has fetched.

/// From where a component came, in bytes.
#[derive(Debug)]
pub struct Fetched {
    /// How many it has.
    pub bytes: u64,
    /// How many of them were on the node before.
    pub here_before: u64,
    /// How many came from other nodes, as they travelled.
    pub from_neighbours: u64,
    /// How many came from the coordinator, as they travelled.
    pub from_coordinator: u64,
}

/// Returns what `log` says of each component that was fetched, in their order.
pub fn fetched(log: &str) -> Vec<Fetched> {
    let lines = log.lines().filter(|line| line.contains("component fetched"));
    let all = lines.map(|line| {
        let figure = |name: &str| {
            let (_, rest) = line.split_once(&format!(" {name}=")).expect("the line has all figures");
            rest.split(' ').next().and_then(|figure| figure.parse().ok()).expect("a figure is a number")
        };
        Fetched {
            bytes: figure("bytes"),
            here_before: figure("here_before"),
            from_neighbours: figure("from_neighbours"),
            from_coordinator: figure("from_coordinator"),
        }
    });
    all.collect()
}
