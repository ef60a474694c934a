mod batching;
mod retries;
mod rig;
