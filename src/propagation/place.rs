//! Where in which stream a data set is.

/// A place in a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// What the stream is called.
    pub id: String,
    /// Its bytes until there.
    pub offset: u64,
    /// The database that it has selected there.
    pub selected: usize,
}
