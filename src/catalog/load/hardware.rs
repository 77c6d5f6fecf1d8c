//! Reads a machine.

use super::CatalogError;
use super::read::{Fields, File, Quantity};
use crate::catalog::hardware::{
    AttentionPower, Compute, Hardware, Link, Platform, Power, PowerCap, Price, Thermal,
};
use crate::known::Known;
use crate::units::{Bytes, BytesPerSec, FlopsPerSec, Money, Span, Watts};

/// Reads the machine that a file describes.
pub(super) fn read(file: &File<'_>) -> Result<Hardware, CatalogError> {
    let root = file.parse()?;
    let fields = Fields::new(file, &root);
    let bytes = |key| {
        Ok(fields
            .figure(key, Quantity::Bytes)?
            .map(|n| Bytes(n as u64)))
    };
    let rate = |key| -> Result<Option<Known<BytesPerSec>>, CatalogError> {
        let figure = fields.optional_figure(key, Quantity::BytesPerSec)?;
        Ok(figure.map(|known| known.map(BytesPerSec)))
    };
    let memory: Known<Bytes> = bytes("memory")?;
    let usable: Known<Bytes> = bytes("usable")?;
    if usable.value > memory.value {
        let found = usable.value.to_string();
        return Err(fields.wrong_value("usable", &found, &format!("at most {}", memory.value)));
    }
    let hardware = Hardware {
        name: fields.id("name")?,
        title: fields.text("title")?,
        aliases: fields.ids("aliases")?,
        chip: fields.id("chip")?,
        platform: fields.choice("platform", &Platform::ALL, Platform::word)?,
        form: fields.text("form")?,
        devices: fields.count("devices")?,
        unified_memory: fields
            .flag("unified_memory")?
            .ok_or_else(|| fields.missing("unified_memory", "true or false"))?,
        memory,
        usable,
        bandwidth: fields
            .figure("bandwidth", Quantity::BytesPerSec)?
            .map(BytesPerSec),
        bandwidth_measured: rate("bandwidth_measured")?,
        compute: compute(&fields)?,
        link: link(&fields)?,
        host_link: rate("host_link")?,
        power: power(&fields)?,
        thermal: thermal(&fields)?,
        price: price(&fields)?,
        note: fields.optional_text("note")?,
        notes: file.take_notes(),
    };
    if hardware.devices == 0 {
        return Err(fields.wrong_value("devices", "0", "at least 1"));
    }
    fields.finish()?;
    Ok(hardware)
}

fn compute(fields: &Fields<'_, '_>) -> Result<Compute, CatalogError> {
    let Some(table) = fields.optional_table("compute")? else {
        return Ok(Compute::default());
    };
    let rate = |key| -> Result<Option<Known<FlopsPerSec>>, CatalogError> {
        let figure = table.optional_figure(key, Quantity::FlopsPerSec)?;
        Ok(figure.map(|known| known.map(FlopsPerSec)))
    };
    let compute = Compute {
        f16: rate("f16")?,
        fp8: rate("fp8")?,
        int8: rate("int8")?,
        fp4: rate("fp4")?,
    };
    table.finish()?;
    Ok(compute)
}

fn link(fields: &Fields<'_, '_>) -> Result<Option<Link>, CatalogError> {
    let Some(table) = fields.optional_table("link")? else {
        return Ok(None);
    };
    let link = Link {
        kind: table.id("kind")?,
        bandwidth: table
            .figure("bandwidth", Quantity::BytesPerSec)?
            .map(BytesPerSec),
        latency_s: table.figure("latency", Quantity::Seconds)?,
    };
    table.finish()?;
    Ok(Some(link))
}

fn power(fields: &Fields<'_, '_>) -> Result<Power, CatalogError> {
    let Some(table) = fields.optional_table("power")? else {
        return Ok(Power::default());
    };
    let watts = |key| -> Result<Option<Known<Watts>>, CatalogError> {
        let figure = table.optional_figure(key, Quantity::Watts)?;
        Ok(figure.map(|known| known.map(Watts)))
    };
    let power = Power {
        shared_package: table.flag("shared_package")?.unwrap_or_default(),
        limit: watts("limit")?,
        idle: watts("idle")?,
        decode: watts("decode")?,
        prefill: watts("prefill")?,
        attention: attention(&table)?,
        rest: watts("rest")?,
        wall: watts("wall")?,
        wall_idle: watts("wall_idle")?,
        caps: caps(&table)?,
    };
    table.finish()?;
    Ok(power)
}

fn attention(power: &Fields<'_, '_>) -> Result<Option<AttentionPower>, CatalogError> {
    let Some(table) = power.optional_table("attention")? else {
        return Ok(None);
    };
    let attention = AttentionPower {
        engine: table.id("engine")?,
        watts: table.figure("watts", Quantity::Watts)?.map(Watts),
    };
    table.finish()?;
    Ok(Some(attention))
}

/// Reads the measured effects of lower limits, which must stand from the highest limit down.
fn caps(power: &Fields<'_, '_>) -> Result<Vec<PowerCap>, CatalogError> {
    let mut caps: Vec<PowerCap> = Vec::new();
    for table in power.tables("cap")? {
        let cap = PowerCap {
            limit: table.figure("limit", Quantity::Watts)?.map(Watts),
            memory_rate: table.figure("memory_rate", Quantity::Ratio)?,
            compute_rate: table.figure("compute_rate", Quantity::Ratio)?,
        };
        for (key, rate) in [
            ("memory_rate", &cap.memory_rate),
            ("compute_rate", &cap.compute_rate),
        ] {
            if rate.value <= 0.0 || rate.value > 1.0 {
                return Err(table.wrong_value(
                    key,
                    &rate.value.to_string(),
                    "a share above 0, at most 1",
                ));
            }
        }
        if caps
            .last()
            .is_some_and(|last| last.limit.value <= cap.limit.value)
        {
            let found = format!("{} W", cap.limit.value.0);
            return Err(table.wrong_value("limit", &found, "a limit below the one before it"));
        }
        table.finish()?;
        caps.push(cap);
    }
    Ok(caps)
}

fn thermal(fields: &Fields<'_, '_>) -> Result<Option<Thermal>, CatalogError> {
    let Some(table) = fields.optional_table("thermal")? else {
        return Ok(None);
    };
    let thermal = Thermal {
        after: table
            .figure("after", Quantity::Seconds)?
            .map(Span::from_secs),
        prefill_time: table.figure("prefill_time", Quantity::Ratio)?,
    };
    if thermal.prefill_time.value < 1.0 {
        let found = thermal.prefill_time.value.to_string();
        return Err(table.wrong_value("prefill_time", &found, "at least 1 x"));
    }
    table.finish()?;
    Ok(Some(thermal))
}

fn price(fields: &Fields<'_, '_>) -> Result<Option<Price>, CatalogError> {
    let Some(table) = fields.optional_table("price")? else {
        return Ok(None);
    };
    let price = Price {
        amount: table.figure("amount", Quantity::Dollars)?.map(Money),
        date: table.text("date")?,
    };
    table.finish()?;
    Ok(Some(price))
}
