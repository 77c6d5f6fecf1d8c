//! What lies in host memory: the cache's second tier, and the layers that a device has no room for.

use super::{Cost, Parts, RigError, Values, devices};
use crate::known::Trust;
use crate::rig::cost::Coefficients;
use crate::rig::engine::vllm;
use crate::rig::fine::Fine;
use crate::rig::memory::Placed;
use crate::rig::roofline;

/// The share of a link's rate that copies reach: 45 to 55 of 64 GB/s, 20 to 25 of 32; an estimate.
const LINK_EFFICIENCY: f64 = 0.75;
/// What a load takes however small, from the look-up to the notice that it is there; an estimate.
const LOAD_LATENCY_S: f64 = 2e-4;
/// What a desktop's processor reads of its memory, two channels of DDR5; an estimate.
const HOST_BYTES_PER_SEC: f64 = 8e10;

/// Returns the tier of vLLM's cache in host memory, of the size that was asked for.
pub(super) fn offload(
    parts: &Parts<'_>,
    values: &Values,
    settings: &vllm::Settings,
    cost: &Coefficients,
) -> Result<vllm::Offload, RigError> {
    let gibibytes = values.float("kv_offloading_size");
    if gibibytes <= 0.0 {
        return Ok(vllm::Offload::default());
    }
    let refused = |why| RigError::NoTier {
        hardware: parts.hardware.title.clone(),
        why,
    };
    if parts.hardware.unified_memory {
        return Err(refused("the engine's memory is the host's"));
    }
    let Some(link) = &parts.hardware.host_link else {
        return Err(refused("its link to host memory is not in the catalogue"));
    };
    let model = parts.model;
    let block_bytes = settings.block_size as f64 * model.kv_bytes_per_token.value.as_f64();
    let devices = f64::from(devices(parts, values));
    let rate = link.value.0 * LINK_EFFICIENCY * devices;
    Ok(vllm::Offload {
        blocks: (gibibytes * (1u64 << 30) as f64 / block_bytes.max(1.0)) as u64,
        latency: Fine::from_secs(LOAD_LATENCY_S),
        block_time: Fine::from_secs(block_bytes / rate),
        compute_time: Fine::from_secs(cost.token_s * settings.block_size as f64),
    })
}

/// Lets steps read from host memory what the device has no room for.
pub(super) fn spill(parts: &Parts<'_>, placed: Placed, cost: &mut Cost) {
    if placed.layers == placed.of {
        return;
    }
    let link = parts.hardware.host_link.as_ref();
    let link = link.map_or(f64::MAX, |link| link.value.0 * LINK_EFFICIENCY);
    let rate = HOST_BYTES_PER_SEC.min(link);
    cost.coefficients = roofline::spilled(&cost.coefficients, parts.model, placed.spilled(), rate);
    (cost.trust, cost.interval) = (Trust::Estimate, None);
    cost.known_by = format!(
        "{} of {} layers spill to host memory, read at {:.0} GB/s (an estimate); the others: {}",
        placed.of - placed.layers,
        placed.of,
        rate / 1e9,
        cost.known_by
    );
}
