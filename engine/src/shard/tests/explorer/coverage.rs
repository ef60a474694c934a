//! What explorations reached: every action with every outcome under every feature, and a crash at each point.

use std::collections::BTreeSet;
use std::fmt;

use super::Case;
use super::state::UnderWay;

/// What may be switched on, in any combination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Feature {
    Bisect,
    Partial,
    Age,
    Retries,
    Lanes,
    Window,
    Filter,
}

pub(super) const FEATURES: [Feature; 7] = [
    Feature::Bisect,
    Feature::Partial,
    Feature::Age,
    Feature::Retries,
    Feature::Lanes,
    Feature::Window,
    Feature::Filter,
];

/// What is interrupted by a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Point {
    Opening,
    Reading,
    Reserving,
    Invoking,
    InvokingFinally,
    Delivering,
    DeliveringFinal,
    Storing,
}

impl From<&UnderWay> for Point {
    fn from(under_way: &UnderWay) -> Self {
        match under_way {
            UnderWay::Open => Self::Opening,
            UnderWay::Fetch(_) => Self::Reading,
            UnderWay::Reserve(_) => Self::Reserving,
            UnderWay::Invoke(_, records, _) if records.is_empty() => Self::InvokingFinally,
            UnderWay::Invoke(..) => Self::Invoking,
            UnderWay::Discard(_, given) if given.final_of.is_some() => Self::DeliveringFinal,
            UnderWay::Discard(..) => Self::Delivering,
            UnderWay::Store(_) => Self::Storing,
        }
    }
}

/// An action and how it ended, or what happened unasked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    Opened,
    PageRead,
    EndRead,
    Filtered,
    ReadFailed,
    Succeeded,
    Failed,
    Cut,
    NoProgress,
    Unknown,
    NotReached,
    TooLarge,
    NoState,
    StateTooLarge,
    FinalSucceeded,
    FinalFailed,
    FinalNotReached,
    SpentDelivered,
    OldDelivered,
    FinalDelivered,
    Refused,
    RefusedAndDropped,
    Stored,
    EndStored,
    StoreFailed,
    Stop,
    Time,
    Crash(Option<Point>),
}

pub(super) const STEPS: [Step; 35] = [
    Step::Opened,
    Step::PageRead,
    Step::EndRead,
    Step::Filtered,
    Step::ReadFailed,
    Step::Succeeded,
    Step::Failed,
    Step::Cut,
    Step::NoProgress,
    Step::Unknown,
    Step::NotReached,
    Step::TooLarge,
    Step::NoState,
    Step::StateTooLarge,
    Step::FinalSucceeded,
    Step::FinalFailed,
    Step::FinalNotReached,
    Step::SpentDelivered,
    Step::OldDelivered,
    Step::FinalDelivered,
    Step::Refused,
    Step::RefusedAndDropped,
    Step::Stored,
    Step::EndStored,
    Step::StoreFailed,
    Step::Stop,
    Step::Time,
    Step::Crash(None),
    Step::Crash(Some(Point::Opening)),
    Step::Crash(Some(Point::Reading)),
    Step::Crash(Some(Point::Invoking)),
    Step::Crash(Some(Point::InvokingFinally)),
    Step::Crash(Some(Point::Delivering)),
    Step::Crash(Some(Point::DeliveringFinal)),
    Step::Crash(Some(Point::Storing)),
];

impl Step {
    pub(super) const fn of_a_final_call(self) -> Self {
        match self {
            Self::Succeeded => Self::FinalSucceeded,
            Self::NotReached => Self::FinalNotReached,
            _ => Self::FinalFailed,
        }
    }

    /// Whether it can happen at all under this feature: filters and lanes exclude windows (R71).
    fn is_possible_with(self, feature: Feature) -> bool {
        let of_windows = matches!(
            self,
            Self::NoState
                | Self::StateTooLarge
                | Self::FinalSucceeded
                | Self::FinalFailed
                | Self::FinalNotReached
                | Self::FinalDelivered
                | Self::Crash(Some(Point::InvokingFinally | Point::DeliveringFinal))
        );
        match feature {
            Feature::Lanes | Feature::Filter => !of_windows,
            Feature::Window => self != Self::Filtered,
            _ => true,
        }
    }
}

/// Which steps were reached under which features.
#[derive(Clone, Debug, Default)]
pub(super) struct Coverage(BTreeSet<(Step, Feature)>);

impl Coverage {
    pub(super) fn reach(&mut self, case: &Case, step: Step) {
        self.0.extend(case.features.iter().map(|feature| (step, *feature)));
    }

    pub(super) fn merge(&mut self, more: Self) {
        self.0.extend(more.0);
    }

    /// What can be reached and was not.
    pub(super) fn missing(&self) -> Vec<(Step, Feature)> {
        let all = STEPS.iter().flat_map(|step| FEATURES.iter().map(|feature| (*step, *feature)));
        all.filter(|(step, feature)| step.is_possible_with(*feature) && !self.0.contains(&(*step, *feature)))
            .collect()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:32}{}", "", FEATURES.map(|feature| format!("{feature:?}")).join(" "))?;
        for step in STEPS {
            write!(f, "{:32}", format!("{step:?}"))?;
            for feature in FEATURES {
                let mark = match self.0.contains(&(step, feature)) {
                    true => 'x',
                    false if step.is_possible_with(feature) => '-',
                    false => ' ',
                };
                let width = format!("{feature:?}").len();
                write!(f, "{mark:<width$} ")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
