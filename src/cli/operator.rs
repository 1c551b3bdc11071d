//! Who works at this terminal, for the record.

use std::fs;

use nix::unistd::{User, getuid};

/// `user@host`, as the operating system has it: environment variables say what one likes.
pub(super) fn name() -> String {
    let id = getuid();
    let user = match User::from_uid(id) {
        Ok(Some(user)) => user.name,
        _ => format!("uid {id}"),
    };
    let host = ["/proc/sys/kernel/hostname", "/etc/hostname"]
        .into_iter()
        .find_map(|path| fs::read_to_string(path).ok())
        .map(|host| host.trim().to_owned())
        .filter(|host| !host.is_empty());
    format!("{user}@{}", host.as_deref().unwrap_or("localhost"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn somebody_works_here() {
        let name = super::name();
        let (user, host) = name.split_once('@').unwrap();
        assert!(!user.is_empty() && !host.is_empty());
    }
}
