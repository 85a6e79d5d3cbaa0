//! The one table of directives: what each may be, where, and what becomes of it here. The check of a file, the notes of `-t`,
//! the defaults, the inheritance rules and the reference page all come from it.

mod table;

use std::{collections::HashMap, fmt, sync::LazyLock};

/// Contexts (nginx's `NGX_HTTP_SRV_CONF` and the like), as a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contexts(u16);

impl Contexts {
    /// Outside of every block of a whole file.
    pub const MAIN: Self = Self(1);
    /// `events`
    pub const EVENTS: Self = Self(1 << 1);
    /// `http`; the top level of a fragment.
    pub const HTTP: Self = Self(1 << 2);
    /// `server`
    pub const SERVER: Self = Self(1 << 3);
    /// `location`
    pub const LOCATION: Self = Self(1 << 4);
    /// `if` in `server`
    pub const SERVER_IF: Self = Self(1 << 5);
    /// `if` in `location`
    pub const LOCATION_IF: Self = Self(1 << 6);
    /// `upstream`
    pub const UPSTREAM: Self = Self(1 << 7);
    /// Nowhere.
    pub const NOWHERE: Self = Self(0);
    /// Anywhere.
    pub const ANY: Self = Self(0xff);

    /// Both sets.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// True when the sets share a context.
    pub const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

impl fmt::Display for Contexts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [(Contexts, &str); 8] = [
            (Contexts::MAIN, "main"),
            (Contexts::EVENTS, "events"),
            (Contexts::HTTP, "http"),
            (Contexts::SERVER, "server"),
            (Contexts::LOCATION, "location"),
            (Contexts::SERVER_IF, "if in server"),
            (Contexts::LOCATION_IF, "if in location"),
            (Contexts::UPSTREAM, "upstream"),
        ];
        let names: Vec<_> = NAMES.iter().filter(|(context, _)| self.meets(*context)).map(|(_, name)| *name).collect();
        formatter.write_str(&names.join(", "))
    }
}

/// What follows a directive's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `on` or `off`.
    Flag,
    /// From so many to so many arguments.
    Arguments(u8, u8),
    /// So many arguments or more.
    AtLeast(u8),
    /// From so many to so many arguments (255: any number), and a block of directives.
    Block(u8, u8),
    /// So many arguments, and a block whose lines are no directives (`map`, `types`).
    Table(u8, u8),
    /// Whatever: it is refused, or means nothing here.
    Free,
}

impl Form {
    /// Fewest and most arguments.
    pub fn bounds(self) -> (usize, usize) {
        match self {
            Form::Flag => (1, 1),
            Form::Arguments(least, most) => (least.into(), most.into()),
            Form::Block(least, 255) | Form::Table(least, 255) | Form::AtLeast(least) => (least.into(), usize::MAX),
            Form::Block(least, most) | Form::Table(least, most) => (least.into(), most.into()),
            Form::Free => (0, usize::MAX),
        }
    }

    /// It has a block (true), has none (false), or either (none).
    pub fn has_block(self) -> Option<bool> {
        match self {
            Form::Block(..) | Form::Table(..) => Some(true),
            Form::Free => None,
            _ => Some(false),
        }
    }
}

/// How often a directive may stand in one block, and what inner blocks get of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merge {
    /// Once; inner blocks inherit it unless they set it.
    Value,
    /// Several times; inner blocks inherit all of them unless they set one.
    List,
    /// Once; not inherited.
    Own,
    /// Several times; not inherited.
    OwnList,
}

impl fmt::Display for Merge {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Merge::Value => "once in a block, inherited",
            Merge::List => "any number in a block, inherited",
            Merge::Own => "once in a block, not inherited",
            Merge::OwnList => "any number in a block, not inherited",
        })
    }
}

/// What becomes of a directive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// It works as in nginx.
    Understood,
    /// It cannot matter here, for this reason: a note.
    Accepted(&'static str),
    /// It has no effect, which may surprise: a warning.
    Surprising(&'static str),
    /// An error, with what to do instead. Values that ask for nothing are let through.
    Refused(&'static str, &'static [&'static str]),
    /// An error until it is built, with what to do until then. Values that ask for nothing are let through.
    NotYet(&'static str, &'static [&'static str]),
}

/// A row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Definition {
    /// Its name; with a `*` at the end a family of names, of which none has a row of its own.
    pub name: &'static str,
    /// Where it may stand.
    pub contexts: Contexts,
    /// Its arguments.
    pub form: Form,
    /// Repetition and inheritance.
    pub merge: Merge,
    /// What becomes of it.
    pub class: Class,
    /// Its value where the file sets none; empty: nothing.
    pub default: &'static str,
    /// One line.
    pub doc: &'static str,
}

static BY_NAME: LazyLock<HashMap<&'static str, Vec<&'static Definition>>> = LazyLock::new(|| {
    let mut by_name: HashMap<_, Vec<_>> = HashMap::new();
    for definition in table::TABLE {
        by_name.entry(definition.name).or_default().push(definition);
    }
    by_name
});

/// Every meaning of a name: some mean one thing in `http` and another in `upstream`. Empty: unknown.
pub fn named(name: &str) -> Vec<&'static Definition> {
    if let Some(found) = BY_NAME.get(name) {
        return found.clone();
    }
    let family =
        |definition: &&Definition| definition.name.strip_suffix('*').is_some_and(|stem| name.starts_with(stem));
    table::TABLE.iter().filter(family).collect()
}

/// Every row, in the order of the table.
pub fn all() -> &'static [Definition] {
    table::TABLE
}

/// True when some directive has this name.
pub fn is_known(name: &str) -> bool {
    !named(name).is_empty()
}

/// Every name, for "did you mean".
pub fn names() -> impl Iterator<Item = &'static str> {
    table::TABLE.iter().map(|definition| definition.name).filter(|name| !name.ends_with('*'))
}

/// The default of a directive in the http contexts; empty: none.
pub fn default_of(name: &str) -> &'static str {
    let definitions = BY_NAME.get(name).map_or(&[][..], Vec::as_slice);
    let http = definitions.iter().find(|definition| !definition.contexts.meets(Contexts::UPSTREAM));
    http.or(definitions.first()).map_or("", |definition| definition.default)
}

/// The default of a directive where it may stand in one of these contexts; empty: none.
pub fn default_in(name: &str, contexts: Contexts) -> &'static str {
    let definitions = BY_NAME.get(name).map_or(&[][..], Vec::as_slice);
    definitions
        .iter()
        .find(|definition| definition.contexts.meets(contexts))
        .map_or("", |definition| definition.default)
}

/// The reference page of all directives, as Markdown: `docs/directives.md`.
pub fn reference() -> String {
    let mut page = String::from(INTRODUCTION);
    page.push_str("\n## Understood\n");
    rows(|class| matches!(class, Class::Understood)).iter().for_each(|definition| section(&mut page, definition));
    table(&mut page, ACCEPTED, |class| matches!(class, Class::Accepted(_)));
    table(&mut page, SURPRISING, |class| matches!(class, Class::Surprising(_)));
    table(&mut page, NOT_YET, |class| matches!(class, Class::NotYet(..)));
    table(&mut page, REFUSED, |class| matches!(class, Class::Refused(..)));
    page
}

const INTRODUCTION: &str = "# Directives

<!-- Generated from src/config/directives: `BLESS=1 cargo test --lib the_committed_reference` writes it anew. -->

Names, contexts, arguments and meanings are [nginx's](https://nginx.org/en/docs/dirindex.html); what differs is said here.
A name that is not on this page is an unknown directive: an error. A `*` stands for the rest of a name.

\"Inherited\" is nginx's rule: a value holds in inner blocks that do not set it, a list holds in inner blocks that set none of it.
";
const ACCEPTED: &str = "
## Accepted without effect

What these ask for cannot matter here. `-t` lists them as notes.

| directive | why |
|---|---|
";
const SURPRISING: &str = "
## Accepted with a warning

These have no effect either, and that may surprise.

| directive | why |
|---|---|
";
const NOT_YET: &str = "
## Not supported yet

An error, never ignored. \"Let through\" are values that ask for nothing: with them the line is accepted.

| directive | instead | let through |
|---|---|---|
";
const REFUSED: &str = "
## Refused

An error: these ask for something that is not done here.

| directive | instead | let through |
|---|---|---|
";

/// The table's rows of some classes, by name.
fn rows(wanted: fn(Class) -> bool) -> Vec<&'static Definition> {
    let mut rows: Vec<_> = table::TABLE.iter().filter(|definition| wanted(definition.class)).collect();
    rows.sort_by_key(|definition| definition.name);
    rows
}

fn section(page: &mut String, definition: &Definition) {
    let default = match definition.default {
        "" => String::new(),
        default => format!("- default: `{default}`\n"),
    };
    let Definition { name, doc, contexts, form, merge, .. } = definition;
    let form = describe(*form);
    page.push_str(&format!(
        "\n### `{name}`\n\n{doc}\n\n- arguments: {form}\n- contexts: {contexts}\n{default}- {merge}\n"
    ));
}

fn table(page: &mut String, head: &str, wanted: fn(Class) -> bool) {
    page.push_str(head);
    for definition in rows(wanted) {
        let cells = match definition.class {
            Class::Understood => continue,
            Class::Accepted(why) | Class::Surprising(why) => cell(why),
            Class::Refused(instead, harmless) | Class::NotYet(instead, harmless) => {
                let harmless: Vec<_> = harmless.iter().map(|value| format!("`{value}`")).collect();
                format!("{} | {}", cell(instead), harmless.join(", "))
            }
        };
        page.push_str(&format!("| `{}` | {cells} |\n", definition.name));
    }
}

/// A bar would end the cell, within code too.
fn cell(text: &str) -> String {
    capitalised(text).replace('|', "\\|")
}

pub(crate) fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// The form of a directive's arguments, for a diagnostic and for the reference.
pub fn describe(form: Form) -> String {
    let count = |least: u8, most: u8| match (least, most) {
        (0, 0) => "none".to_owned(),
        (least, 255) => format!("{least} or more"),
        (least, most) if least == most => least.to_string(),
        (least, most) => format!("{least} to {most}"),
    };
    match form {
        Form::Flag => "`on` or `off`".to_owned(),
        Form::Arguments(least, most) => count(least, most),
        Form::AtLeast(least) => count(least, 255),
        Form::Block(0, 0) | Form::Table(0, 0) => "a block".to_owned(),
        Form::Block(least, most) | Form::Table(least, most) => format!("{}, and a block", count(least, most)),
        Form::Free => "any".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::values;

    #[test]
    fn the_reference_has_every_directive_with_words() {
        let page = reference();
        for definition in table::TABLE {
            let understood = definition.class == Class::Understood;
            let place = if understood {
                format!("\n### `{}`\n\n", definition.name)
            } else {
                format!("\n| `{}` | ", definition.name)
            };
            assert!(page.contains(&place), "{}", definition.name);
            assert_eq!(
                understood,
                !definition.doc.is_empty(),
                "{}: a doc line, or the words of its class",
                definition.name
            );
        }
    }

    #[test]
    fn the_committed_reference_is_the_table() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/directives.md");
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(file, reference()).unwrap();
        }
        let committed = std::fs::read_to_string(file).unwrap_or_default();
        assert!(
            committed == reference(),
            "{file} is old: `BLESS=1 cargo test --lib the_committed_reference` writes it anew"
        );
    }

    #[test]
    fn no_name_has_two_meanings_in_one_context() {
        for definition in table::TABLE {
            let same = named(definition.name);
            let here: Vec<_> = same.iter().filter(|other| other.contexts.meets(definition.contexts)).collect();
            assert_eq!(here.len(), 1, "{}", definition.name);
        }
    }

    #[test]
    fn flags_default_to_on_or_off() {
        for definition in table::TABLE.iter().filter(|definition| definition.form == Form::Flag) {
            if definition.class == Class::Understood {
                assert!(values::flag(definition.default).is_some(), "{}", definition.name);
            }
        }
    }

    #[test]
    fn a_family_is_found_by_its_stem() {
        assert!(matches!(named("fastcgi_param").first().map(|found| found.class), Some(Class::Accepted(_))));
        assert!(matches!(named("fastcgi_pass").first().map(|found| found.class), Some(Class::Refused(..))));
        assert!(named("gadget").is_empty());
    }
}
