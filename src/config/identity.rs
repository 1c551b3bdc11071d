//! Whose tokens are accepted.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use jsonwebtoken::Algorithm;
use reqwest::Url;
use serde::Deserialize;

use crate::auth::ALGORITHMS;

/// The identity providers whose tokens are accepted; never none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityConfig {
    pub issuers: Vec<IssuerConfig>,
}

/// One identity provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerConfig {
    /// The exact `iss` claim.
    pub issuer: String,
    /// Accepted `aud` or `client_id` claims.
    pub audiences: Vec<String>,
    /// What its tokens may be signed with.
    pub algorithms: Vec<Algorithm>,
    pub jwks: JwksSource,
}

/// Where the public keys of a provider are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JwksSource {
    File(PathBuf),
    /// Checked: https, or http on this machine; without user and password.
    Url(String),
}

/// Why the identity providers are not configured well.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("TIDEMARK_JWKS needs TIDEMARK_ISSUER and TIDEMARK_AUDIENCE (whose tokens are these?)")]
    Incomplete,
    #[error("TIDEMARK_ISSUERS names the providers, so TIDEMARK_JWKS and the like must not be set")]
    Twice,
    #[error("cannot read the identity providers in {path}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error(
        "{path} is not a list of identity providers (expected [{{\"issuer\": …, \"audiences\": […], \
         \"jwks\": file or URL, \"algorithms\": […]}}])"
    )]
    Parse { path: PathBuf, source: serde_json::Error },
    #[error("the issuer {0} has no audience: every token of the provider would be accepted")]
    NoAudience(String),
    #[error("the issuer {0} is named twice")]
    Duplicate(String),
    #[error("no identity provider is named in {0}")]
    Empty(PathBuf),
    #[error(
        "the issuer {issuer} may not sign with {algorithm:?} (expected some of RS256, ES256, EdDSA)"
    )]
    Algorithm { issuer: String, algorithm: Algorithm },
    #[error(
        "the key set's address must be an https URL without user and password; http is for this \
         machine alone"
    )]
    Url,
}

/// The settings for a single provider, as given.
pub(super) struct One {
    pub jwks: Option<String>,
    pub issuer: Option<String>,
    pub audiences: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    issuer: String,
    audiences: Vec<String>,
    jwks: String,
    #[serde(default)]
    algorithms: Vec<Algorithm>,
}

/// The providers; none stands for the development issuer.
pub(super) fn resolve(
    one: One,
    several: Option<&Path>,
) -> Result<Option<IdentityConfig>, IdentityError> {
    match (one, several) {
        (One { jwks: None, .. }, None) => Ok(None),
        (One { jwks: Some(_), .. } | One { issuer: Some(_), .. }, Some(_)) => {
            Err(IdentityError::Twice)
        }
        (One { jwks: Some(jwks), issuer: Some(issuer), audiences }, None)
            if !audiences.is_empty() =>
        {
            let entry = Entry { issuer, audiences, jwks, algorithms: Vec::new() };
            Ok(Some(IdentityConfig { issuers: vec![check(entry, Path::new(""))?] }))
        }
        (_, None) => Err(IdentityError::Incomplete),
        (_, Some(path)) => read(path).map(Some),
    }
}

fn read(path: &Path) -> Result<IdentityConfig, IdentityError> {
    let text = fs::read_to_string(path)
        .map_err(|source| IdentityError::Read { path: path.to_owned(), source })?;
    let entries: Vec<Entry> = serde_json::from_str(&text)
        .map_err(|source| IdentityError::Parse { path: path.to_owned(), source })?;
    if entries.is_empty() {
        return Err(IdentityError::Empty(path.to_owned()));
    }
    let beside = path.parent().unwrap_or_else(|| Path::new(""));
    let mut issuers: Vec<IssuerConfig> = Vec::with_capacity(entries.len());
    for entry in entries {
        let issuer = check(entry, beside)?;
        if issuers.iter().any(|other| other.issuer == issuer.issuer) {
            return Err(IdentityError::Duplicate(issuer.issuer));
        }
        issuers.push(issuer);
    }
    Ok(IdentityConfig { issuers })
}

/// One provider; a file without a directory lies in `beside`.
fn check(entry: Entry, beside: &Path) -> Result<IssuerConfig, IdentityError> {
    let Entry { issuer, audiences, jwks, mut algorithms } = entry;
    if audiences.iter().all(|audience| audience.trim().is_empty()) {
        return Err(IdentityError::NoAudience(issuer));
    }
    if let Some(&algorithm) = algorithms.iter().find(|it| !ALGORITHMS.contains(it)) {
        return Err(IdentityError::Algorithm { issuer, algorithm });
    }
    if algorithms.is_empty() {
        algorithms = ALGORITHMS.to_vec();
    }
    let jwks = match jwks.contains("://") {
        true => JwksSource::Url(check_url(&jwks)?),
        false => JwksSource::File(beside.join(jwks)),
    };
    Ok(IssuerConfig { issuer, audiences, algorithms, jwks })
}

/// Whoever can change the answer on its way becomes anybody, so it comes over https.
fn check_url(text: &str) -> Result<String, IdentityError> {
    let url = Url::parse(text).map_err(|_| IdentityError::Url)?;
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let here = host == "localhost" || address.is_ok_and(|address| address.is_loopback());
    let safe = url.scheme() == "https" || (url.scheme() == "http" && here);
    let bare = url.username().is_empty() && url.password().is_none() && !host.is_empty();
    if safe && bare { Ok(url.into()) } else { Err(IdentityError::Url) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(jwks: &str) -> Result<IdentityConfig, IdentityError> {
        let (jwks, issuer) = (Some(jwks.to_owned()), Some("https://id.example".to_owned()));
        resolve(One { jwks, issuer, audiences: vec!["app".to_owned()] }, None).map(Option::unwrap)
    }

    fn several(json: &str) -> Result<IdentityConfig, IdentityError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("issuers.json");
        fs::write(&path, json).unwrap();
        let none = One { jwks: None, issuer: None, audiences: Vec::new() };
        resolve(none, Some(&path)).map(Option::unwrap)
    }

    #[test]
    fn keys_come_over_https_or_from_this_machine() {
        for good in [
            "https://id.example/jwks.json",
            "http://127.0.0.1:8/jwks",
            "http://[::1]:8/jwks",
            "http://localhost/jwks",
        ] {
            assert!(matches!(&one(good).unwrap().issuers[0].jwks, JwksSource::Url(_)), "{good}");
        }
        for bad in [
            "http://id.example/jwks.json",
            "http://localhost.example/jwks",
            "http://127.0.0.1.example/jwks",
            "ftp://localhost/jwks",
            "file:///etc/passwd",
            "https://user:secret@id.example/jwks",
            "https://",
        ] {
            let error = one(bad).unwrap_err();
            assert!(matches!(error, IdentityError::Url), "{bad}");
            assert!(!error.to_string().contains("secret"));
        }
        let file = &one("keys.json").unwrap().issuers[0];
        assert_eq!(file.jwks, JwksSource::File("keys.json".into()));
        assert_eq!(file.algorithms, ALGORITHMS);
    }

    #[test]
    fn each_of_several_issuers_has_its_own_keys_audiences_and_algorithms() {
        let config = several(
            r#"[{"issuer": "https://a.example", "audiences": ["app"], "jwks": "a.json"},
                {"issuer": "https://b.example", "audiences": ["x", "y"],
                 "jwks": "https://b.example/jwks.json", "algorithms": ["ES256"]}]"#,
        );
        let issuers = config.unwrap().issuers;
        assert!(matches!(&issuers[0].jwks, JwksSource::File(path) if path.ends_with("a.json")
            && path.is_absolute()));
        assert_eq!(issuers[1].algorithms, [Algorithm::ES256]);
        assert_eq!(issuers[1].audiences, ["x", "y"]);
    }

    #[test]
    fn what_would_accept_too_much_is_refused() {
        let entry =
            |more: &str| format!(r#"{{"issuer": "https://a.example", "jwks": "a.json"{more}}}"#);
        let audience = r#", "audiences": ["app"]"#;
        for (json, expected) in [
            ("[]".to_owned(), "no identity provider"),
            (format!("[{}]", entry("")), "not a list"),
            (format!("[{}]", entry(r#", "audiences": []"#)), "no audience"),
            (format!("[{0}, {0}]", entry(audience)), "named twice"),
            (
                format!("[{}]", entry(&format!(r#"{audience}, "algorithms": ["HS256"]"#))),
                "may not sign",
            ),
            (format!("[{}]", entry(&format!(r#"{audience}, "algorithm": "none""#))), "not a list"),
        ] {
            let error = several(&json).unwrap_err().to_string();
            assert!(error.contains(expected), "{json}: {error}");
        }
        let both = One { jwks: Some("a".to_owned()), issuer: None, audiences: Vec::new() };
        assert!(matches!(resolve(both, Some(Path::new("x"))), Err(IdentityError::Twice)));
        let half = One { jwks: Some("a".to_owned()), issuer: None, audiences: Vec::new() };
        assert!(matches!(resolve(half, None), Err(IdentityError::Incomplete)));
    }
}
