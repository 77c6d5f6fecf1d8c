//! Several devices: how an engine shares a model among them, and what they pay for talking to each other.

use super::tiers::LINK_EFFICIENCY;
use super::{Parts, RigError, Values};
use crate::catalog::{Hardware, Model};
use crate::rig::cost::Coefficients;
use crate::units::Bytes;

/// Bytes of one number of an activation where every device has a part of each layer.
const SHARED_BYTES: f64 = 2.0;
/// The same between stages of llama.cpp, which computes activations at 32 bits.
const STAGE_BYTES: f64 = 4.0;
/// Sums over all devices that a layer needs: after attention, and after its feed-forward part.
const SUMS_PER_LAYER: f64 = 2.0;

/// Returns how many devices share each layer.
pub(super) fn sharing(parts: &Parts<'_>, values: &Values) -> u32 {
    if !parts.engine.settings.contains_key("tensor_parallel_size") {
        return 1;
    }
    let asked = values.int("tensor_parallel_size");
    asked.map_or(parts.hardware.devices, |asked| asked as u32)
}

/// Checks what engines check before they share a model.
pub(super) fn check(parts: &Parts<'_>, values: &Values) -> Result<(), RigError> {
    let devices = sharing(parts, values);
    let refused = |why: String| {
        Err(RigError::Devices {
            devices,
            hardware: parts.hardware.title.clone(),
            why,
        })
    };
    if devices > parts.hardware.devices {
        return refused(format!("there are {} in all", parts.hardware.devices));
    }
    let heads = parts.model.shape.value.heads;
    if !heads.is_multiple_of(devices) {
        return refused(format!(
            "{} has {heads} attention heads, which do not divide by {devices}; set \
             engine.tensor_parallel_size to a number that divides them",
            parts.model.name
        ));
    }
    if devices > 1 && parts.hardware.link.is_none() {
        return refused("the catalogue does not say how they are linked".to_string());
    }
    Ok(())
}

/// Returns the model as it is kept: heads of keys and values that there are fewer of than devices are kept several times,
/// and compressed ones by every device.
pub(super) fn kept(parts: &Parts<'_>, values: &Values) -> Option<Model> {
    let devices = u64::from(sharing(parts, values));
    let shape = &parts.model.shape.value;
    let heads = if shape.compressed_kv {
        1
    } else {
        u64::from(shape.kv_heads.max(1))
    };
    let times = devices.div_ceil(heads);
    (times > 1).then(|| {
        let mut model = parts.model.clone();
        let once = model.kv_bytes_per_token;
        model.kv_bytes_per_token = once.map(|bytes| Bytes(bytes.0 * times));
        model
    })
}

/// Returns the one device that llama.cpp is told to keep to, where there are several.
pub(super) fn only_one(hardware: &Hardware, values: &Values) -> Option<Hardware> {
    (hardware.devices > 1 && values.word("split_mode") == "none").then(|| {
        let mut one = hardware.clone();
        one.devices = 1;
        one
    })
}

/// Returns the cost with what devices take to talk.
///
/// Where all have a part of each layer, two sums over all devices follow each layer, for every token of a pass. In a ring
/// of n, 2 (n - 1) messages follow each other and each device sends 2 (n - 1) / n of the numbers; behind a switch two
/// messages do. Where devices hold layers in turn, the numbers go on once between two stages.
pub(super) fn linked(parts: &Parts<'_>, values: &Values, cost: Coefficients) -> Coefficients {
    let hardware = parts.hardware;
    let sharing = sharing(parts, values);
    let staged = sharing == 1 && holds_layers_in_turn(parts);
    let Some(link) = hardware.link.as_ref().filter(|_| sharing > 1 || staged) else {
        return cost;
    };
    let shape = &parts.model.shape.value;
    let rate = link.bandwidth.value.0 * LINK_EFFICIENCY;
    let latency = link.latency_s.value;
    let (messages, numbers, bytes) = if staged {
        let borders = f64::from(hardware.devices - 1);
        (borders, borders, STAGE_BYTES)
    } else {
        let (n, sums) = (f64::from(sharing), SUMS_PER_LAYER * f64::from(shape.layers));
        let hops = if link.switched() {
            2.0
        } else {
            2.0 * (n - 1.0)
        };
        (sums * hops, sums * 2.0 * (n - 1.0) / n, SHARED_BYTES)
    };
    Coefficients {
        weights_s: cost.weights_s + messages * latency,
        link_token_s: cost.link_token_s + numbers * f64::from(shape.hidden) * bytes / rate,
        ..cost
    }
}

/// Returns whether the engine puts some layers on each device, so that one pass visits them in turn.
fn holds_layers_in_turn(parts: &Parts<'_>) -> bool {
    let shares = parts.engine.settings.contains_key("tensor_parallel_size");
    parts.hardware.devices > 1 && !shares
}
