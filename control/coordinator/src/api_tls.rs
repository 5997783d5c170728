//! TLS of the API: a certificate from the fleet's authority, and another one before that ends.

use std::sync::{Arc, PoisonError, RwLock};

use anyhow::Context as _;
use dunlin_transport::Authority;
use tokio_rustls::TlsAcceptor;

use crate::Config;

/// What takes clients of the API in, by the certificate of the moment.
#[derive(Clone)]
pub(crate) struct ApiTls {
    /// Under which the API is reached.
    names: Arc<[String]>,
    current: Arc<RwLock<TlsAcceptor>>,
}

impl ApiTls {
    /// Makes the first certificate.
    pub(crate) fn new(authority: &Authority, config: &Config) -> anyhow::Result<Self> {
        let names = names(config);
        let current = acceptor(authority, &names)?;
        Ok(Self { names: names.into(), current: Arc::new(RwLock::new(current)) })
    }

    /// Returns what takes the next client in.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes another certificate, for who comes from now on.
    pub(crate) fn renew(&self, authority: &Authority) -> anyhow::Result<()> {
        let next = acceptor(authority, &self.names)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(())
    }
}

fn acceptor(authority: &Authority, names: &[String]) -> anyhow::Result<TlsAcceptor> {
    let certificate =
        authority.issue_api(names, authority.now()).context("could not make the API's certificate")?;
    Ok(certificate.server_config().context("could not set up TLS for the API")?.into())
}

/// Returns the names and addresses under which the API is reached.
fn names(config: &Config) -> Vec<String> {
    let mut names = vec!["127.0.0.1".to_owned(), "::1".to_owned(), "localhost".to_owned()];
    if !config.api.ip().is_unspecified() && !config.api.ip().is_loopback() {
        names.push(config.api.ip().to_string());
    }
    names.extend(config.api_names.iter().cloned());
    names.extend(
        config
            .advertise_api
            .as_deref()
            .and_then(|address| address.rsplit_once(':'))
            .map(|(host, _)| host.trim_start_matches('[').trim_end_matches(']').to_owned()),
    );
    names
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use rustls::pki_types::{CertificateDer, ServerName};
    use tokio_rustls::TlsConnector;

    use super::*;

    /// Takes in a client who believes the authority and no other; returns the certificate that it sees.
    async fn seen(tls: &ApiTls, authority: &Authority) -> CertificateDer<'static> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(authority.certificate().clone()).unwrap();
        let config =
            rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let name = ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        let (acceptor, client) = (tls.acceptor(), connector.connect(name, theirs));
        let (_server, client) = tokio::try_join!(acceptor.accept(ours), client).unwrap();
        client.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
    }

    #[tokio::test]
    async fn who_comes_after_a_renewal_sees_another_certificate_of_the_same_authority() {
        let authority = Authority::create(&"c4".parse().unwrap(), SystemTime::now()).unwrap();
        let names = vec!["localhost".to_owned()];
        let current = Arc::new(RwLock::new(acceptor(&authority, &names).unwrap()));
        let tls = ApiTls { names: names.into(), current };
        let before = seen(&tls, &authority).await;
        assert_eq!(seen(&tls, &authority).await, before);
        tls.clone().renew(&authority).unwrap();
        assert_ne!(seen(&tls, &authority).await, before);
    }
}
