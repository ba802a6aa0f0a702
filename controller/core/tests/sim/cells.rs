//! The committed list of cells that histories must reach, and of those that they cannot reach, with the reason.
//!
//! A line is `reached STATUS STATUS: INPUT INPUT`, `seldom ...` for what only a long run must reach, or, with the reason,
//! `never ...: ... | why.` for what cannot happen, and `chance ...: ... | what it takes.` for a coincidence that nobody waits for.

use std::collections::BTreeMap;

use super::coverage::{Coverage, Input, Row};

/// What the list says of a cell.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Say {
    Reached,
    Seldom,
    Never,
    Chance,
}

/// Where the counts and the list disagree. Each cell must be in the list once. `long`: after so many histories that what is seldom
/// must have happened too.
pub(crate) fn disagreements(coverage: &Coverage, list: &str, long: bool) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut listed: BTreeMap<(usize, usize), Say> = BTreeMap::new();
    for line in list.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let Some((say, cells)) = parse(line) else {
            wrong.push(format!("not understood: {line}"));
            continue;
        };
        for (row, input) in cells {
            if listed.insert((row as usize, input as usize), say).is_some() {
                wrong.push(format!("{row:?} x {input:?} is listed twice"));
            }
        }
    }
    for row in Row::ALL {
        for input in Input::ALL {
            let count = coverage.count(row, input);
            match listed.get(&(row as usize, input as usize)) {
                Some(Say::Reached) if count == 0 => wrong.push(format!("{row:?} x {input:?} was not reached")),
                Some(Say::Seldom) if count == 0 && long => wrong.push(format!("{row:?} x {input:?} was not reached")),
                Some(Say::Never) if count > 0 => {
                    wrong.push(format!("{row:?} x {input:?} was reached {count} times, and is said never to be"))
                }
                None => wrong.push(format!("{row:?} x {input:?} is not listed; it was reached {count} times")),
                Some(Say::Reached | Say::Seldom | Say::Never | Say::Chance) => {}
            }
        }
    }
    wrong
}

fn parse(line: &str) -> Option<(Say, Vec<(Row, Input)>)> {
    let (line, why) = line.split_once('|').map_or((line, ""), |(line, why)| (line, why.trim()));
    let (head, inputs) = line.split_once(':')?;
    let mut head = head.split_whitespace();
    let say = match head.next()? {
        "reached" => Say::Reached,
        "seldom" => Say::Seldom,
        "never" if why.ends_with('.') => Say::Never,
        "chance" if why.ends_with('.') => Say::Chance,
        _ => return None,
    };
    let rows: Option<Vec<Row>> = head.map(|name| Row::ALL.into_iter().find(|row| format!("{row:?}") == name)).collect();
    let inputs: Option<Vec<Input>> =
        inputs.split_whitespace().map(|name| Input::ALL.into_iter().find(|input| format!("{input:?}") == name)).collect();
    let (rows, inputs) = (rows?, inputs?);
    Some((say, rows.iter().flat_map(|row| inputs.iter().map(|input| (*row, *input))).collect()))
}
