//! Tables of decisions in files.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// A column with all its values.
pub(crate) type Column = (&'static str, &'static [&'static str]);

/// A table in `data/`.
pub(crate) struct Table<'a> {
    pub(crate) file: &'static str,
    pub(crate) columns: &'a [Column],
}

impl Table<'_> {
    /// Compares every row of the file with the code, and every combination with the file.
    pub(crate) fn check(&self, decide: impl Fn(&[&'static str]) -> String) {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(self.file);
        if std::env::var_os("BOS_GOLDEN_WRITE").is_some() {
            std::fs::write(&path, self.render(&decide)).unwrap();
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let mut covered: BTreeMap<Vec<&'static str>, usize> = BTreeMap::new();
        let mut wrong = Vec::new();
        for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.starts_with('#') && !line.is_empty()) {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            assert_eq!(cells.len(), self.columns.len() + 1, "{} line {number}", self.file);
            for combination in self.combinations(&cells, number) {
                let said = decide(&combination);
                if said != cells[self.columns.len()] {
                    wrong.push(format!("line {number}: {combination:?}: the file says {:?}, the code {said:?}", cells[self.columns.len()]));
                }
                *covered.entry(combination).or_default() += 1;
            }
        }
        assert!(wrong.is_empty(), "{}:\n{}", self.file, wrong.join("\n"));
        let all: usize = self.columns.iter().map(|(_, values)| values.len()).product();
        let twice: Vec<_> = covered.iter().filter(|(_, times)| **times > 1).collect();
        assert!(twice.is_empty(), "{}: said twice: {twice:?}", self.file);
        assert_eq!(covered.len(), all, "{}: combinations are missing", self.file);
    }

    /// All combinations that one row of cells stands for.
    fn combinations(&self, cells: &[&str], number: usize) -> Vec<Vec<&'static str>> {
        let mut all: Vec<Vec<&'static str>> = vec![Vec::new()];
        for ((name, values), cell) in self.columns.iter().zip(cells) {
            let chosen: Vec<&'static str> =
                values.iter().copied().filter(|value| *cell == "*" || cell.split(" / ").any(|choice| choice == *value)).collect();
            assert!(!chosen.is_empty(), "{} line {number}: {cell:?} is no value of {name}", self.file);
            all = all.iter().flat_map(|head| chosen.iter().map(move |value| [head.as_slice(), &[*value]].concat())).collect();
        }
        all
    }

    /// The file as the code would have it, with rows that differ in one column only made one.
    fn render(&self, decide: impl Fn(&[&'static str]) -> String) -> String {
        let stars = vec!["*"; self.columns.len()];
        let mut rows: Vec<(Vec<Vec<&'static str>>, String)> =
            self.combinations(&stars, 0).into_iter().map(|row| (row.iter().map(|value| vec![*value]).collect(), decide(&row))).collect();
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
        let cell = |column: usize, values: &[&str]| {
            if values.len() == self.columns[column].1.len() && values.len() > 1 { "*".to_owned() } else { values.join(" / ") }
        };
        let lines: Vec<Vec<String>> = rows
            .iter()
            .map(|(row, decision)| row.iter().enumerate().map(|(column, values)| cell(column, values)).chain([decision.clone()]).collect())
            .collect();
        let header: Vec<String> = self.columns.iter().map(|(name, _)| (*name).to_owned()).chain(["decision".to_owned()]).collect();
        let mut text = format!("# {}\n", header.join(" | "));
        for line in lines {
            text.push_str(&line.join(" | "));
            text.push('\n');
        }
        text
    }
}
