//! Tables of decisions in files.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// A column with all its values.
pub(crate) type Column = (&'static str, &'static [&'static str]);

/// A table in `data/`.
pub(crate) struct Table<'a> {
    pub(crate) file: &'static str,
    pub(crate) columns: &'a [Column],
    /// Heads of the cells after the columns: what is decided.
    pub(crate) says: &'static str,
}

impl Table<'_> {
    /// Compares every row of the file with the code, and every combination with the file. A combination that cannot be has no decision.
    pub(crate) fn check(&self, decide: impl Fn(&[&'static str]) -> Option<String>) {
        let path = PathBuf::from("tests/data").join(self.file);
        if std::env::var_os("BOS_GOLDEN_WRITE").is_some() {
            std::fs::write(&path, self.render(&decide)).unwrap();
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let mut covered: BTreeMap<Vec<&'static str>, usize> = BTreeMap::new();
        let mut wrong = Vec::new();
        for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.starts_with('#') && !line.is_empty()) {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            assert_eq!(cells.len(), self.columns.len() + self.says.split('|').count(), "{} line {number}", self.file);
            let written = cells[self.columns.len()..].join(" | ");
            for combination in self.combinations(&cells, number) {
                let Some(said) = decide(&combination) else { continue };
                if said != written {
                    wrong.push(format!("line {number}: {combination:?}: the file says {written:?}, the code {said:?}"));
                }
                *covered.entry(combination).or_default() += 1;
            }
        }
        assert!(wrong.is_empty(), "{}:\n{}", self.file, wrong.join("\n"));
        let all = self.combinations(&vec!["*"; self.columns.len()], 0).iter().filter(|row| decide(row).is_some()).count();
        let twice: Vec<_> = covered.iter().filter(|(_, times)| **times > 1).collect();
        assert!(twice.is_empty(), "{}: said twice: {twice:?}", self.file);
        assert_eq!(covered.len(), all, "{}: combinations are missing", self.file);
    }

    /// All combinations that one row of cells stands for.
    fn combinations(&self, cells: &[&str], number: usize) -> Vec<Vec<&'static str>> {
        let chosen: Vec<Vec<&'static str>> = self
            .columns
            .iter()
            .zip(cells)
            .map(|((name, values), cell)| {
                let chosen: Vec<&'static str> =
                    values.iter().copied().filter(|value| *cell == "*" || cell.split(" / ").any(|choice| choice == *value)).collect();
                assert!(!chosen.is_empty(), "{} line {number}: {cell:?} is no value of {name}", self.file);
                chosen
            })
            .collect();
        product(&chosen)
    }

    /// The file as the code would have it, with rows that differ in one column only made one.
    fn render(&self, decide: impl Fn(&[&'static str]) -> Option<String>) -> String {
        let stars = vec!["*"; self.columns.len()];
        let mut rows: Vec<(Vec<Vec<&'static str>>, String)> = self
            .combinations(&stars, 0)
            .into_iter()
            .filter_map(|row| Some((row.iter().map(|value| vec![*value]).collect(), decide(&row)?)))
            .collect();
        // The first column stays apart: it orders the file.
        for column in (1..self.columns.len()).rev() {
            let mut merged: Vec<(Vec<Vec<&'static str>>, String)> = Vec::new();
            for (row, decision) in rows {
                let same = merged
                    .iter_mut()
                    .find(|(other, said)| *said == decision && (0..row.len()).all(|index| index == column || other[index] == row[index]));
                match same {
                    Some((other, _)) => other[column].extend(&row[column]),
                    None => merged.push((row, decision)),
                }
            }
            rows = merged;
        }
        for (row, _) in &mut rows {
            self.widen(row, &decide);
        }
        let cell = |column: usize, values: &[&str]| {
            if values.len() == self.columns[column].1.len() && values.len() > 1 { "*".to_owned() } else { values.join(" / ") }
        };
        let lines: Vec<Vec<String>> = rows
            .iter()
            .map(|(row, decision)| row.iter().enumerate().map(|(column, values)| cell(column, values)).chain([decision.clone()]).collect())
            .collect();
        let header: Vec<String> = self.columns.iter().map(|(name, _)| (*name).to_owned()).chain([self.says.to_owned()]).collect();
        let mut text = format!("# {}\n", header.join(" | "));
        for line in lines {
            text.push_str(&line.join(" | "));
            text.push('\n');
        }
        text
    }

    /// Lets a row stand for every value of a column where those it leaves out cannot be.
    fn widen(&self, row: &mut [Vec<&'static str>], decide: impl Fn(&[&'static str]) -> Option<String>) {
        for column in (1..row.len()).rev() {
            let all = self.columns[column].1.to_vec();
            let added = all.iter().filter(|value| !row[column].contains(value)).copied().collect();
            let taken = std::mem::replace(&mut row[column], added);
            let impossible = product(row).iter().all(|combination| decide(combination).is_none());
            row[column] = if impossible { all } else { taken };
        }
    }
}

/// Every way to take one value of each column.
fn product(columns: &[Vec<&'static str>]) -> Vec<Vec<&'static str>> {
    columns.iter().fold(vec![Vec::new()], |all, values| {
        all.iter().flat_map(|head: &Vec<&'static str>| values.iter().map(move |value| [head.as_slice(), &[*value]].concat())).collect()
    })
}
