//! Dead letters as an operator meets them, and the line that stands still before too many.

mod brake;
mod desk;
pub(crate) mod ground;
mod line;
mod verbs;
