//! Names of things inside one replay: small integers that cannot be mixed up.

/// Defines an index newtype.
macro_rules! id {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name(pub u32);

        impl $name {
            /// Returns the position this id has in its list.
            pub fn index(self) -> usize {
                self.0 as usize
            }
        }
    )*};
}

id! {
    /// One replay of a session.
    RunId,
    /// One of the N places in which runs are under way at the same time.
    LaneId,
    /// One conversation of one run (main thread or sub-agent), unique within a replay.
    ThreadId,
    /// One request to the model, unique within a replay.
    CallId,
    /// A stretch of content in the tree of everything that was recorded.
    NodeId,
}
