//! The routing plan of a build: for each event type, the operators that it moves.
//!
//! The catalogue says `type → (operator, key, condition)`. The plan names operators by their index
//! in the build's list, in sets of bits, so that an event meets only the operators it moves, and
//! twenty operators that it does not move cost nothing.
//!
//! An operator that the catalogue names and this build does not have is left out.

use tidewire_schemas::catalogue::{Catalogue, EventType, Routes};

use crate::derive::input::Input;

/// Which events an operator gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Events {
    /// Those that move it, by the routing plan of the catalogue, and each once per key.
    Moved,
    /// Every event of a lane that ADMIT appended: no fact of DERIVE's own.
    Admitted,
    /// Every event of a lane but copies for other keys.
    Every,
}

/// What the plan must know of an operator.
#[derive(Clone, Copy, Debug)]
pub(super) struct PlannedOperator {
    /// Its name in the catalogue.
    pub(super) name: &'static str,
    pub(super) events: Events,
}

/// The most operators of a build.
const OPERATORS_MAX: usize = 64;

/// Operators by their index in the build's list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct OperatorSet(u64);

impl OperatorSet {
    /// The set of one operator.
    pub(super) fn of(index: usize) -> Self {
        Self(1 << index)
    }

    /// All that are in either.
    pub(super) fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether there are none.
    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The indices, ascending.
    pub(super) fn iter(self) -> impl Iterator<Item = usize> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            let next = (left != 0).then(|| left.trailing_zeros() as usize);
            left &= left.wrapping_sub(1);
            next
        })
    }
}

/// The operators of each type, and those that the catalogue does not decide about.
#[derive(Debug)]
pub(super) struct OperatorPlan {
    /// In the order of the build's list.
    operators: Vec<PlannedOperator>,
    /// Those that get every event.
    pub(super) every: OperatorSet,
    /// Those that get every event which ADMIT appended.
    pub(super) admitted: OperatorSet,
    /// By the type's index: its operators, if every event moves the same ones for its own key.
    fixed: Vec<Option<OperatorSet>>,
}

/// Where an event goes.
#[derive(Debug, Default)]
pub(super) struct Destinations {
    /// The operators it moves for its own key.
    pub(super) own: OperatorSet,
    /// The operators it moves for other keys.
    pub(super) others: Vec<ForKey>,
    /// Elements of lists that gave no key.
    pub(super) skipped: usize,
}

/// The operators that an event moves for one other key.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ForKey {
    pub(super) key: String,
    pub(super) operators: OperatorSet,
}

impl Destinations {
    /// Whether it concerns another key.
    pub(super) fn is_elsewhere(&self) -> bool {
        !self.others.is_empty() || self.skipped > 0
    }
}

impl OperatorPlan {
    /// The plan of these operators. Panics if an operator contradicts the catalogue: that is a bug
    /// of the build.
    pub(super) fn of(catalogue: &Catalogue, operators: Vec<PlannedOperator>) -> Self {
        assert!(operators.len() <= OPERATORS_MAX, "a build has at most {OPERATORS_MAX} operators");
        for PlannedOperator { name, .. } in operators.iter().filter(|o| o.events == Events::Moved) {
            let known = catalogue.operators().iter().find(|spec| spec.name == *name);
            let is_moved = known.is_some_and(|spec| !spec.all && spec.stage == "derive");
            assert!(is_moved, "no type of the catalogue can move operator {name}");
        }
        let that = |events| {
            let chosen = operators.iter().enumerate().filter(|(_, o)| o.events == events);
            chosen.fold(OperatorSet::default(), |set, (n, _)| set.with(OperatorSet::of(n)))
        };
        let (every, admitted) = (that(Events::Every), that(Events::Admitted));
        let mut plan = Self { operators, every, admitted, fixed: Vec::new() };
        plan.fixed = catalogue.types().iter().map(|event_type| plan.fixed_of(event_type)).collect();
        plan
    }

    /// The operators of a type, if every event of it moves the same ones for its own key.
    fn fixed_of(&self, event_type: &EventType) -> Option<OperatorSet> {
        let own = event_type.moves.iter().filter_map(|entry| self.index(&entry.operator));
        let set = own.fold(OperatorSet::default(), |set, n| set.with(OperatorSet::of(n)));
        // What an operator emitted never moves it again, which only evaluation knows.
        let emits_itself = |name: &String| event_type.moves.iter().any(|m| m.operator == *name);
        let is_fixed =
            event_type.moves_own_key_only() && !event_type.emitted_by.iter().any(emits_itself);
        (set.is_empty() || is_fixed).then_some(set)
    }

    /// Where an event of this type goes. `routes` is memory that is used again.
    pub(super) fn destinations(
        &self,
        event_type: &EventType,
        input: &Input<'_>,
        routes: &mut Routes,
    ) -> Destinations {
        if let Some(own) = self.fixed[event_type.index] {
            return Destinations { own, ..Destinations::default() };
        }
        event_type.routes(input, input.fields(), routes);
        let mut to = Destinations { skipped: routes.skipped(), ..Destinations::default() };
        for run in routes.iter(event_type) {
            let Some(index) = self.index(run.operator) else { continue };
            let set = OperatorSet::of(index);
            let Some(key) = run.other_key else {
                to.own = to.own.with(set);
                continue;
            };
            match to.others.iter_mut().find(|other| other.key == key) {
                Some(other) => other.operators = other.operators.with(set),
                None => to.others.push(ForKey { key: key.to_owned(), operators: set }),
            }
        }
        to
    }

    fn index(&self, name: &str) -> Option<usize> {
        self.operators.iter().position(|o| o.events == Events::Moved && o.name == name)
    }
}
