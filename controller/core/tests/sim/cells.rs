//! The committed list of cells that histories must reach, and of those that they cannot reach, with the reason.
//!
//! A line is `reached STATUS: INPUT INPUT` or `never STATUS STATUS: INPUT INPUT | why`.

use std::collections::BTreeMap;

use super::coverage::{Coverage, Input, Row};

/// Where the counts and the list disagree. Each cell must be in the list once.
pub(crate) fn disagreements(coverage: &Coverage, list: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut listed: BTreeMap<(usize, usize), bool> = BTreeMap::new();
    for line in list.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let Some((reached, cells)) = parse(line) else {
            wrong.push(format!("not understood: {line}"));
            continue;
        };
        for (row, input) in cells {
            if listed.insert((row as usize, input as usize), reached).is_some() {
                wrong.push(format!("{row:?} x {input:?} is listed twice"));
            }
        }
    }
    for row in Row::ALL {
        for input in Input::ALL {
            let count = coverage.count(row, input);
            match listed.get(&(row as usize, input as usize)) {
                Some(true) if count == 0 => wrong.push(format!("{row:?} x {input:?} was not reached")),
                Some(false) if count > 0 => wrong.push(format!("{row:?} x {input:?} was reached {count} times, and is said never to be")),
                None => wrong.push(format!("{row:?} x {input:?} is not listed; it was reached {count} times")),
                Some(_) => {}
            }
        }
    }
    wrong
}

fn parse(line: &str) -> Option<(bool, Vec<(Row, Input)>)> {
    let (line, why) = line.split_once('|').map_or((line, ""), |(line, why)| (line, why.trim()));
    let (head, inputs) = line.split_once(':')?;
    let mut head = head.split_whitespace();
    let reached = match head.next()? {
        "reached" => true,
        "never" if why.ends_with('.') => false,
        _ => return None,
    };
    let rows: Option<Vec<Row>> = head.map(|name| Row::ALL.into_iter().find(|row| format!("{row:?}") == name)).collect();
    let inputs: Option<Vec<Input>> =
        inputs.split_whitespace().map(|name| Input::ALL.into_iter().find(|input| format!("{input:?}") == name)).collect();
    let (rows, inputs) = (rows?, inputs?);
    Some((reached, rows.iter().flat_map(|row| inputs.iter().map(|input| (*row, *input))).collect()))
}
