//! What namespaces may have, and what they have.

use dunlin_model::{Name, NamespaceSpec, SpecError, Timestamp};

use crate::{Answer, Change, Cluster, NamespaceRecord, Rejection, Step};

impl Cluster {
    /// Lets a namespace have this much. What it has more is not taken away; nothing is added to it.
    pub(crate) fn set_namespace(
        &mut self,
        step: &mut Step,
        namespace: Name,
        spec: NamespaceSpec,
        now: Timestamp,
    ) -> Result<Answer, Rejection> {
        if let Some(SpecError { field, message, hit: _ }) = spec.check().into_iter().next() {
            return Err(Rejection::InvalidNamespace { namespace, field, reason: message });
        }
        if self.durable.namespaces().get(&namespace) != Some(&spec) {
            self.change(step, Change::Namespace(NamespaceRecord { name: namespace, spec }), now);
        }
        Ok(Answer::NamespaceSet)
    }
}
