//! End-to-end tests against real emulators.
