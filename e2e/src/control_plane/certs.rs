//! The control plane's own certificate authority, made afresh for each start and never written to a system store.

use anyhow::Context as _;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};

/// A certificate and its private key, both in PEM.
#[derive(Debug, Clone)]
pub struct KeyedCert {
    /// The certificate.
    pub cert_pem: String,
    /// Its private key (PKCS 8).
    pub key_pem: String,
}

/// Signs the certificates of one control plane.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    cert_pem: String,
}

impl Authority {
    /// Makes a new authority. Its certificate really is a CA certificate: the controller manager refuses to publish any other.
    pub fn new() -> anyhow::Result<Self> {
        let mut params = params("bos-e2e", &[])?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().context("making the key of the certificate authority")?;
        let cert_pem = params.self_signed(&key).context("signing the certificate authority")?.pem();
        Ok(Self { issuer: Issuer::new(params, key), cert_pem })
    }

    /// The authority's certificate, which clients must trust.
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    /// A certificate for a server that is reached by these names and addresses.
    pub fn serving(&self, name: &str, reached_by: &[&str]) -> anyhow::Result<KeyedCert> {
        let mut params = params(name, reached_by)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(params)
    }

    /// A client certificate: Kubernetes takes the common name as the user and the organisations as the groups.
    ///
    /// At most two groups, as the certificate library holds one value for each way to name an attribute.
    pub fn client(&self, user: &str, groups: &[&str]) -> anyhow::Result<KeyedCert> {
        // Two spellings of the same attribute, 2.5.4.10.
        let organisations = [DnType::OrganizationName, DnType::CustomDnType(vec![2, 5, 4, 10])];
        anyhow::ensure!(groups.len() <= organisations.len(), "a client certificate here holds at most {} groups", organisations.len());
        let mut params = params(user, &[])?;
        for (attribute, group) in organisations.into_iter().zip(groups) {
            params.distinguished_name.push(attribute, *group);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params)
    }

    fn sign(&self, mut params: CertificateParams) -> anyhow::Result<KeyedCert> {
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        let key = KeyPair::generate().context("making a key")?;
        let cert = params.signed_by(&key, &self.issuer).context("signing a certificate")?;
        Ok(KeyedCert { cert_pem: cert.pem(), key_pem: key.serialize_pem() })
    }
}

/// The key pair that signs service-account tokens: private and public key in PEM.
pub(super) fn token_key() -> anyhow::Result<(String, String)> {
    let key = KeyPair::generate().context("making the service-account key")?;
    Ok((key.serialize_pem(), key.public_key_pem()))
}

fn params(common_name: &str, reached_by: &[&str]) -> anyhow::Result<CertificateParams> {
    let names: Vec<String> = reached_by.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).context("a name in a certificate")?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    // The library's default runs from 1975 to 4096. A demo may stay up for weeks, not for years.
    let today = jiff::Zoned::now().date();
    let at = |date: jiff::civil::Date| rcgen::date_time_ymd(date.year().into(), date.month().unsigned_abs(), date.day().unsigned_abs());
    params.not_before = at(today.saturating_sub(jiff::Span::new().days(1)));
    params.not_after = at(today.saturating_add(jiff::Span::new().years(1)));
    Ok(params)
}
