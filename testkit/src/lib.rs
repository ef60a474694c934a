//! Fakes of the services and a fault proxy, for tests.
