//! Questions asked of one or many replays: values in, an answer out.
//!
//! Nothing here prints, parses what a person typed, or opens a file by its name.

pub mod bound;
pub mod calibrate;
pub mod claims;
pub mod compare;
pub mod economy;
pub mod explain;
pub mod figures;
pub mod gate;
pub mod habits;
pub mod live;
pub mod measure;
pub mod probe;
pub mod replay;
pub mod rig;
pub mod sample;
pub mod size;
pub mod sweep;
pub mod target;
