//! Who is calling: verification of bearer tokens, and the development issuer.

pub mod dev;
pub mod jwks;
mod keys;
#[cfg(test)]
mod published_tests;
#[cfg(test)]
mod tests;
mod verify;

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

pub use jwks::{JwksHealth, JwksTiming, RemoteKeys};
pub use keys::{ALGORITHMS, KeySet, KeySetError, Keys};
pub use verify::{TokenError, TrustedIssuer, Verifier};

/// A verified caller, as the identity provider knows them.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// The `iss` claim.
    pub issuer: String,
    /// The `sub` claim: unique and stable within the issuer.
    pub subject: String,
    /// Always holds [`Role::User`].
    pub roles: BTreeSet<Role>,
}

impl Identity {
    /// Whether the caller has the role; an admin has every role.
    pub fn has(&self, role: Role) -> bool {
        self.roles.contains(&role) || self.roles.contains(&Role::Admin)
    }
}

/// Leaves the subject out, so that it cannot reach a log by way of `{:?}`.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("issuer", &self.issuer)
            .field("roles", &self.roles)
            .finish_non_exhaustive()
    }
}

/// What a caller may do beyond their own data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    User,
    Analyst,
    Auditor,
    Admin,
}

impl Role {
    pub const ALL: [Role; 4] = [Role::User, Role::Analyst, Role::Auditor, Role::Admin];

    /// The name in tokens and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Role::User => "user",
            Role::Analyst => "analyst",
            Role::Auditor => "auditor",
            Role::Admin => "admin",
        }
    }

    /// The role of that name.
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
