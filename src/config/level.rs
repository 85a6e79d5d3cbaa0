//! Inheritance: a block, and the blocks around it.

use std::{collections::HashMap, iter};

use super::tree::Directive;

/// A block and what it stands in.
#[derive(Debug)]
pub struct Level<'t> {
    parent: Option<&'t Level<'t>>,
    /// Its directives by name: every location asks for every name, and a block may have a great many of some.
    own: HashMap<&'t str, Vec<&'t Directive>>,
}

impl<'t> Level<'t> {
    /// The outermost block.
    pub fn new(own: &'t [Directive]) -> Self {
        Self { parent: None, own: by_name(own) }
    }

    /// A block in this one.
    pub fn inner<'a>(&'a self, own: &'a [Directive]) -> Level<'a> {
        Level { parent: Some(self), own: by_name(own) }
    }

    /// What the block itself says.
    pub fn own(&self, name: &str) -> impl Iterator<Item = &'t Directive> + use<'t> {
        self.own.get(name).cloned().unwrap_or_default().into_iter()
    }

    /// What holds here: the block's own directives of this name if it has any, else those of the nearest block around it that has.
    pub fn all(&self, name: &str) -> &[&'t Directive] {
        self.outwards().find_map(|level| level.own.get(name)).map_or(&[], Vec::as_slice)
    }

    /// As [`Level::all`], of several names that make one list, in the order of the file.
    pub fn all_of(&self, names: &[&str]) -> Vec<&'t Directive> {
        let of = |level: &Level<'t>| names.iter().flat_map(|name| level.own(name)).collect::<Vec<_>>();
        let mut found = self.outwards().map(of).find(|found| !found.is_empty()).unwrap_or_default();
        // All of one slice.
        found.sort_by_key(|directive| std::ptr::from_ref(*directive));
        found
    }

    /// The block, the one it stands in, and so on.
    fn outwards(&self) -> impl Iterator<Item = &Level<'t>> {
        iter::successors(Some(self), |level| level.parent)
    }

    /// The first of [`Level::all`], for directives that stand once.
    pub fn one(&self, name: &str) -> Option<&'t Directive> {
        self.all(name).first().copied()
    }
}

fn by_name(own: &[Directive]) -> HashMap<&str, Vec<&Directive>> {
    let mut names = HashMap::<_, Vec<_>>::new();
    for directive in own {
        names.entry(&*directive.name.text).or_default().push(directive);
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{diagnostic::Report, tree};

    #[test]
    fn a_block_that_sets_none_has_those_of_the_nearest_that_does() {
        let mut report = Report::default();
        let text = "add 1; more 2; add 3; b { c { add 4; } }";
        let file = report.add_source("t", text.to_owned());
        let http = tree::parse(file, text, false, &mut report);
        let http_level = Level::new(&http);
        let server_level = http_level.inner(http[3].children());
        let location_level = server_level.inner(http[3].children()[0].children());
        let values =
            |level: &Level<'_>| level.all("add").iter().map(|found| found.arg(0).to_owned()).collect::<String>();
        assert_eq!(values(&server_level), "13");
        assert_eq!(values(&location_level), "4");
        assert!(location_level.one("none").is_none());
        assert_eq!(location_level.all_of(&["add", "more"]).len(), 1, "one list: the block's own add hides the others");
        let both = server_level.all_of(&["more", "add"]);
        assert_eq!(both.iter().map(|found| found.arg(0)).collect::<String>(), "123", "in the order of the file");
    }
}
