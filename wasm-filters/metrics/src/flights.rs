//! What is known of a request in flight: when it began, and the bytes of its bodies so far.

/// One request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flight {
    /// The time of its beginning, in nanoseconds.
    pub began: u64,
    /// Bytes of its body.
    pub received: u64,
    /// Bytes of the answer's body.
    pub sent: u64,
}
