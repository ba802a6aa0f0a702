//! Signatures of tokens are checked by ring, which is there for TLS. `jsonwebtoken` is taken without cryptography of its own.

use jsonwebtoken::crypto::{CryptoProvider, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, Result};
use jsonwebtoken::signature::{Error, Verifier};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind};
use ring::signature::{self, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm};

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |_, _| Err(ErrorKind::UnsupportedAlgorithm.into()),
    verifier_factory: verifier,
    key_utils: KeyUtils {
        rsa_pub_components_from_private_key: |_| Err(ErrorKind::UnsupportedAlgorithm.into()),
        rsa_pub_components_from_public_key: |_| Err(ErrorKind::UnsupportedAlgorithm.into()),
        ec_pub_components_from_private_key: |_, _| Err(ErrorKind::UnsupportedAlgorithm.into()),
        ed_pub_components_from_private_key: |_, _| Err(ErrorKind::UnsupportedAlgorithm.into()),
        compute_digest: |_, _| Err(ErrorKind::UnsupportedAlgorithm.into()),
    },
};

/// Has `jsonwebtoken` check signatures by ring; a second call changes nothing.
pub(super) fn install() {
    let _installed_before = PROVIDER.install_default();
}

/// One key, ready for one algorithm.
struct Key {
    algorithm: Algorithm,
    how: How,
}

enum How {
    Rsa(&'static RsaParameters, RsaPublicKeyComponents<Vec<u8>>),
    Point(UnparsedPublicKey<Vec<u8>>),
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>> {
    let rsa = |parameters| match (key.family(), key.kind()) {
        (AlgorithmFamily::Rsa, DecodingKeyKind::RsaModulusExponent { n, e }) => {
            Ok(How::Rsa(parameters, RsaPublicKeyComponents { n: n.clone(), e: e.clone() }))
        }
        _ => Err(ErrorKind::InvalidAlgorithm),
    };
    let point = |family, by: &'static dyn VerificationAlgorithm| match (key.family() == family, key.kind()) {
        (true, DecodingKeyKind::SecretOrDer(bytes)) => Ok(How::Point(UnparsedPublicKey::new(by, bytes.clone()))),
        _ => Err(ErrorKind::InvalidAlgorithm),
    };
    let how = match algorithm {
        Algorithm::RS256 => rsa(&signature::RSA_PKCS1_2048_8192_SHA256)?,
        Algorithm::RS384 => rsa(&signature::RSA_PKCS1_2048_8192_SHA384)?,
        Algorithm::RS512 => rsa(&signature::RSA_PKCS1_2048_8192_SHA512)?,
        Algorithm::PS256 => rsa(&signature::RSA_PSS_2048_8192_SHA256)?,
        Algorithm::PS384 => rsa(&signature::RSA_PSS_2048_8192_SHA384)?,
        Algorithm::PS512 => rsa(&signature::RSA_PSS_2048_8192_SHA512)?,
        Algorithm::ES256 => point(AlgorithmFamily::Ec, &signature::ECDSA_P256_SHA256_FIXED)?,
        Algorithm::ES384 => point(AlgorithmFamily::Ec, &signature::ECDSA_P384_SHA384_FIXED)?,
        Algorithm::EdDSA => point(AlgorithmFamily::Ed, &signature::ED25519)?,
        // With a shared secret: keys that are published are none.
        _ => return Err(ErrorKind::UnsupportedAlgorithm.into()),
    };
    Ok(Box::new(Key { algorithm: *algorithm, how }))
}

impl Verifier<Vec<u8>> for Key {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), Error> {
        let checked = match &self.how {
            How::Rsa(parameters, key) => key.verify(parameters, message, signature),
            How::Point(key) => key.verify(message, signature),
        };
        checked.map_err(|_| Error::new())
    }
}

impl JwtVerifier for Key {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}
