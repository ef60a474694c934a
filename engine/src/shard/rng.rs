//! The machine's source of randomness.

/// The generator is part of the machine's state: equal machines continue identically.
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

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher as _, RandomState};

    use super::*;

    #[test]
    fn generators_are_equal_that_go_on_equally() {
        let of = |seed| Rng(fastrand::Rng::with_seed(seed));
        let state = RandomState::new();
        assert!(of(1) == of(1) && of(1) != of(2));
        assert_eq!(state.hash_one(of(1)), state.hash_one(of(1)));
        assert_ne!(state.hash_one(of(1)), state.hash_one(of(2)));
    }
}
