//! Which server, which location, which value: nginx's matching rules, compiled. Nothing here does I/O.

pub mod access;
pub mod escape;
mod hostnames;
pub mod location;
pub mod map;
#[cfg(test)]
mod oracle;
pub mod origin;
mod pcre;
pub mod real_ip;
pub mod regex;
pub mod rewrite;
pub mod server_name;
