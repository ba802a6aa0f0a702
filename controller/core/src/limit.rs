//! The limit of a Session: which of the template's nodes it acts on.
//!
//! A limit is a list separated by commas and read from left to right: `blue,!x1000c0s3b0n1,&Compute`. An item adds nodes, `!` before it takes
//! them away, `&` keeps only them. An item is `all` (or `*`), a role or role and sub-role of HSM, a partition, a group, a node, or the parent of
//! nodes such as `x1000` or `x1000c0s3`; names that clash are read in this order. Whatever the items name, only nodes of the template are selected.
//!
//! Where this differs from BOS (each is a safety rule or a repaired defect): blanks around items do not count; a name that nobody knows is an error
//! instead of no nodes; so is an exclusion of an empty set; empty items and doubled operators are refused; parents of nodes select
//! what is below them; node names are normalised; and a limit that begins with `!` or `&` starts from all nodes instead of none.

pub(crate) mod names;

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Bound as RangeBound;

use self::names::{Names, Selection};
use crate::resolve::Snapshot;
use crate::xname::Xname;

/// More problems than this are not collected.
const MAX_PROBLEMS: usize = 50;

/// Problems shown in one message.
const SHOWN_PROBLEMS: usize = 5;

/// What an item does with the nodes it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// No prefix: the nodes are added.
    Add,
    /// `&`: only these nodes are kept.
    Keep,
    /// `!`: the nodes are taken away.
    Remove,
}

impl Operator {
    const fn prefix(self) -> &'static str {
        match self {
            Self::Add => "",
            Self::Keep => "&",
            Self::Remove => "!",
        }
    }
}

/// What an item names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// `all` or `*`: every node of the boot set.
    All,
    /// A role, partition, group, node or parent of nodes; which one only the inventory tells.
    Name(String),
}

/// One item of a limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    /// Its place in the list, from 1.
    pub position: usize,
    /// What it does.
    pub operator: Operator,
    /// What it names.
    pub body: Body,
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.operator.prefix())?;
        f.write_str(match &self.body {
            Body::All => "all",
            Body::Name(name) => name,
        })
    }
}

/// A limit whose form is right; whether its names exist only the inventory tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    terms: Vec<Term>,
}

/// What is wrong with an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProblemKind {
    /// The whole limit is empty.
    Empty,
    /// There is nothing before, between or after commas.
    EmptyItem,
    /// An operator without a name.
    OperatorAlone,
    /// More than one operator before a name.
    TwoOperators,
    /// A blank inside an item.
    Blank,
    /// A pattern, quote or bracket.
    Pattern,
    /// No role, partition, group or node has this name.
    Unknown,
    /// A node by its number, which is not supported.
    Nid,
    /// An exclusion of a set that has no members.
    EmptyExclusion,
}

impl ProblemKind {
    const fn text(self) -> &'static str {
        match self {
            Self::Empty => "the limit is empty; leave it out to act on all nodes of the template",
            Self::EmptyItem => "is empty; remove the extra comma",
            Self::OperatorAlone => "has an operator but no name",
            Self::TwoOperators => "has two operators; write one ! or one & before a name",
            Self::Blank => "has a blank in it; separate items by commas and write ! before what to exclude",
            Self::Pattern => {
                "has a character that no name has; patterns are not supported, but the parent of nodes, such as x1000 or x1000c0s3, selects all nodes below it"
            }
            Self::Unknown => "is not known to HSM: no role, partition, group or node has this name, and no node is below it",
            Self::Nid => "looks like a NID; nodes are named by xname",
            Self::EmptyExclusion => "excludes a set that has no members, which is more likely an error than a wish",
        }
    }
}

/// One thing that is wrong with a limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitProblem {
    /// The place of the item in the list, from 1; 0 where the whole limit is meant.
    pub position: usize,
    /// The item, cut to 64 characters.
    pub item: String,
    /// What is wrong.
    pub kind: ProblemKind,
    /// What was probably meant.
    pub suggestion: Option<String>,
}

impl LimitProblem {
    pub(crate) fn new(position: usize, item: &str, kind: ProblemKind, suggestion: Option<String>) -> Self {
        Self { position, item: item.chars().take(64).collect(), kind, suggestion }
    }
}

impl fmt::Display for LimitProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.position > 0 {
            write!(f, "item {} ({:?}) ", self.position, self.item)?;
        }
        f.write_str(self.kind.text())?;
        match &self.suggestion {
            Some(suggestion) => write!(f, " (did you mean {suggestion:?}?)"),
            None => Ok(()),
        }
    }
}

/// Everything that is wrong with a limit, in the order of its items.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitError {
    /// At least one problem; the first 50 are kept.
    pub problems: Vec<LimitProblem>,
}

impl fmt::Display for LimitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().take(SHOWN_PROBLEMS).enumerate() {
            f.write_str(if index == 0 { "" } else { "; " })?;
            write!(f, "{problem}")?;
        }
        match self.problems.len().saturating_sub(SHOWN_PROBLEMS) {
            0 => Ok(()),
            // Past the bound nobody counted.
            more if self.problems.len() >= MAX_PROBLEMS => write!(f, " (and at least {more} more)"),
            more => write!(f, " (and {more} more)"),
        }
    }
}

impl std::error::Error for LimitError {}

impl Limit {
    /// Reads a limit. Only its form is checked; names are checked when it is bound to an inventory.
    ///
    /// # Errors
    /// When it is empty or an item is malformed; all problems at once.
    pub fn parse(text: &str) -> Result<Self, LimitError> {
        if text.trim().is_empty() {
            return Err(LimitError { problems: vec![LimitProblem::new(0, text, ProblemKind::Empty, None)] });
        }
        let mut terms = Vec::new();
        let mut problems = Vec::new();
        for (index, item) in text.split(',').enumerate() {
            match parse_term(index + 1, item.trim()) {
                Ok(term) => terms.push(term),
                Err(problem) if problems.len() < MAX_PROBLEMS => problems.push(problem),
                Err(_) => {}
            }
        }
        if problems.is_empty() { Ok(Self { terms }) } else { Err(LimitError { problems }) }
    }

    /// The items in order.
    #[must_use]
    pub fn terms(&self) -> &[Term] {
        &self.terms
    }

    /// Whether the limit begins with `!` or `&` and therefore starts from all nodes of the template.
    #[must_use]
    pub fn starts_from_all(&self) -> bool {
        self.terms.first().is_some_and(|term| term.operator != Operator::Add)
    }

    /// The names that BOS takes for NIDs, for sites that refuse them.
    pub fn nids(&self) -> impl Iterator<Item = &str> {
        self.terms.iter().filter_map(|term| match &term.body {
            Body::Name(name) if looks_like_nid(name) => Some(name.as_str()),
            Body::Name(_) | Body::All => None,
        })
    }

    /// The nodes of `base` that the limit selects, by the names of an inventory that was read completely.
    ///
    /// # Errors
    /// When a name is unknown, or an exclusion names an empty set; all problems at once.
    pub fn select(&self, base: &BTreeSet<Xname>, snapshot: &Snapshot) -> Result<BTreeSet<Xname>, LimitError> {
        let names = Names::new(snapshot).with_listed(base.clone());
        Ok(self.bind(&names)?.apply(base))
    }

    /// Looks every name up in the inventory.
    ///
    /// # Errors
    /// When a name is unknown, or an exclusion names an empty set; all problems at once.
    pub(crate) fn bind<'a>(&self, names: &'a Names<'_>) -> Result<BoundLimit<'a>, LimitError> {
        let mut terms = Vec::with_capacity(self.terms.len());
        let mut problems = Vec::new();
        for term in &self.terms {
            match bind_term(term, names) {
                Ok(selection) => terms.push((term.operator, selection)),
                Err(kind) if problems.len() < MAX_PROBLEMS => {
                    let suggestion = names.suggestion(term, kind);
                    problems.push(LimitProblem::new(term.position, &term.to_string(), kind, suggestion));
                }
                Err(_) => {}
            }
        }
        if problems.is_empty() { Ok(BoundLimit { terms }) } else { Err(LimitError { problems }) }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, term) in self.terms.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            write!(f, "{term}")?;
        }
        Ok(())
    }
}

impl std::str::FromStr for Limit {
    type Err = LimitError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

fn parse_term(position: usize, item: &str) -> Result<Term, LimitProblem> {
    let problem = |kind, suggestion| LimitProblem::new(position, item, kind, suggestion);
    let (operator, name) = match (item.strip_prefix('!'), item.strip_prefix('&')) {
        (Some(rest), _) => (Operator::Remove, rest.trim_start()),
        (None, Some(rest)) => (Operator::Keep, rest.trim_start()),
        (None, None) => (Operator::Add, item),
    };
    if name.is_empty() {
        return Err(problem(if operator == Operator::Add { ProblemKind::EmptyItem } else { ProblemKind::OperatorAlone }, None));
    }
    if name.starts_with(['!', '&']) {
        let bare = name.trim_start_matches(['!', '&', ' ']);
        let meant = item.chars().filter(|c| *c == '!').count() == 1 && !bare.is_empty();
        return Err(problem(ProblemKind::TwoOperators, meant.then(|| format!("!{bare}"))));
    }
    if name == "all" || name == "*" {
        return Ok(Term { position, operator, body: Body::All });
    }
    if name.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(problem(ProblemKind::Blank, meant_by_blank(operator, name)));
    }
    if name.chars().any(|c| !(c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | ':'))) {
        return Err(problem(ProblemKind::Pattern, meant_by_pattern(operator, name)));
    }
    Ok(Term { position, operator, body: Body::Name(name.to_owned()) })
}

/// `not blue` means `!blue`, `blue red` means `blue,red`.
fn meant_by_blank(operator: Operator, name: &str) -> Option<String> {
    let words: Vec<&str> = name.split_whitespace().collect();
    match (operator, words.as_slice()) {
        (Operator::Add, ["not" | "except" | "-", name]) => Some(format!("!{name}")),
        (Operator::Add, several) if several.len() < 5 => Some(several.join(",")),
        (Operator::Add | Operator::Keep | Operator::Remove, _) => None,
    }
}

/// `x1000*` and `x1000c0s*` mean the nodes below `x1000` and `x1000c0`.
fn meant_by_pattern(operator: Operator, name: &str) -> Option<String> {
    let head = name.split(['*', '?', '[', '{']).next()?;
    let parent = head.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let parent = if parent.len() < head.len() || name.contains('*') { parent } else { return None };
    parent_of_nodes(parent).map(|parent| format!("{}{parent}", operator.prefix()))
}

fn bind_term<'a>(term: &Term, names: &'a Names<'_>) -> Result<Selection<'a>, ProblemKind> {
    let name = match &term.body {
        Body::All => return Ok(Selection::All),
        Body::Name(name) => name,
    };
    let unknown = if looks_like_nid(name) { ProblemKind::Nid } else { ProblemKind::Unknown };
    let selection = names.find(name).ok_or(unknown)?;
    if term.operator == Operator::Remove && selection.is_empty() {
        return Err(ProblemKind::EmptyExclusion);
    }
    Ok(selection)
}

/// A limit whose names were all found.
#[derive(Debug)]
pub(crate) struct BoundLimit<'a> {
    terms: Vec<(Operator, Selection<'a>)>,
}

impl BoundLimit<'_> {
    /// The nodes of `base` that the limit selects.
    pub(crate) fn apply(&self, base: &BTreeSet<Xname>) -> BTreeSet<Xname> {
        let nodes: Vec<&Xname> = base.iter().collect();
        let from_all = self.terms.first().is_some_and(|(operator, _)| *operator != Operator::Add);
        let mut chosen = vec![from_all; nodes.len()];
        for (operator, selection) in &self.terms {
            apply_term(*operator, selection, &nodes, &mut chosen);
        }
        nodes.into_iter().zip(chosen).filter(|(_, chosen)| *chosen).map(|(node, _)| node.clone()).collect()
    }
}

fn apply_term(operator: Operator, selection: &Selection<'_>, nodes: &[&Xname], chosen: &mut Vec<bool>) {
    let members = match selection {
        Selection::All => {
            match operator {
                Operator::Add => chosen.fill(true),
                Operator::Keep => {}
                Operator::Remove => chosen.fill(false),
            }
            return;
        }
        Selection::One(node) => std::slice::from_ref(node),
        Selection::Many(members) => members.as_slice(),
    };
    let before = match operator {
        Operator::Keep => std::mem::replace(chosen, vec![false; nodes.len()]),
        Operator::Add | Operator::Remove => Vec::new(),
    };
    for index in members.iter().filter_map(|member| nodes.binary_search(member).ok()) {
        if let Some(slot) = chosen.get_mut(index) {
            *slot = match operator {
                Operator::Add => true,
                Operator::Keep => before.get(index).copied().unwrap_or(false),
                Operator::Remove => false,
            };
        }
    }
}

/// Whether BOS would take this for the number of a node.
#[must_use]
pub fn looks_like_nid(name: &str) -> bool {
    name.get(..3).is_some_and(|head| head.eq_ignore_ascii_case("nid"))
}

/// The normal form of the name of a cabinet, chassis, slot or BMC, the parents of nodes.
pub(crate) fn parent_of_nodes(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    for letter in ['x', 'c', 's', 'b'] {
        if rest.is_empty() && !out.is_empty() {
            break;
        }
        let mut chars = rest.chars();
        if chars.next()?.to_ascii_lowercase() != letter {
            return None;
        }
        rest = chars.as_str();
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at_checked(digits)?;
        if digits == 0 || digits > 9 {
            return None;
        }
        let significant = number.trim_start_matches('0');
        out.push(letter);
        out.push_str(if significant.is_empty() { "0" } else { significant });
        rest = tail;
    }
    rest.is_empty().then_some(out)
}

/// Where the names below a parent begin in a sorted collection.
pub(crate) fn range_from(parent: &str) -> (RangeBound<&str>, RangeBound<&str>) {
    (RangeBound::Included(parent), RangeBound::Unbounded)
}

/// Whether a node is below a parent: `x1` is no parent of `x10c0s0b0n0`.
pub(crate) fn is_below(node: &Xname, parent: &str) -> bool {
    node.as_str().strip_prefix(parent).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_alphabetic()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<(usize, ProblemKind, Option<String>)> {
        Limit::parse(text).unwrap_err().problems.into_iter().map(|p| (p.position, p.kind, p.suggestion)).collect()
    }

    #[test]
    fn reads_operators_and_names() {
        let limit = Limit::parse(" blue , !x1000c0s3b0n1,& Compute,*").unwrap();
        assert_eq!(limit.to_string(), "blue,!x1000c0s3b0n1,&Compute,all");
        assert!(!limit.starts_from_all());
        assert!(Limit::parse("!blue").unwrap().starts_from_all());
        assert_eq!(Limit::parse("all,&nid1,nidgroup").unwrap().nids().collect::<Vec<_>>(), ["nid1", "nidgroup"]);
    }

    #[test]
    fn reports_every_malformed_item_at_once() {
        use ProblemKind as K;
        assert_eq!(problems(""), [(0, K::Empty, None)]);
        assert_eq!(problems(" \t"), [(0, K::Empty, None)]);
        assert_eq!(problems("blue,,!,!!red"), [(2, K::EmptyItem, None), (3, K::OperatorAlone, None), (4, K::TwoOperators, None)]);
        assert_eq!(problems("!&blue,&!red"), [(1, K::TwoOperators, Some("!blue".into())), (2, K::TwoOperators, Some("!red".into()))]);
        assert_eq!(problems("all,not blue"), [(2, K::Blank, Some("!blue".into()))]);
        assert_eq!(problems("blue red"), [(1, K::Blank, Some("blue,red".into()))]);
        assert_eq!(problems("x1000*"), [(1, K::Pattern, Some("x1000".into()))]);
        assert_eq!(problems("!x1000c0s*"), [(1, K::Pattern, Some("!x1000c0".into()))]);
        assert_eq!(problems("bl*"), [(1, K::Pattern, None)]);
    }

    #[test]
    fn messages_name_the_item() {
        assert_eq!(Limit::parse("blue,").unwrap_err().to_string(), r#"item 2 ("") is empty; remove the extra comma"#);
        let many = Limit::parse(&",".repeat(100)).unwrap_err();
        assert_eq!(many.problems.len(), MAX_PROBLEMS);
        assert!(many.to_string().ends_with("(and at least 45 more)"), "{many}");
    }

    #[test]
    fn knows_the_parents_of_nodes() {
        assert_eq!(parent_of_nodes("X1000").as_deref(), Some("x1000"));
        assert_eq!(parent_of_nodes("x1000c0s03b0").as_deref(), Some("x1000c0s3b0"));
        for other in ["", "x", "x1000c", "x1000c0s0b0n0", "c0", "x1000r0", "nid1"] {
            assert_eq!(parent_of_nodes(other), None, "{other}");
        }
        assert!(is_below(&Xname::parse("x1c0s0b0n0").unwrap(), "x1"));
        assert!(!is_below(&Xname::parse("x10c0s0b0n0").unwrap(), "x1"));
    }

    proptest::proptest! {
        #[test]
        fn parsing_never_panics_and_survives_a_round_trip(text in "[a-zA-Z0-9!&*, _.\\[\\]-]{0,60}|\\PC{0,40}") {
            if let Ok(limit) = Limit::parse(&text) {
                proptest::prop_assert_eq!(Limit::parse(&limit.to_string()).unwrap(), limit);
            }
        }
    }
}
