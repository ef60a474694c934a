//! The chance in a machine's decisions.

/// The generator is part of the machine's state: equal machines go on equally.
#[derive(Clone, Debug)]
pub(super) struct Rng(pub(super) fastrand::Rng);

impl PartialEq for Rng {
    fn eq(&self, other: &Self) -> bool {
        self.0.get_seed() == other.0.get_seed()
    }
}
impl Eq for Rng {}
impl std::hash::Hash for Rng {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.get_seed().hash(state);
    }
}
