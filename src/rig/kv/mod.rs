//! What engines build their caches on. Each piece counts what it holds and never invents or loses a block.

pub mod blocks;
pub mod path;
pub mod pool;
pub mod radix;
pub mod sequences;
pub mod slots;
pub mod tier;

use crate::ids::NodeId;
use crate::trace::content::Content;

/// Returns the deepest of these places, at most `limit`, whose content the prompt that ends in `prompt` begins with.
///
/// A place is a prompt and a position in it; later ones are looked at first, because they are most often the answer.
pub fn deepest_shared(
    places: &[(NodeId, u64)],
    prompt: NodeId,
    limit: u64,
    content: &Content,
) -> u64 {
    let mut deepest = 0;
    for &(other, at) in places.iter().rev() {
        let better = at > deepest && at <= limit;
        if better && content.meet(other, prompt).1.0 >= at {
            deepest = at;
        }
    }
    deepest
}
