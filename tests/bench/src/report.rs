//! What a bench says: rounds taken in turns, rows with their spread, a table for people and JSON for programs.
//!
//! Other work on the machine changes from minute to minute, and with it every absolute figure. So what is compared is
//! measured in turns, A B A B, and the middle of the rounds stands for all of them, with the least and the most beside
//! it. What should be watched over time is the ratio.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

/// One figure, measured in several rounds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Series(Vec<f64>);

impl Series {
    /// Adds the figure of one round.
    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
        self.0.sort_unstable_by(f64::total_cmp);
    }

    fn median(&self) -> f64 {
        let middle = self.0.len() / 2;
        match self.0.len() {
            0 => f64::NAN,
            length if length % 2 == 1 => self.0[middle],
            _ => f64::midpoint(self.0[middle - 1], self.0[middle]),
        }
    }

    fn min(&self) -> f64 {
        self.0.first().copied().unwrap_or(f64::NAN)
    }

    fn max(&self) -> f64 {
        self.0.last().copied().unwrap_or(f64::NAN)
    }
}

impl FromIterator<f64> for Series {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        let mut series = Self::default();
        values.into_iter().for_each(|value| series.push(value));
        series
    }
}

/// Returns the value below which this share of `sorted` lies, in thousandths; the nearest that was measured.
pub(crate) fn percentile(sorted: &[u32], thousandths: usize) -> f64 {
    let rank = (sorted.len() * thousandths).div_ceil(1000);
    sorted.get(rank.saturating_sub(1)).map_or(f64::NAN, |value| f64::from(*value))
}

/// Measures each of `subjects` once in every round, in turns, and returns for each what its rounds gave.
pub(crate) async fn in_turns<S, M>(
    rounds: usize,
    subjects: &[S],
    measure: impl AsyncFn(&S) -> anyhow::Result<M>,
) -> anyhow::Result<Vec<Vec<M>>> {
    let mut measured: Vec<Vec<M>> = subjects.iter().map(|_| Vec::with_capacity(rounds)).collect();
    for _ in 0..rounds {
        for (subject, own) in subjects.iter().zip(&mut measured) {
            own.push(measure(subject).await?);
        }
    }
    Ok(measured)
}

/// One measured case.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    case: String,
    unit: &'static str,
    /// The middle of Dunlin's rounds.
    ours: f64,
    /// The middle of the peer's rounds, if there is a peer.
    peer: Option<f64>,
    peer_name: Option<String>,
    /// `ours` as a multiple of `peer`.
    ratio: Option<f64>,
    rounds: usize,
    ours_min: f64,
    ours_max: f64,
    peer_min: Option<f64>,
    peer_max: Option<f64>,
    /// The bound that a figure must keep to, where one was promised, and whether it does.
    must: Option<f64>,
    met: Option<bool>,
}

impl Row {
    /// Returns the row of a figure which nothing is compared with.
    pub(crate) fn new(case: impl Into<String>, unit: &'static str, ours: &Series) -> Self {
        Self {
            case: case.into(),
            unit,
            ours: ours.median(),
            peer: None,
            peer_name: None,
            ratio: None,
            rounds: ours.0.len(),
            ours_min: ours.min(),
            ours_max: ours.max(),
            peer_min: None,
            peer_max: None,
            must: None,
            met: None,
        }
    }

    /// Sets a peer's figure beside ours.
    pub(crate) fn against(mut self, peer_name: &str, peer: &Series) -> Self {
        self.peer = Some(peer.median());
        self.peer_name = Some(peer_name.to_owned());
        self.ratio = Some(self.ours / peer.median());
        self.peer_min = Some(peer.min());
        self.peer_max = Some(peer.max());
        self
    }

    /// Says that the ratio to the peer must be at least `bound`.
    pub(crate) fn ratio_at_least(mut self, bound: f64) -> Self {
        self.must = Some(bound);
        self.met = self.ratio.map(|ratio| ratio >= bound);
        self
    }

    /// Says that the ratio to the peer must be at most `bound`.
    pub(crate) fn ratio_at_most(mut self, bound: f64) -> Self {
        self.must = Some(bound);
        self.met = self.ratio.map(|ratio| ratio <= bound);
        self
    }

    /// Says that our figure must be at least `bound`.
    pub(crate) fn at_least(mut self, bound: f64) -> Self {
        self.must = Some(bound);
        self.met = Some(self.ours >= bound);
        self
    }

    /// Says that our figure must be at most `bound`.
    pub(crate) fn at_most(mut self, bound: f64) -> Self {
        self.must = Some(bound);
        self.met = Some(self.ours <= bound);
        self
    }

    /// Returns it as one line.
    fn line(&self) -> String {
        self.cells().into_iter().filter(|cell| !cell.is_empty()).collect::<Vec<_>>().join(" | ")
    }

    fn cells(&self) -> Vec<String> {
        let spread = |middle: f64, least: f64, most: f64| {
            if self.rounds == 1 {
                shown(middle)
            } else {
                format!("{} ({} to {})", shown(middle), shown(least), shown(most))
            }
        };
        let peer = match (self.peer, self.peer_min, self.peer_max) {
            (Some(middle), Some(least), Some(most)) => spread(middle, least, most),
            _ => String::new(),
        };
        vec![
            self.case.clone(),
            self.unit.to_owned(),
            spread(self.ours, self.ours_min, self.ours_max),
            peer,
            self.peer_name.clone().unwrap_or_default(),
            self.ratio.map(|ratio| format!("{ratio:.3}")).unwrap_or_default(),
            match (self.must, self.met) {
                (Some(must), Some(met)) => format!("{must} {}", if met { "met" } else { "MISSED" }),
                _ => String::new(),
            },
            self.rounds.to_string(),
        ]
    }
}

/// Returns a figure with three digits or more.
fn shown(value: f64) -> String {
    match value {
        small if small < 10.0 => format!("{small:.2}"),
        middle if middle < 100.0 => format!("{middle:.1}"),
        large => format!("{large:.0}"),
    }
}

/// What was measured on.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    cpu: String,
    cores: usize,
    memory: String,
    kernel: String,
}

impl Machine {
    /// Asks the kernel.
    fn this() -> anyhow::Result<Self> {
        Ok(Self {
            cpu: value_of("/proc/cpuinfo", "model name")?,
            cores: std::thread::available_parallelism()?.get(),
            memory: value_of("/proc/meminfo", "MemTotal")?,
            kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
        })
    }
}

/// Everything one bench says.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    name: &'static str,
    machine: Machine,
    commit: String,
    /// Whether files differed from that commit.
    commit_is_changed: bool,
    date: String,
    /// The load average over one minute when the bench began and when it ended: what else the machine did.
    load_average: [f64; 2],
    notes: Vec<String>,
    rows: Vec<Row>,
}

impl Report {
    /// Begins the report: what is known before anything is measured.
    pub(crate) fn begin(name: &'static str) -> anyhow::Result<Self> {
        Ok(Self {
            name,
            machine: Machine::this()?,
            commit: output("git", &["rev-parse", "HEAD"])?,
            commit_is_changed: !output("git", &["status", "--porcelain", "--untracked-files=no"])?.is_empty(),
            date: output("date", &["-u", "+%Y-%m-%dT%H:%M:%SZ"])?,
            load_average: [load_average()?; 2],
            notes: Vec::new(),
            rows: Vec::new(),
        })
    }

    /// Adds what a reader of the figures must know.
    pub(crate) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// Adds rows, and tells them at once: what comes later may fail.
    pub(crate) fn add(&mut self, rows: impl IntoIterator<Item = Row>) {
        for row in rows {
            crate::warn(&row.line());
            self.rows.push(row);
        }
    }

    /// Says that nothing more will be measured.
    pub(crate) fn end(mut self) -> anyhow::Result<Self> {
        self.load_average[1] = load_average()?;
        Ok(self)
    }

    /// Returns it for people: what was measured on, the notes, and the rows as a table of Markdown.
    pub(crate) fn text(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN);
        table.set_header(["Case", "Unit", "Dunlin", "Peer", "Which peer", "Ratio", "Must", "Rounds"]);
        for row in &self.rows {
            table.add_row(row.cells());
        }
        for index in [2, 3, 5, 6, 7] {
            if let Some(column) = table.column_mut(index) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let Machine { cpu, cores, memory, kernel } = &self.machine;
        let changed = if self.commit_is_changed { " with changes" } else { "" };
        let [before, after] = self.load_average;
        let mut text = format!(
            "bench {} on {}\nmachine: {cpu}, {cores} cores, {memory}, Linux {kernel}\ncommit: {}{changed}\n\
             load average: {before} before, {after} after\n",
            self.name, self.date, self.commit
        );
        for note in &self.notes {
            text.push_str(&format!("note: {note}\n"));
        }
        format!("{text}figures: the middle of the rounds (least to most)\n\n{table}\n")
    }

    /// Writes it as JSON to `target/reports/bench-NAME.json` and returns the file's path.
    pub(crate) fn write(&self) -> anyhow::Result<PathBuf> {
        let folder = root().join("target/reports");
        std::fs::create_dir_all(&folder).with_context(|| format!("could not make {}", folder.display()))?;
        let path = folder.canonicalize()?.join(format!("bench-{}.json", self.name));
        let json = serde_json::to_string_pretty(self)? + "\n";
        std::fs::write(&path, json).with_context(|| format!("could not write {}", path.display()))?;
        Ok(path)
    }
}

/// The folder of the workspace.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn load_average() -> anyhow::Result<f64> {
    let text = std::fs::read_to_string("/proc/loadavg")?;
    text.split_whitespace().next().context("/proc/loadavg is empty")?.parse().context("no load average")
}

/// Returns the value of the first line `key : value` of a file of the kernel.
fn value_of(path: &str, key: &str) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(path).with_context(|| format!("could not read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let value = line.and_then(|rest| rest.split_once(':')).map(|(_, value)| value.trim().to_owned());
    value.with_context(|| format!("{path} has no `{key}`"))
}

fn output(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program).args(arguments).current_dir(root()).output();
    let output = output.with_context(|| format!("could not run {program}"))?;
    anyhow::ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(values: &[f64]) -> Series {
        values.iter().copied().collect()
    }

    fn report(rows: Vec<Row>) -> Report {
        let machine = Machine {
            cpu: "a processor".to_owned(),
            cores: 2,
            memory: "1024 kB".to_owned(),
            kernel: "6.1".to_owned(),
        };
        Report {
            name: "test",
            machine,
            commit: "0123".to_owned(),
            commit_is_changed: false,
            date: "2000-01-01T00:00:00Z".to_owned(),
            load_average: [0.5, 1.5],
            notes: vec!["two cores".to_owned()],
            rows,
        }
    }

    #[test]
    fn the_middle_of_the_rounds_stands_for_them() {
        assert!(series(&[]).median().is_nan());
        for (values, middle) in [(&[3.0][..], 3.0), (&[9.0, 1.0, 2.0], 2.0), (&[4.0, 1.0, 2.0, 9.0], 3.0)] {
            assert!((series(values).median() - middle).abs() < f64::EPSILON, "{values:?}");
        }
    }

    #[test]
    fn a_percentile_is_the_nearest_that_was_measured() {
        let hundred: Vec<u32> = (1..=100).collect();
        for (thousandths, value) in [(500, 50.0), (990, 99.0), (999, 100.0), (1000, 100.0), (0, 1.0)] {
            assert!((percentile(&hundred, thousandths) - value).abs() < f64::EPSILON, "{thousandths}");
        }
        assert!((percentile(&[7], 990) - 7.0).abs() < f64::EPSILON);
        assert!(percentile(&[], 500).is_nan());
    }

    #[test]
    fn what_is_compared_is_measured_in_turns() {
        let order = std::cell::RefCell::new(String::new());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let measured = runtime.block_on(in_turns(3, &["a", "b"], async |subject: &&str| {
            order.borrow_mut().push_str(subject);
            Ok(order.borrow().len())
        }));
        assert_eq!(measured.unwrap(), [[1, 3, 5], [2, 4, 6]]);
        assert_eq!(order.into_inner(), "ababab");
    }

    #[test]
    fn the_json_has_the_promised_fields() {
        let alone = Row::new("alone", "MiB", &series(&[2.0]));
        let compared =
            Row::new("compared", "1/s", &series(&[1.0, 2.0, 3.0])).against("peer", &series(&[4.0; 3]));
        let json = serde_json::to_value(report(vec![alone, compared])).unwrap();
        let expected = serde_json::json!({
            "name": "test",
            "machine": { "cpu": "a processor", "cores": 2, "memory": "1024 kB", "kernel": "6.1" },
            "commit": "0123",
            "commit_is_changed": false,
            "date": "2000-01-01T00:00:00Z",
            "load_average": [0.5, 1.5],
            "notes": ["two cores"],
            "rows": [
                {
                    "case": "alone", "unit": "MiB", "ours": 2.0, "peer": null, "peer_name": null, "ratio": null,
                    "rounds": 1, "ours_min": 2.0, "ours_max": 2.0, "peer_min": null, "peer_max": null,
                    "must": null, "met": null,
                },
                {
                    "case": "compared", "unit": "1/s", "ours": 2.0, "peer": 4.0, "peer_name": "peer", "ratio": 0.5,
                    "rounds": 3, "ours_min": 1.0, "ours_max": 3.0, "peer_min": 4.0, "peer_max": 4.0,
                    "must": null, "met": null,
                },
            ],
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn the_table_shows_each_row_with_its_spread() {
        let row = Row::new("requests", "1/s", &series(&[1000.0, 1200.0, 900.0]))
            .against("native", &series(&[2000.0; 3]));
        let text = report(vec![row]).text();
        assert!(text.contains("note: two cores"), "{text}");
        assert!(text.contains("1000 (900 to 1200)") && text.contains("0.500"), "{text}");
    }
}
