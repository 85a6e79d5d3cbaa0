//! lints
use super::{diagnostic::Report, tree::Directive};
/// x
pub fn file(_http: &[Directive], _report: &mut Report) {}
