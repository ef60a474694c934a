//! Examples: each runs on a laptop without an AWS account.
