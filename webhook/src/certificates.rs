//! The certificate that is served: made and rotated here and kept in a Secret, or read from files that somebody else renews.

mod files;
mod pair;
mod rotation;
mod store;

use std::sync::{Arc, PoisonError, RwLock};

use anyhow::Context;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

pub(crate) use files::follow as follow_files;
pub(crate) use store::{Keeper, Settings};

/// The certificate of every new connection. Those that are open keep theirs.
#[derive(Debug, Default)]
pub(crate) struct Served(RwLock<Option<Arc<CertifiedKey>>>);

impl Served {
    /// Takes a chain and its key, both in PEM; true where they differ from what was served.
    ///
    /// # Errors
    /// When they cannot be read or do not belong together; then what was served stays.
    pub(crate) fn set(&self, chain_pem: &[u8], key_pem: &[u8]) -> anyhow::Result<bool> {
        let chain: Result<Vec<CertificateDer<'static>>, _> = CertificateDer::pem_slice_iter(chain_pem).collect();
        let chain = chain.context("the certificate is not PEM")?;
        anyhow::ensure!(!chain.is_empty(), "there is no certificate in it");
        let key = PrivateKeyDer::from_pem_slice(key_pem).context("the key is not PEM")?;
        let key = any_supported_type(&key).context("the key cannot be used")?;
        let certified = CertifiedKey::new(chain, key);
        certified.keys_match().context("key and certificate do not belong together")?;
        let mut served = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let new = served.as_ref().is_none_or(|before| before.cert != certified.cert);
        if new {
            *served = Some(Arc::new(certified));
        }
        Ok(new)
    }

    /// When the one that is served expires, in seconds since 1970. None where there is none, or it cannot be read.
    pub(crate) fn expires(&self) -> Option<i64> {
        let served = self.0.read().unwrap_or_else(PoisonError::into_inner).clone()?;
        let (_, certificate) = x509_parser::parse_x509_certificate(served.cert.first()?).ok()?;
        Some(certificate.validity().not_after.timestamp())
    }

    /// Whether there is one.
    pub(crate) fn is_set(&self) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

impl ResolvesServerCert for Served {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
