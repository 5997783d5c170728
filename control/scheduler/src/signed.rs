//! Signed components: where a namespace names signers, nothing is deployed or restored that none of them signed.
//!
//! Not here: what a signature stands over, and when it holds (`dunlin_model::check_signed`). What was deployed before
//! signers were named goes on, with new runs and in place of what is lost; so does what was signed by one who is not named
//! any more.

use dunlin_model::{AppSpec, Name, SignatureError, Statement, Timestamp, check_signed};

use crate::{Cluster, Rejection};

impl Cluster {
    /// Refuses a spec with a component that nobody signed whose word counts in its namespace.
    pub(crate) fn check_signed(&self, spec: &AppSpec, now: Timestamp) -> Result<(), Rejection> {
        for (name, stated) in self.stated(spec) {
            stated.and_then(|stated| stated.check_begun(now)).map_err(|why| unsigned(spec, &name, why))?;
        }
        Ok(())
    }

    /// Refuses a spec as [`Self::check_signed`] does, and one with a component that is signed as an older version than what
    /// is deployed. That keeps out a mistake, and not who can delete the app first.
    pub(crate) fn check_signed_anew(&self, spec: &AppSpec, now: Timestamp) -> Result<(), Rejection> {
        self.check_signed(spec, now)?;
        let Some(before) = self.durable.apps().get(&spec.name) else { return Ok(()) };
        // What stands there without a signature that holds says nothing of a version.
        let before: Vec<_> =
            self.stated(&before.spec).filter_map(|(name, stated)| Some((name, stated.ok()?))).collect();
        for (name, stated) in self.stated(spec) {
            let (Ok(Statement { version, .. }), Some((_, before))) =
                (stated, before.iter().find(|(other, _)| *other == name))
            else {
                continue;
            };
            if before.version > version {
                let why = SignatureError::Older { version, newest: before.version.clone() };
                return Err(unsigned(spec, &name, why));
            }
        }
        Ok(())
    }

    /// Returns what is stated of each component, or why nothing is; nobody is asked where anybody's may run.
    fn stated(&self, spec: &AppSpec) -> impl Iterator<Item = (Name, Result<Statement, SignatureError>)> {
        let namespace = self.durable.namespaces().get(&spec.name.namespace);
        let signers = namespace.map(|namespace| &namespace.signers).filter(|signers| !signers.is_empty());
        signers.into_iter().flat_map(move |signers| {
            spec.workloads.iter().map(move |(name, workload)| {
                let full = spec.name.workload(name);
                let signed = workload.signed.as_deref();
                (name.clone(), check_signed(signed, signers, workload.component, &full))
            })
        })
    }
}

fn unsigned(spec: &AppSpec, name: &Name, why: SignatureError) -> Rejection {
    Rejection::Unsigned { workload: spec.name.workload(name), why: Box::new(why) }
}
