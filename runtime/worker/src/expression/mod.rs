//! CEL expressions over exact values. The crate `cel` gives the grammar; the evaluation is ours, because numbers must be exact (decimals, not
//! floats), data is shared and not copied, and what is wrong is told in the author's words, most of it before anything runs.

mod json;
mod time;
mod value;

pub use json::{JsonError, ObjectReader};
pub use value::{Object, Shape, Value};
