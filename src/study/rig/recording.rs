//! The rig `recorded`: answers as the recording did, and holds for what the recording says of itself.

use super::RigError;
use crate::known::Trust;
use crate::operating_point::{Kind, OperatingPoint};
use crate::rig::Rig;
use crate::rig::recorded::Recorded;
use crate::trace::Trace;
use std::collections::BTreeMap;

/// The name of the rig that answers as the recording did.
pub const RECORDED: &str = "recorded";

/// Builds the rig on which `trace` was recorded; it has no settings.
pub(super) fn build(settings: &[(String, String)], trace: &Trace) -> Result<Rig, RigError> {
    if let Some((key, _)) = settings.first() {
        return Err(RigError::NoSettings(key.clone()));
    }
    let sessions = trace.sessions.iter();
    let models: Vec<&str> = sessions.filter_map(|one| one.model.as_deref()).collect();
    let same = models.windows(2).all(|pair| pair[0] == pair[1]);
    let point = OperatingPoint {
        name: RECORDED.to_string(),
        kind: Kind::Simulated,
        hardware: None,
        engine: None,
        engine_version: None,
        model: models.first().filter(|_| same).map(ToString::to_string),
        quantization: None,
        settings: BTreeMap::new(),
        trust: Trust::Measured,
        error_interval: None,
        known_by:
            "every call takes the time it took when it was recorded; neighbours cost nothing, and \
                   the whole of a call counts as writing its answer"
                .to_string(),
    };
    Ok(Rig {
        point,
        cache: None,
        draw: None,
        price: None,
        backend: Box::new(Recorded::new(trace)),
    })
}
