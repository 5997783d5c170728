//! The limits table: what is bound, where it is set, what who hits it is told, and which test hits it.
//!
//! The page of the book is made from it, and a test of the house looks for every test that it names. Where the value is
//! a constant of another room, a test of that room compares it with its row.

use super::{LimitValue, Limits};

/// One row of the limits table.
#[derive(Clone, Copy, Debug)]
pub struct LimitRow {
    /// The group it belongs to: G1, C1, W1, ...
    pub id: &'static str,
    /// Its name, as in the manifest and in every refusal.
    pub name: &'static str,
    /// Where it is set.
    pub set_in: SetIn,
    /// What it bounds.
    pub bounds: &'static str,
    /// What who hits it is told: an outcome, a code, or what happens instead.
    pub refusal: &'static str,
    /// Where it is counted.
    pub metric: &'static str,
    /// The function that hits it.
    pub test: &'static str,
}

/// Where a limit is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetIn {
    /// In the manifest, between nothing and a hard maximum.
    Manifest,
    /// In the config file of a node.
    Node {
        /// If the file does not say.
        default: LimitValue,
        /// At most.
        most: LimitValue,
    },
    /// Nowhere: it is what it is in this version.
    Fixed(LimitValue),
}

impl LimitRow {
    /// Returns the row of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        Self::TABLE.iter().find(|row| row.name == name)
    }

    /// Returns the value of a limit that nobody can set.
    pub fn fixed(name: &str) -> Option<LimitValue> {
        match Self::named(name)?.set_in {
            SetIn::Fixed(value) => Some(value),
            SetIn::Manifest | SetIn::Node { .. } => None,
        }
    }

    /// Returns the default of a limit of a node's config file.
    ///
    /// # Panics
    ///
    /// If there is no such limit.
    pub fn default_of(name: &str) -> LimitValue {
        let default = Self::named(name).and_then(|row| match row.set_in {
            SetIn::Node { default, .. } => Some(default),
            SetIn::Manifest | SetIn::Fixed(_) => None,
        });
        default.unwrap_or_else(|| panic!("`{name}` is no limit of the config file"))
    }

    /// Tells what is wrong with `value` for this limit of a node's config file, if anything is.
    pub fn refused(name: &str, value: LimitValue) -> Option<super::LimitHit> {
        let SetIn::Node { most, .. } = Self::named(name)?.set_in else { return None };
        let is_wrong = value.number() == 0 || value.number() > most.number();
        is_wrong.then(|| super::LimitHit::new(name, format!("more than 0 and at most {most}"), value))
    }

    /// Returns where it is set, its default and its maximum, as people read them.
    pub fn shown(&self) -> (&'static str, String, String) {
        match self.set_in {
            SetIn::Manifest => {
                let field = Limits::field(self.name).expect("a test finds the field of every such row");
                let both = |service: &Limits, job: &Limits| {
                    let (service, job) = (field.value(service), field.value(job));
                    if service == job { service.to_string() } else { format!("{service}; job {job}") }
                };
                let most = both(&Limits::MAXIMUM_SERVICE, &Limits::MAXIMUM);
                ("manifest", both(&Limits::SERVICE, &Limits::JOB), most)
            }
            SetIn::Node { default, most } => {
                let is_of_components = self.id == "C1" || self.id == "C2";
                let set_in = if is_of_components { "node config, coordinator" } else { "node config" };
                (set_in, default.to_string(), most.to_string())
            }
            SetIn::Fixed(value) => ("fixed", value.to_string(), value.to_string()),
        }
    }

    /// Returns the table in Markdown.
    pub fn markdown() -> String {
        let mut text = "| Id | Limit | Set in | Default | Maximum | What it bounds | Who hits it | Counted in | Test |\n\
                        | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
            .to_owned();
        for row in Self::TABLE {
            let (set_in, default, most) = row.shown();
            let LimitRow { id, name, bounds, refusal, metric, test, .. } = row;
            let metric = if *metric == "-" { (*metric).to_owned() } else { format!("`{metric}`") };
            text.push_str(&format!(
                "| {id} | `{name}` | {set_in} | {default} | {most} | {bounds} | {refusal} | {metric} | `{test}` |\n"
            ));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_of_the_manifest_has_one_row() {
        let mut rows: Vec<&str> =
            LimitRow::TABLE.iter().filter(|row| row.set_in == SetIn::Manifest).map(|row| row.name).collect();
        let mut fields: Vec<&str> = Limits::FIELDS.iter().map(|field| field.name).collect();
        rows.sort_unstable();
        fields.sort_unstable();
        assert_eq!(rows, fields);
    }

    #[test]
    fn every_row_has_a_name_of_its_own() {
        for (index, row) in LimitRow::TABLE.iter().enumerate() {
            assert!(LimitRow::TABLE[..index].iter().all(|other| other.name != row.name), "{}", row.name);
        }
    }
}
