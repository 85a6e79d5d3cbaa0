//! What is said to the backend for a client, and to the client for a backend: heads rewritten as the file asks.
//!
//! Fields that belong to one connection (hop-by-hop, RFC 9110 section 7.6.1) and those that frame a body are always ours: they
//! are taken out before anything is added, no `proxy_set_header` or `add_header` can set them, and `Connection` cannot name
//! another field away that a backend relies on. Nothing decoded is ever written raw.

mod fields;
mod preface;
mod redirect;
mod request;
mod response;
mod target;

pub use preface::preface;
pub use request::{backend_method, keeps_backend, request_head};
pub use response::{interim_head, own_response, response_head, switching_head};
pub use target::{VariableTarget, variable_target};

#[cfg(test)]
mod tests;
