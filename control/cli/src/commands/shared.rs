//! What several coordinators share, as flags: where their etcd is, and where their components are.

use std::path::PathBuf;

use clap::Args;
use dunlin_coordinator::{EtcdLocation, EtcdTls};
use dunlin_model::Bytes;

use crate::error::CommandError;

/// What several coordinators share.
#[derive(Debug, Args)]
pub(crate) struct SharedArgs {
    /// For several coordinators: where their common etcd is, as etcd://HOST:PORT,HOST:PORT,HOST:PORT[/PREFIX].
    /// Else all is kept in --state.
    #[arg(long, value_name = "URL", requires = "components")]
    pub(crate) store: Option<EtcdLocation>,
    /// The certificate of etcd's authority (PEM); needed unless etcd is on this machine.
    #[arg(long, value_name = "FILE", requires = "store")]
    etcd_ca: Option<PathBuf>,
    /// The certificate with which etcd knows this coordinator (PEM).
    #[arg(long, value_name = "FILE", requires = "etcd_key", requires = "etcd_ca")]
    etcd_cert: Option<PathBuf>,
    /// The key of that certificate (PEM).
    #[arg(long, value_name = "FILE", requires = "etcd_cert")]
    etcd_key: Option<PathBuf>,
    /// How large etcd's data may become, as its --quota-backend-bytes says.
    #[arg(long, value_name = "SIZE", default_value = "2GiB", requires = "store")]
    etcd_quota: Bytes,
    /// Where components and inputs are that all coordinators share: s3://BUCKET[/PREFIX], with AWS_ENDPOINT_URL,
    /// AWS_REGION, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment, or file:///FOLDER. Else in --state.
    #[arg(long, value_name = "URL")]
    pub(crate) components: Option<String>,
}

impl SharedArgs {
    /// Returns where the etcd is and how it is spoken to, if one was named.
    pub(crate) fn location(&self, cannot: &str) -> Result<Option<EtcdLocation>, CommandError> {
        let Some(location) = self.store.clone() else { return Ok(None) };
        let mut location = EtcdLocation { quota: self.etcd_quota, ..location };
        if let Some(authority) = self.etcd_ca.clone() {
            let own = self.etcd_cert.clone().zip(self.etcd_key.clone());
            location = location.with_tls(EtcdTls { authority, own });
        }
        location.check().map_err(|error| {
            CommandError::usage(cannot)
                .caused_by(&error)
                .help("give --etcd-ca, and --etcd-cert and --etcd-key if etcd asks for them")
        })?;
        Ok(Some(location))
    }
}
