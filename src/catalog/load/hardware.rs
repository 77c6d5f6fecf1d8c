//! Reads a machine.

use super::CatalogError;
use super::read::{Fields, File, Quantity};
use crate::catalog::hardware::{Compute, Hardware, Link, Platform, Power, Price};
use crate::known::Known;
use crate::units::{Bytes, BytesPerSec, FlopsPerSec, Money, Watts};

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
        limit: watts("limit")?,
        idle: watts("idle")?,
        decode: watts("decode")?,
        prefill: watts("prefill")?,
        wall: watts("wall")?,
    };
    table.finish()?;
    Ok(power)
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
