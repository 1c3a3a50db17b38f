//! A test that can't run on this machine says so, with the reason.

use std::fmt;

/// The reason for which something can't be tried here. Passed up as an error, it makes the test
/// ignored instead of failed.
#[derive(Debug)]
pub struct Skip(pub String);

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skip {}

/// Leaves the test as ignored, with a reason built as by `format!`.
#[macro_export]
macro_rules! skip {
    ($($reason:tt)*) => {
        return Err($crate::skip::Skip(format!($($reason)*)).into())
    };
}
