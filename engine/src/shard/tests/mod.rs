mod batching;
mod bisect;
mod discards;
mod partial;
mod retries;
mod rig;
