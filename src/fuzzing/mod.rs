//! What each parser must hold to whatever it is given: a property for each, which panics where it does not hold.
//!
//! `fuzz/` looks for inputs that break one. The tests here replay those that it begins with (`fuzz/corpus`), among them
//! whatever once broke one. The module exists for these two only.

mod chunked;
mod frames;
mod heads;
mod pieces;
#[cfg(test)]
mod tests;

pub use chunked::chunked;
pub use frames::{close_frame, frames};
pub use heads::{request_head, response_head};

/// A property: it panics for an input that breaks it.
pub type Property = fn(&[u8]);

/// Every property, under the name of its fuzz target and of its directory of inputs.
pub const PROPERTIES: &[(&str, Property)] = &[
    ("chunked", chunked),
    ("close_frame", close_frame),
    ("frames", frames),
    ("request_head", request_head),
    ("response_head", response_head),
];
