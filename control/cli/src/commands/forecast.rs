//! How a forecast is shown to people: by `dunlin plan` and by `dunlin simulate`.

use dunlin_model::{
    AllocationChange, AllocationForecast, DurationMs, Forecast, ForecastEnd, WorkloadForecast,
};

use crate::output::{escaped, table};
use crate::time::about;

/// Returns what happens, in order of time.
pub(crate) fn moments(told: &Forecast) -> String {
    if told.moments.is_empty() {
        return String::new();
    }
    let rows = told.moments.iter().map(|moment| vec![about(moment.after_ms), moment.text.clone()]);
    let mut text = format!("{}\n", table(&["AFTER", "WHAT HAPPENS"], rows.collect()));
    if told.more > 0 {
        text.push_str(&format!("and {} more\n", told.more));
    }
    text
}

/// Returns what becomes of each workload, one a line, and why some wait.
pub(crate) fn workloads(told: &Forecast) -> String {
    let mut text = String::new();
    if !told.workloads.is_empty() {
        let header = [
            "WORKLOAD",
            "SERVE",
            "FEWEST",
            "DOWN",
            "WHOLE AFTER",
            "KEPT",
            "STARTED",
            "MOVED",
            "REPLACED",
            "ENDED",
            "LOST",
        ];
        text.push_str(&table(&header, told.workloads.iter().map(row).collect()));
        text.push('\n');
    }
    for it in &told.workloads {
        if let Some(why) = &it.waiting {
            text.push_str(&format!("`{}` is not whole: {}\n", it.workload, escaped(why)));
        }
    }
    for zone in &told.held_zones {
        let zone = if zone.is_empty() { "without a name".to_owned() } else { format!("`{zone}`") };
        text.push_str(&format!(
            "the zone {zone} is held: nothing of it is replaced until somebody says so\n"
        ));
    }
    text
}

fn row(it: &WorkloadForecast) -> Vec<String> {
    let of = |serving: u32, desired: u32| format!("{serving}/{desired}");
    let (before, after) = (of(it.serving_before, it.desired_before), of(it.serving, it.desired));
    let serve = if before == after { after } else { format!("{before} -> {after}") };
    let down = match it.down_since_ms {
        Some(since) => format!("from {} on", about(since)),
        None if it.down_ms == DurationMs(0) => String::new(),
        None => format!("for {}", about(it.down_ms)),
    };
    let whole = it.whole_after_ms.map(about).unwrap_or_default();
    let counts =
        [it.kept, it.started, it.moved, it.replaced, it.ended, it.lost].map(|count| count.to_string());
    [vec![it.workload.to_string(), serve, it.fewest.to_string(), down, whole], counts.to_vec()].concat()
}

/// Returns what becomes of each allocation.
pub(crate) fn allocations(told: &Forecast) -> String {
    let mut text = String::new();
    for it in &told.workloads {
        text.push_str(&format!("{}\n", it.workload));
        for allocation in &it.allocations {
            text.push_str(&format!("  {}\n", escaped(&allocation_line(allocation))));
        }
        if it.more > 0 {
            text.push_str(&format!("  and {} more\n", it.more));
        }
        if let Some(why) = &it.waiting {
            text.push_str(&format!("  waits: {}\n", escaped(why)));
        }
    }
    text
}

fn allocation_line(it: &AllocationForecast) -> String {
    let id = it.id.map(|id| id.to_string()).unwrap_or_default();
    let place =
        |node: &Option<dunlin_model::NodeId>| node.as_ref().map(ToString::to_string).unwrap_or_default();
    let (from, to) = (place(&it.from), place(&it.to));
    let because = it.because.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    match it.change {
        AllocationChange::Started => format!("+ one is started on {to}"),
        AllocationChange::Ended => format!("- {id} on {from} ends{because}"),
        AllocationChange::Moved => format!("> {id} moves from {from} to {to}{because}"),
        AllocationChange::Replaced if from == to => format!("~ {id} on {from} is replaced there{because}"),
        AllocationChange::Replaced => format!("~ {id} on {from} is replaced by one on {to}{because}"),
        AllocationChange::Lost => format!("! {id} is lost with {from}"),
        AllocationChange::Kept => format!("= {id} stays on {from}"),
        AllocationChange::Unknown => format!("? {id}"),
    }
}

/// Says how many workloads nothing happens to.
pub(crate) fn others(told: &Forecast) -> String {
    match told.untouched {
        0 => String::new(),
        1 => "; 1 other workload is as before".to_owned(),
        others => format!("; {others} other workloads are as before"),
    }
}

/// Says how long it takes, and why it is looked no further.
pub(crate) fn end(told: &Forecast) -> String {
    let (took, untouched) = (about(told.took_ms), others(told));
    match told.ends {
        ForecastEnd::Settled => format!("nothing changes any more after {took}{untouched}\n"),
        ForecastEnd::Time | ForecastEnd::Unknown => {
            format!("the last change is after {took}; later something may follow{untouched}\n")
        }
        ForecastEnd::Effort => {
            format!(
                "it is too much to be looked at to its end: this is as it stands after {took}{untouched}\n"
            )
        }
    }
}
