//! Shardmill: AWS Lambda's stream event source mapping for workers that you run yourself.
