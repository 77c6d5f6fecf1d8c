//! What lies in host memory: the cache's second tier, and the layers that a device has no room for.

use super::devices::sharing;
use super::{Cost, Parts, RigError, Values};
use crate::known::Trust;
use crate::rig::cost::Coefficients;
use crate::rig::fine::Fine;
use crate::rig::kv::tier::Offload;
use crate::rig::memory::Placed;
use crate::rig::roofline;

/// The share of a link's rate that copies reach: 45 to 55 of 64 GB/s, 20 to 25 of 32; an estimate.
pub(super) const LINK_EFFICIENCY: f64 = 0.75;
/// What a load takes however small, from the look-up to the notice that it is there; an estimate.
const LOAD_LATENCY_S: f64 = 2e-4;
/// What a desktop's processor reads of its memory, two channels of DDR5; an estimate.
const HOST_BYTES_PER_SEC: f64 = 8e10;

/// The setting of the rig that says how fast its disk is read, in GB/s.
pub(super) const DISK: &str = "rig.disk_bandwidth";
/// What a fast disk is read at unless [`DISK`] says otherwise: the lower middle of 3 to 12 GB/s; an estimate.
const DISK_GB_PER_SEC: f64 = 5.0;
/// What a load from disk takes on top of all others, however small; an estimate.
const DISK_LATENCY_S: f64 = 1e-3;
/// Pages of a store on disk that has no limit: more than anybody fills.
const UNLIMITED: u64 = 1 << 30;
const GIB: f64 = (1u64 << 30) as f64;

/// The units in which a tier keeps and moves what the device's cache keeps.
struct Units<'p> {
    parts: &'p Parts<'p>,
    /// Bytes of a block.
    bytes: f64,
    /// The speeds, and room for nothing.
    empty: Offload,
}

impl<'p> Units<'p> {
    /// Returns the units of blocks of so many tokens; `key` is what asked for the tier.
    fn new(
        parts: &'p Parts<'p>,
        values: &Values,
        tokens: u64,
        cost: &Coefficients,
        (key, disk): (&'static str, Option<f64>),
    ) -> Result<Units<'p>, RigError> {
        let refused = |why: &str| refused(key, &parts.hardware.title, why);
        if parts.hardware.unified_memory {
            return Err(refused("the engine's memory is the host's"));
        }
        let Some(link) = &parts.hardware.host_link else {
            return Err(refused("its link to host memory is not in the catalogue"));
        };
        let bytes = tokens as f64 * parts.model.kv_bytes_per_token.value.as_f64();
        let link = link.value.0 * LINK_EFFICIENCY * f64::from(sharing(parts, values));
        let disk = 1e9 * disk.unwrap_or(DISK_GB_PER_SEC);
        let empty = Offload {
            latency: Fine::from_secs(LOAD_LATENCY_S),
            block_time: Fine::from_secs(bytes / link),
            compute_time: Fine::from_secs(cost.token_s * tokens as f64),
            disk_latency: Fine::from_secs(DISK_LATENCY_S),
            // From the disk through host memory, both at once: the slower of the two sets the pace.
            disk_block_time: Fine::from_secs(bytes / disk.min(link)),
            ..Offload::default()
        };
        Ok(Units {
            parts,
            bytes,
            empty,
        })
    }

    fn blocks(&self, bytes: f64) -> u64 {
        (bytes / self.bytes.max(1.0)) as u64
    }

    /// Refuses models with recurrent layers, whose states these tiers are not known to keep.
    fn without_states(&self, key: &'static str) -> Result<(), RigError> {
        if self.parts.model.hybrid() {
            let why = "what becomes of its recurrent states there is not modelled";
            return Err(refused(key, &self.parts.model.name, why));
        }
        Ok(())
    }
}

fn refused(key: &'static str, of: &str, why: &str) -> RigError {
    RigError::NoTier {
        key,
        of: of.to_string(),
        why: why.to_string(),
    }
}

/// Returns the tiers of vLLM's cache outside of the device: its own in host memory, or that of `LMCache`.
pub(super) fn vllm(
    parts: &Parts<'_>,
    values: &Values,
    block: u64,
    cost: &Coefficients,
    disk: Option<f64>,
) -> Result<Offload, RigError> {
    let size = values.float("kv_offloading_size");
    let by_size = values.word("kv_offloading_backend") == "lmcache" && size > 0.0;
    let connector = values.word("kv_transfer_config");
    if !connector.is_empty() && !connector.contains("LMCacheConnector") {
        return Err(refused(
            "kv_transfer_config",
            connector,
            "of the connectors only LMCacheConnectorV1 is modelled",
        ));
    }
    if !by_size && connector.is_empty() {
        if let Some(key) = LMCACHE.iter().find(|key| values.chosen(key)) {
            let why = "LMCache is not switched on; give engine.kv_transfer_config='{\"kv_connector\":\
                       \"LMCacheConnectorV1\",\"kv_role\":\"kv_both\"}'";
            return Err(refused(key, "vLLM", why));
        }
        if size <= 0.0 {
            return Ok(Offload::default());
        }
        let units = Units::new(parts, values, block, cost, ("kv_offloading_size", disk))?;
        return Ok(Offload {
            blocks: units.blocks(size * GIB),
            ..units.empty
        });
    }
    let key = if by_size {
        "kv_offloading_backend"
    } else {
        "kv_transfer_config"
    };
    let units = Units::new(parts, values, block, cost, (key, disk))?;
    units.without_states(key)?;
    let chunk = values.count("lmcache_chunk_size");
    if !chunk.is_multiple_of(block) {
        let of = format!("blocks of {block} tokens");
        let why = "chunks are whole blocks; give a multiple";
        return Err(refused("lmcache_chunk_size", &of, why));
    }
    let host = match (by_size, values.on("lmcache_local_cpu")) {
        (true, _) => size,
        (false, true) => values.float("lmcache_max_local_cpu_size"),
        (false, false) => 0.0,
    };
    let on_disk = if values.word("lmcache_local_disk").is_empty() {
        0.0
    } else {
        values.float("lmcache_max_local_disk_size")
    };
    Ok(Offload {
        blocks: units.blocks(host * GIB),
        disk_blocks: units.blocks(on_disk * GIB),
        chunk: chunk / block,
        blocking: true,
        ..units.empty
    })
}

/// The settings of `LMCache`, which mean nothing without it.
const LMCACHE: [&str; 5] = [
    "lmcache_chunk_size",
    "lmcache_local_cpu",
    "lmcache_max_local_cpu_size",
    "lmcache_local_disk",
    "lmcache_max_local_disk_size",
];

/// Returns the tiers behind SGLang's tree of `pages` pages of so many tokens.
pub(super) fn hicache(
    parts: &Parts<'_>,
    values: &Values,
    (tokens, pages): (u64, u64),
    cost: &Coefficients,
    disk: Option<f64>,
) -> Result<Offload, RigError> {
    const SWITCH: &str = "enable_hierarchical_cache";
    if !values.on(SWITCH) {
        let keys = ["hicache_ratio", "hicache_size", "hicache_storage_backend"];
        return match keys.iter().find(|key| values.chosen(key)) {
            Some(key) => Err(refused(
                key,
                "SGLang",
                "the tier is not switched on; give engine.enable_hierarchical_cache=on",
            )),
            None => Ok(Offload::default()),
        };
    }
    let units = Units::new(parts, values, tokens, cost, (SWITCH, disk))?;
    units.without_states(SWITCH)?;
    // The size is for each device, in units of 10^9 bytes, and wins over the ratio where it is given.
    let size = 1e9 * values.float("hicache_size") * f64::from(sharing(parts, values));
    let blocks = if size > 0.0 {
        units.blocks(size)
    } else {
        (pages as f64 * values.float("hicache_ratio")) as u64
    };
    let on_disk = !values.word("hicache_storage_backend").is_empty();
    Ok(Offload {
        blocks,
        disk_blocks: if on_disk { UNLIMITED } else { 0 },
        blocking: true,
        ..units.empty
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
