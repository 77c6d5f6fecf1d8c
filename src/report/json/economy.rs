//! Energy and money in the result document.

use crate::rig::power::Energy;
use crate::study::economy::Economy;
use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Serialize)]
pub(super) struct EnergyOut {
    counts: &'static str,
    trust: &'static str,
    prefill_wh: f64,
    decode_wh: f64,
    attention_wh: f64,
    idle_wh: f64,
}

pub(super) fn energy(energy: &Energy) -> EnergyOut {
    EnergyOut {
        counts: energy.covers.word(),
        trust: energy.trust.word(),
        prefill_wh: energy.prefill.watt_hours(),
        decode_wh: energy.decode.watt_hours(),
        attention_wh: energy.attention.watt_hours(),
        idle_wh: energy.idle.watt_hours(),
    }
}

#[derive(Serialize)]
struct Bought<'a> {
    usd: f64,
    date: Option<&'a str>,
    source: &'a str,
    trust: &'static str,
}

#[derive(Serialize)]
struct Api {
    usd: f64,
    break_even_runs: Option<f64>,
    break_even_days: Option<f64>,
}

#[derive(Serialize)]
pub(super) struct EconomyOut<'a> {
    prices: BTreeMap<String, f64>,
    hardware: Option<Bought<'a>>,
    electricity_usd: Option<f64>,
    hardware_usd: Option<f64>,
    usd_per_run: Option<f64>,
    usd_per_mtok: Option<f64>,
    api: Option<Api>,
}

pub(super) fn economy(economy: &Economy) -> EconomyOut<'_> {
    EconomyOut {
        prices: economy.prices.settings(),
        hardware: economy.hardware.as_ref().map(|bought| Bought {
            usd: bought.amount.0,
            date: bought.date.as_deref(),
            source: &bought.source,
            trust: bought.trust.word(),
        }),
        electricity_usd: economy.electricity.map(|money| money.0),
        hardware_usd: economy.hardware_share.map(|money| money.0),
        usd_per_run: economy.per_run.map(|money| money.0),
        usd_per_mtok: economy.per_mtok.map(|money| money.0),
        api: economy.api.map(|api| Api {
            usd: api.total.0,
            break_even_runs: api.break_even_runs,
            break_even_days: api.break_even_days,
        }),
    }
}
