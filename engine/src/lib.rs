//! Shardmill's engine: pure state machines for stream event source mappings.
