//! `user`: who the program is once its sockets are bound and its files are open.
//!
//! As nginx, root does not serve: without a `user` directive it becomes `nobody`. `user root;` keeps it.

use std::ffi::CString;

use nix::unistd::{Gid, Group, Uid, User, geteuid, initgroups, setgid, setgroups, setuid};

use crate::observe::os_error;

/// nginx's default.
const DEFAULT: &str = "nobody";
/// The kernel's overflow ids (`/proc/sys/kernel/overflowuid`): who `nobody` is where no passwd file says it.
const OVERFLOW_ID: u32 = 65_534;

/// Whom to become.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub uid: Uid,
    pub gid: Gid,
    /// For the supplementary groups; none: only `gid`.
    name: Option<CString>,
}

/// Whom `user` means when started by root; none when there is nobody to become.
///
/// # Errors
/// A user or group that does not exist: cause and cure.
pub(super) fn identity(directive: Option<&(Box<str>, Option<Box<str>>)>) -> Result<Option<Identity>, String> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    let identity = match directive {
        Some((user, group)) => named(user, group.as_deref())?,
        None => named(DEFAULT, None).unwrap_or(Identity {
            uid: Uid::from_raw(OVERFLOW_ID),
            gid: Gid::from_raw(OVERFLOW_ID),
            name: None,
        }),
    };
    Ok(Some(identity).filter(|identity| !identity.uid.is_root()))
}

/// True when the directive is there and means nothing, since only root can become somebody else. A service that systemd
/// started as the user whom the file names is already who it should be.
pub(super) fn is_ignored(directive: Option<&(Box<str>, Option<Box<str>>)>) -> bool {
    directive.is_some_and(|(user, _)| {
        let me = geteuid();
        !me.is_root() && User::from_name(user).ok().flatten().is_none_or(|entry| entry.uid != me)
    })
}

fn named(user: &str, group: Option<&str>) -> Result<Identity, String> {
    let entry = User::from_name(user)
        .map_err(|errno| format!("getpwnam(\"{user}\") failed ({})", os_error(&errno.into())))?
        .ok_or_else(|| {
            format!(
                "getpwnam(\"{user}\") failed: there is no such user; make it with `useradd --system --no-create-home \
                 --shell /usr/sbin/nologin {user}`, or name another in `user`"
            )
        })?;
    let gid = match group {
        None => entry.gid,
        Some(group) => Group::from_name(group)
            .map_err(|errno| format!("getgrnam(\"{group}\") failed ({})", os_error(&errno.into())))?
            .ok_or_else(|| {
                format!(
                    "getgrnam(\"{group}\") failed: there is no such group; make it with `groupadd --system {group}`, \
                         or name another in `user`"
                )
            })?
            .gid,
    };
    Ok(Identity { uid: entry.uid, gid, name: CString::new(user).ok() })
}

impl Identity {
    /// Becomes it, all threads at once (glibc's setuid(2) reaches every thread), for good.
    ///
    /// # Errors
    /// EPERM in a user namespace without the ids, or without CAP_SETUID and CAP_SETGID.
    pub(super) fn assume(&self) -> Result<(), String> {
        let groups = match &self.name {
            Some(name) => initgroups(name, self.gid).map_err(|errno| ("initgroups", errno)),
            None => setgroups(&[self.gid]).map_err(|errno| ("setgroups", errno)),
        };
        groups
            .and_then(|()| setgid(self.gid).map_err(|errno| ("setgid", errno)))
            .and_then(|()| setuid(self.uid).map_err(|errno| ("setuid", errno)))
            .map_err(|(call, errno)| {
                format!(
                    "{call}() failed ({}); a container needs the capabilities SETUID and SETGID for `user`, or `user root;`",
                    os_error(&errno.into())
                )
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_is_told_with_its_cure() {
        let error = named("no-such-user-here", None).unwrap_err();
        assert!(
            error.starts_with("getpwnam(\"no-such-user-here\") failed: there is no such user; make it with `useradd")
        );
        let error = named("root", Some("no-such-group-here")).unwrap_err();
        assert!(error.contains("groupadd --system no-such-group-here"));
    }

    #[test]
    fn root_becomes_nobody_unless_told_otherwise() {
        let root = ("root".into(), None);
        if geteuid().is_root() {
            assert!(identity(None).unwrap().is_some_and(|identity| !identity.uid.is_root()));
            assert_eq!(identity(Some(&root)), Ok(None));
            assert!(!is_ignored(Some(&root)));
        } else {
            assert_eq!(identity(None), Ok(None));
            assert!(is_ignored(Some(&root)));
        }
    }
}
