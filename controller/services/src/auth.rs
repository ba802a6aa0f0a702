//! How we prove to services behind an API gateway who we are: with a token that an authorization server gives for a client id and
//! its secret (OAuth2, grant `client_credentials`).

use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use url::Url;

use crate::config::{NUMBER, SWITCH, parse_base, parsed, set};

/// How one service is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServiceAuth {
    /// Without a token, as inside a service mesh.
    None,
    /// With the token of [`AuthConfig`], over plain HTTP too.
    Oauth,
}

impl FromStr for ServiceAuth {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            "oauth" => Ok(Self::Oauth),
            other => Err(format!("{other:?} is not none or oauth")),
        }
    }
}

/// Where tokens come from. Id and secret are files, so that they are read anew when a Secret is rotated and no log can show them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AuthConfig {
    /// Token endpoint of the authorization server. Without it no service gets such a token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_url: Option<String>,
    /// File with the client id, read at every fetch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id_file: Option<PathBuf>,
    /// File with the client secret, read at every fetch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_secret_file: Option<PathBuf>,
    /// What is asked for; where it is not given the server decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// PEM file of certificate authorities; only these are trusted. Without it those of the system are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Do not check certificates.
    pub insecure: bool,
    /// Time for a whole answer, in seconds.
    pub timeout_seconds: u64,
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self {
            token_url: None,
            client_id_file: None,
            client_secret_file: None,
            scope: None,
            ca_file: None,
            insecure: false,
            timeout_seconds: 10,
        }
    }
}

/// What is needed to ask for a token.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) token_url: Url,
    pub(crate) id_file: PathBuf,
    pub(crate) secret_file: PathBuf,
}

impl AuthConfig {
    /// What is needed to ask for a token; none where no token is wanted.
    pub(crate) fn client(&self) -> Result<Option<Client>, Vec<String>> {
        if *self == Self::default() {
            return Ok(None);
        }
        let mut problems = Vec::new();
        let token_url = match self.token_url.as_deref().map(parse_base) {
            Some(Ok(url)) => Some(url),
            Some(Err(problem)) => {
                problems.push(format!("auth.tokenUrl: {problem}"));
                None
            }
            None => {
                problems.push("auth.tokenUrl: missing; the other settings of auth are of no use without it".to_owned());
                None
            }
        };
        for (key, file) in [("clientIdFile", &self.client_id_file), ("clientSecretFile", &self.client_secret_file)] {
            if file.is_none() {
                problems.push(format!("auth.{key}: missing; auth.tokenUrl needs it"));
            }
        }
        if !(1..=300).contains(&self.timeout_seconds) {
            problems.push(format!("auth.timeoutSeconds: {} is not within 1 to 300", self.timeout_seconds));
        }
        if self.insecure && self.ca_file.is_some() {
            problems.push("auth.insecure: contradicts auth.caFile; choose one".to_owned());
        }
        match (token_url, self.client_id_file.clone(), self.client_secret_file.clone()) {
            (Some(token_url), Some(id_file), Some(secret_file)) if problems.is_empty() => {
                Ok(Some(Client { token_url, id_file, secret_file }))
            }
            _ => Err(problems),
        }
    }

    pub(crate) fn apply_env(&mut self, get: &impl Fn(&str) -> Option<String>, problems: &mut Vec<String>) {
        set(&mut self.token_url, get("BOS_AUTH_TOKEN_URL").map(Some));
        set(&mut self.client_id_file, get("BOS_AUTH_CLIENT_ID_FILE").map(|path| Some(path.into())));
        set(&mut self.client_secret_file, get("BOS_AUTH_CLIENT_SECRET_FILE").map(|path| Some(path.into())));
        set(&mut self.scope, get("BOS_AUTH_SCOPE").map(Some));
        set(&mut self.ca_file, get("BOS_AUTH_CA_FILE").map(|path| Some(path.into())));
        set(&mut self.insecure, parsed(get, "BOS_AUTH_INSECURE", SWITCH, problems));
        set(&mut self.timeout_seconds, parsed(get, "BOS_AUTH_TIMEOUT_SECONDS", NUMBER, problems));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        assert!(AuthConfig::default().client().unwrap().is_none());
        let keys = |config: &AuthConfig| {
            let problems = config.client().unwrap_err();
            problems.iter().filter_map(|problem| problem.split(':').next().map(str::to_owned)).collect::<Vec<_>>()
        };
        let scope = AuthConfig { scope: Some("s".to_owned()), ..AuthConfig::default() };
        assert_eq!(keys(&scope), ["auth.tokenUrl", "auth.clientIdFile", "auth.clientSecretFile"]);
        let wrong = AuthConfig {
            token_url: Some("keycloak/token".to_owned()),
            client_id_file: Some("/id".into()),
            client_secret_file: Some("/secret".into()),
            ca_file: Some("/ca".into()),
            insecure: true,
            timeout_seconds: 0,
            ..AuthConfig::default()
        };
        assert_eq!(keys(&wrong), ["auth.tokenUrl", "auth.timeoutSeconds", "auth.insecure"]);
    }
}
