//! Inheritance: a block, and the blocks around it.

use super::tree::Directive;

/// A block and what it stands in.
#[derive(Debug)]
pub struct Level<'t> {
    parent: Option<&'t Level<'t>>,
    own: &'t [Directive],
    /// Those of its own that can be inherited: no blocks. Every location asks for every name, and there may be a great many blocks.
    plain: Vec<&'t Directive>,
}

impl<'t> Level<'t> {
    /// The outermost block.
    pub fn new(own: &'t [Directive]) -> Self {
        Self { parent: None, own, plain: plain(own) }
    }

    /// A block in this one.
    pub fn inner<'a>(&'a self, own: &'a [Directive]) -> Level<'a> {
        Level { parent: Some(self), own, plain: plain(own) }
    }

    /// What the block itself says.
    pub fn own(&self, name: &'t str) -> impl Iterator<Item = &'t Directive> + use<'t> {
        self.own.iter().filter(move |directive| directive.is(name))
    }

    /// What holds here: the block's own directives of this name if it has any, else those of the nearest block around it that has.
    pub fn all(&self, name: &'t str) -> Vec<&'t Directive> {
        self.all_of(&[name])
    }

    /// As [`Level::all`], of several names that make one list, in the order of the file.
    pub fn all_of(&self, names: &[&str]) -> Vec<&'t Directive> {
        let mut level = Some(self);
        while let Some(here) = level {
            let found: Vec<_> =
                here.plain.iter().copied().filter(|directive| names.iter().any(|name| directive.is(name))).collect();
            if !found.is_empty() {
                return found;
            }
            level = here.parent;
        }
        Vec::new()
    }

    /// The first of [`Level::all`], for directives that stand once.
    pub fn one(&self, name: &'t str) -> Option<&'t Directive> {
        self.all(name).first().copied()
    }
}

fn plain(own: &[Directive]) -> Vec<&Directive> {
    own.iter().filter(|directive| directive.block.is_none()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{diagnostic::Report, tree};

    #[test]
    fn a_block_that_sets_none_has_those_of_the_nearest_that_does() {
        let mut report = Report::default();
        let text = "add 1; add 2; more 3; b { c { add 3; } }";
        let file = report.add_source("t", text.to_owned());
        let http = tree::parse(file, text, false, &mut report);
        let http_level = Level::new(&http);
        let server_level = http_level.inner(http[3].children());
        let location_level = server_level.inner(http[3].children()[0].children());
        let values =
            |level: &Level<'_>| level.all("add").iter().map(|found| found.arg(0).to_owned()).collect::<String>();
        assert_eq!(values(&server_level), "12");
        assert_eq!(values(&location_level), "3");
        assert!(location_level.one("none").is_none());
        assert!(server_level.one("b").is_none(), "a block is nobody's but its own level's");
        assert_eq!(location_level.all_of(&["add", "more"]).len(), 1, "one list: the block's own add hides the others");
        assert_eq!(server_level.all_of(&["add", "more"]).len(), 3);
    }
}
