//! The program from outside: what users type, what they get, and what they read when it goes wrong.

mod analyze;
mod classify;
mod cluster;
mod cluster_input;
mod data;
mod demo;
mod interrupts;
mod merge;
mod npy;
mod outputs;
mod place;
mod regress;
mod sample;
mod shards;
mod usage;
