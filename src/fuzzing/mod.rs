//! What each parser must hold to whatever it is given: a property for each, which panics where it does not hold.
//!
//! `fuzz/` looks for inputs that break one. The tests here replay those that it begins with (`fuzz/corpus`), among them
//! whatever once broke one. The module exists for these two only.

mod chunked;
mod config;
mod frames;
mod heads;
mod hello;
mod pieces;
mod proxied;
mod serving;
#[cfg(test)]
mod tests;
mod texts;

pub use chunked::chunked;
pub use config::{config, template, values};
pub use frames::{close_frame, frames};
pub use heads::{request_head, response_head};
pub use hello::client_hello;
pub use proxied::proxy_protocol;
pub use serving::serving;
pub use texts::{log_escape, regex, uri};

/// A property: it panics for an input that breaks it.
pub type Property = fn(&[u8]);

/// Every property, under the name of its fuzz target and of its directory of inputs.
pub const PROPERTIES: &[(&str, Property)] = &[
    ("chunked", chunked),
    ("client_hello", client_hello),
    ("close_frame", close_frame),
    ("config", config),
    ("frames", frames),
    ("log_escape", log_escape),
    ("proxy_protocol", proxy_protocol),
    ("regex", regex),
    ("request_head", request_head),
    ("response_head", response_head),
    ("serving", serving),
    ("template", template),
    ("uri", uri),
    ("values", values),
];
