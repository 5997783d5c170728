//! Signed components: where a namespace names signers, nothing runs that none of them signed.
//!
//! Not here: what a signature stands over, and when it holds (`dunlin_model::check_signed`). What runs already when signers
//! are named goes on; so does what was signed by one who is not named any more.

use dunlin_model::{AppSpec, Name, SignatureError, Statement, Timestamp, check_signed};

use crate::{Cluster, Rejection};

impl Cluster {
    /// Refuses a spec with a component that nobody signed whose word counts in its namespace.
    pub(crate) fn check_signed(&self, spec: &AppSpec, now: Timestamp) -> Result<(), Rejection> {
        self.statements(spec, now).map(drop)
    }

    /// Refuses a spec as [`Self::check_signed`] does, and one with a component that is signed as an older version than what
    /// is deployed: who has old releases and no key could bring their mistakes back.
    pub(crate) fn check_signed_anew(&self, spec: &AppSpec, now: Timestamp) -> Result<(), Rejection> {
        let before = self.durable.apps().get(&spec.name).map(|app| &app.spec);
        for (name, stated) in self.statements(spec, now)? {
            let before = before.and_then(|before| before.workloads.get(&name)?.signed.as_ref());
            let newest = before.and_then(|signed| Statement::parse(&signed.statement));
            if let Some(Statement { version: newest, .. }) =
                newest.filter(|before| before.version > stated.version)
            {
                let why = SignatureError::Older { version: stated.version, newest };
                return Err(Rejection::Unsigned { workload: spec.name.workload(&name), why: Box::new(why) });
            }
        }
        Ok(())
    }

    /// Returns what is stated of each component; nothing where anybody's may run.
    fn statements(&self, spec: &AppSpec, now: Timestamp) -> Result<Vec<(Name, Statement)>, Rejection> {
        let namespace = self.durable.namespaces().get(&spec.name.namespace);
        let Some(signers) = namespace.map(|spec| &spec.signers).filter(|signers| !signers.is_empty()) else {
            return Ok(Vec::new());
        };
        let stated = spec.workloads.iter().map(|(name, workload)| {
            let full = spec.name.workload(name);
            let stated = check_signed(workload.signed.as_deref(), signers, workload.component, &full);
            match stated.and_then(|stated| stated.check_begun(now).map(|()| stated)) {
                Ok(stated) => Ok((name.clone(), stated)),
                Err(why) => Err(Rejection::Unsigned { workload: full, why: Box::new(why) }),
            }
        });
        stated.collect()
    }
}
