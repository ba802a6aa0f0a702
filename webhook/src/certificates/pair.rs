//! A new certificate with an authority of its own, whose key nobody keeps: it signs this one certificate and nothing after it.

use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};

/// Clocks of API servers may be behind ours.
const CLOCK_SKEW: Duration = Duration::from_secs(3600);

/// A certificate, its key and its authority, all in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) certificate: String,
    pub(super) key: String,
    pub(super) authority: String,
}

/// Makes one for a server of these names.
pub(super) fn make(names: &[String], now: Timestamp, lifetime: Duration) -> anyhow::Result<Pair> {
    let mut authority = params(Vec::new(), "bos-webhook authority", now, lifetime)?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority_key = KeyPair::generate().context("making a key")?;
    let authority_pem = authority.self_signed(&authority_key).context("signing the authority")?.pem();
    let issuer = Issuer::new(authority, authority_key);

    let mut server = params(names.to_vec(), names.first().map_or("bos-webhook", String::as_str), now, lifetime)?;
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    server.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate().context("making a key")?;
    let certificate = server.signed_by(&key, &issuer).context("signing the certificate")?.pem();
    Ok(Pair { certificate, key: key.serialize_pem(), authority: authority_pem })
}

fn params(names: Vec<String>, common_name: &str, now: Timestamp, lifetime: Duration) -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::new(names).context("a name of the server")?;
    params.distinguished_name = DistinguishedName::new();
    // A common name has at most 64 characters; the names that count are the alternative ones.
    params.distinguished_name.push(DnType::CommonName, common_name.chars().take(64).collect::<String>());
    let epoch = date_time_ymd(1970, 1, 1);
    let since_epoch = Duration::from_secs(u64::try_from(now.as_second()).context("a clock before 1970")?);
    // The library's default runs from 1975 to 4096.
    params.not_before = epoch + since_epoch.saturating_sub(CLOCK_SKEW);
    params.not_after = epoch + since_epoch + lifetime;
    Ok(params)
}
