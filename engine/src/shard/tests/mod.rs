mod batching;
mod bisect;
mod discards;
mod partial;
mod reading;
mod retries;
mod rig;
mod strays;
