//! Which server, which location, which value: nginx's matching rules, compiled. Nothing here does I/O.

pub mod location;
pub mod map;
pub mod rewrite;
pub mod server_name;
