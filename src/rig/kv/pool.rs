//! What a scheduler of blocks asks of its pool.
//!
//! A trait so that the tests can drive the same scheduler with a pool that is too simple to be wrong: every block on its
//! own, found by the hash of all tokens up to its end.

use crate::call::Call;
use crate::trace::content::Content;
use std::fmt::Debug;

/// A pool of equal blocks with prefix reuse and recurrent states.
pub trait Pool {
    /// The blocks a request would hold, from the start of its prompt.
    type Path: Clone + Debug;
    /// What a request holds of the pool.
    type Holding: Default + Debug;
    /// A recurrent state that a request holds.
    type State: Copy + PartialEq + Debug;

    /// Returns a pool of `capacity` blocks; without `caching` released blocks lose their content at once.
    ///
    /// `state_blocks` is what one recurrent state occupies; 0 for models that have none.
    fn new(capacity: u64, caching: bool, state_blocks: u64) -> Self;

    /// Returns the path of a call's prompt and, where a later prompt may continue it, its answer.
    fn path(call: &Call, content: &Content, block: u64) -> Self::Path;

    /// Returns how many blocks there are.
    fn capacity(&self) -> u64;

    /// Returns how many blocks nobody holds.
    fn free(&self) -> u64;

    /// Returns how many blocks lost their content to make room, ever.
    fn evicted(&self) -> u64;

    /// Returns how many leading blocks of `path` are resident, at most `limit`, and how many of those nobody holds.
    fn look_up(&self, path: &Self::Path, limit: u64) -> (u64, u64);

    /// Takes hold of the leading `hit` blocks of `path`, which [`Pool::look_up`] found.
    fn take_hit(&mut self, path: &Self::Path, hit: u64) -> Self::Holding;

    /// Returns how many blocks a holding has.
    fn held(holding: &Self::Holding) -> u64;

    /// Grows a holding to `blocks` blocks, evicting what was released longest ago.
    ///
    /// # Panics
    /// When there are not enough free blocks; ask [`Pool::can_grow`] first.
    fn grow(&mut self, holding: &mut Self::Holding, blocks: u64);

    /// Registers the leading `full` blocks of a holding under their content, so that others find them.
    fn register(&mut self, path: &Self::Path, holding: &mut Self::Holding, full: u64);

    /// Lets go of everything; blocks with content can be found until they are evicted.
    fn release(&mut self, path: &Self::Path, holding: Self::Holding);

    /// Returns the name of the state after `block` of `path`.
    fn state_at(path: &Self::Path, block: u64) -> Self::State;

    /// Returns the deepest block within the leading `limit` of `path` after which a recurrent state is kept, or 0.
    fn look_up_state(&self, path: &Self::Path, limit: u64) -> u64;

    /// Takes hold of the state kept after `block` of `path`.
    fn take_state(&mut self, path: &Self::Path, block: u64) -> Self::State;

    /// Keeps a state after `block` of `path`, or takes hold of the one that is there; nothing when there is no room
    /// or no name for it.
    fn keep_state(&mut self, path: &Self::Path, block: u64) -> Option<Self::State>;

    /// Lets go of a state; it can be found until it is evicted.
    fn release_state(&mut self, state: Self::State);

    /// Asserts that what the pool counts agrees with what it holds.
    fn check(&self);

    /// Returns whether `holding` can grow to `blocks`.
    fn can_grow(&self, holding: &Self::Holding, blocks: u64) -> bool {
        blocks.saturating_sub(Self::held(holding)) <= self.free()
    }
}
