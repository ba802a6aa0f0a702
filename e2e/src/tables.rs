//! The tables of our documentation, for tests that hold them against the programs.

use std::collections::{BTreeMap, BTreeSet};

use clap::{Arg, Command};

/// The rows of all tables below a heading, up to the next one of its level. Heads are left out: rows begin with something in backticks.
#[must_use]
pub fn rows(text: &str, heading: &str) -> Vec<Vec<String>> {
    let level = heading.split(' ').next().unwrap_or_default();
    let next = format!("{level} ");
    let section = text.lines().skip_while(|line| *line != heading).skip(1).take_while(|line| !line.starts_with(&next));
    section.filter(|line| line.starts_with("| `")).map(cells).collect()
}

fn cells(line: &str) -> Vec<String> {
    line.trim().trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
}

/// What is in backticks, in its order.
#[must_use]
pub fn quoted(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The keys that a part of a file of settings knows, from what it says of one that it does not know.
#[must_use]
pub fn known_keys(error: &str) -> BTreeSet<String> {
    quoted(error).into_iter().skip(1).collect()
}

/// A row of a table of settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Its key in the file, as in `hsm.baseUrl`.
    pub key: String,
    /// Its environment variable.
    pub variable: String,
    /// Its default, where the page names it as it is written.
    pub default: Option<String>,
}

/// The settings that a section lists by key, variable, meaning, default and when to change them.
#[must_use]
pub fn settings(text: &str, heading: &str) -> Vec<Setting> {
    let of_row = |row: Vec<String>| {
        let [key, variable, _, default, _]: [String; 5] = row.try_into().ok()?;
        let first = |cell: &str| quoted(cell).into_iter().next();
        let default = first(&default).filter(|_| default.starts_with('`'));
        Some(Setting { key: first(&key)?, variable: first(&variable)?, default })
    };
    rows(text, heading).into_iter().filter_map(of_row).collect()
}

/// What is wrong with settings that a page lists for a program, and which of its flags the page does not list.
#[must_use]
pub fn differences(settings: &[Setting], command: &Command) -> Vec<String> {
    let mut flags: BTreeMap<String, &Arg> = command.get_arguments().filter_map(|arg| Some((arg.get_long()?.to_owned(), arg))).collect();
    let mut wrong = Vec::new();
    for setting in settings {
        let flag = kebab(&setting.key);
        match flags.remove(&flag) {
            Some(arg) => wrong.extend(difference(setting, arg).map(|what| format!("{}: {what}", setting.key))),
            None => wrong.push(format!("{}: there is no --{flag}", setting.key)),
        }
    }
    wrong.extend(flags.into_keys().map(|flag| format!("--{flag} is not listed")));
    wrong
}

fn difference(setting: &Setting, arg: &Arg) -> Option<String> {
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let after = |mark: &str| help.split_once(mark).map(|(_, rest)| rest.split([' ', ',', ';', ']']).next().unwrap_or_default().to_owned());
    let variable = arg.get_env().map(|name| name.to_string_lossy().into_owned()).or_else(|| after("[env: "));
    if variable.as_ref() != Some(&setting.variable) {
        return Some(format!("its variable is {variable:?}, not {}", setting.variable));
    }
    let default = after("Default: ");
    let differs = setting.default.is_some() && setting.default != default;
    differs.then(|| format!("its default is {default:?}, not {:?}", setting.default))
}

/// `s3.accessKey` is `--s3-access-key`.
fn kebab(key: &str) -> String {
    let mut flag = String::new();
    for letter in key.chars() {
        match letter {
            '.' => flag.push('-'),
            upper if upper.is_ascii_uppercase() => flag.extend(['-', upper.to_ascii_lowercase()]),
            other => flag.push(other),
        }
    }
    flag
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "## One\n\n| Key | Variable | Meaning | Default | Change |\n|---|---|---|---|---|\n\
        | `aKey` | `A` | text | `5` | never |\n| `b.c` | `B` | text | none; `x` | never |\n### Deeper\n| `d` |\n## Two\n| `e` |\n";

    fn command(help: &'static str) -> Command {
        let arg = |name: &'static str, help: &'static str| Arg::new(name).long(name).help(help);
        Command::new("p").arg(arg("a-key", help)).arg(arg("b-c", "Default: none [env: B]"))
    }

    #[test]
    fn a_section_ends_with_the_next_of_its_level() {
        let first: Vec<String> = rows(PAGE, "## One").into_iter().filter_map(|row| row.into_iter().next()).collect();
        assert_eq!(first, ["`aKey`", "`b.c`", "`d`"]);
        assert_eq!(settings(PAGE, "## One").len(), 2);
        assert_eq!(known_keys("unknown field `?`, expected one of `a`, `b` at line 1"), BTreeSet::from(["a".to_owned(), "b".to_owned()]));
    }

    #[test]
    fn what_differs_is_named() {
        let listed = settings(PAGE, "## One");
        assert_eq!(differences(&listed, &command("Default: 5 [env: A]")), Vec::<String>::new());
        assert_eq!(differences(&listed, &command("Default: 50 [env: A]")), ["aKey: its default is Some(\"50\"), not Some(\"5\")"]);
        assert_eq!(differences(&listed, &command("Default: 5 [env: AB]")), ["aKey: its variable is Some(\"AB\"), not A"]);
        assert_eq!(differences(&listed[1..], &command("Default: 5 [env: A]")), ["--a-key is not listed"]);
        assert_eq!(differences(&listed, &Command::new("p")).len(), 2);
    }
}
