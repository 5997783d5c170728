//! Whether an allocation is well, from how it answered its health checks.

use dunlin_model::{HealthSpec, ObservedState};

/// How an allocation answered its health checks since it was started.
#[derive(Clone, Debug, Default)]
pub(crate) struct Health {
    /// Whether it is well; unknown until enough checks agree.
    verdict: Option<Verdict>,
    /// How many of the last checks were good, or bad, in a row.
    in_a_row: u32,
    /// Whether the last one was good.
    was_good: bool,
}

#[derive(Clone, Debug)]
enum Verdict {
    Well,
    Unwell(String),
}

impl Health {
    /// Takes note of one check, and of what was wrong if something was.
    pub(crate) fn checked(&mut self, problem: Option<String>, spec: &HealthSpec) {
        let is_good = problem.is_none();
        self.in_a_row = if is_good == self.was_good { self.in_a_row.saturating_add(1) } else { 1 };
        self.was_good = is_good;
        match problem {
            None if self.in_a_row >= spec.successes => self.verdict = Some(Verdict::Well),
            Some(reason) if self.in_a_row >= spec.failures => self.verdict = Some(Verdict::Unwell(reason)),
            None | Some(_) => {}
        }
    }

    /// Returns why it is to be started again, if so many checks in a row were bad that it is.
    pub(crate) fn hopeless(&self, spec: &HealthSpec) -> Option<String> {
        let is_beyond = !self.was_good && spec.restart_after.is_some_and(|after| self.in_a_row >= after);
        let last = match &self.verdict {
            Some(Verdict::Unwell(reason)) if is_beyond => reason,
            _ => return None,
        };
        Some(format!("{} health checks in a row were bad: {last}", self.in_a_row))
    }

    /// Returns how one stands that is loaded.
    pub(crate) fn state(&self, is_checked: bool) -> ObservedState {
        match &self.verdict {
            _ if !is_checked => ObservedState::Running,
            Some(Verdict::Well) => ObservedState::Running,
            Some(Verdict::Unwell(reason)) => ObservedState::Unhealthy { reason: reason.clone() },
            None => ObservedState::Starting,
        }
    }
}

#[cfg(test)]
mod tests {
    use dunlin_model::DurationMs;

    use super::*;

    /// `+` is a good answer and `-` a bad one; returns how it stands after each.
    fn stands(checks: &str) -> String {
        let spec = HealthSpec {
            path: "/".to_owned(),
            interval: DurationMs(1_000),
            timeout: DurationMs(1_000),
            failures: 3,
            successes: 2,
            restart_after: None,
        };
        let mut health = Health::default();
        let states = checks.chars().map(|check| {
            health.checked((check == '-').then(|| "no".to_owned()), &spec);
            health.state(true).name().to_owned()
        });
        states.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn so_many_in_a_row_decide() {
        assert_eq!(stands("++-+--"), "starting running running running running running");
        assert_eq!(stands("---++"), "starting starting unhealthy unhealthy running");
        assert_eq!(stands("+-+-+-"), "starting starting starting starting starting starting");
        assert_eq!(
            stands("++---+-++"),
            "starting running running running unhealthy unhealthy unhealthy unhealthy running"
        );
    }

    #[test]
    fn without_checks_all_is_well() {
        assert_eq!(Health::default().state(false), ObservedState::Running);
    }
}
