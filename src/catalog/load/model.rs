//! Reads a family of models: its shape once, and one model per quantisation.
//!
//! What follows from parameters and bits is computed here, and its source says so.

use super::CatalogError;
use super::read::{Fields, File, Quantity};
use crate::catalog::hardware::Precision;
use crate::catalog::model::{Model, Moe, Shape, WeightsFrom};
use crate::known::{Known, Trust};
use crate::units::{Bytes, Tokens};

/// What a family's models have in common.
struct Family {
    name: String,
    title: String,
    aliases: Vec<String>,
    note: Option<String>,
    total: Known<f64>,
    active: Known<f64>,
    head: Known<f64>,
    experts: Option<Experts>,
    shape: Known<Shape>,
    kv: Known<Bytes>,
    state: Known<Bytes>,
    state_page: Option<Known<Bytes>>,
    max_context: Known<Tokens>,
}

struct Experts {
    count: u32,
    per_token: u32,
    shared: u32,
    params: Known<f64>,
}

/// Bits per weight by part of the model.
struct Bits {
    matrices: Known<f64>,
    experts: Known<f64>,
    head: Known<f64>,
    embedding: Known<f64>,
}

/// Reads the models that a family file describes.
pub(super) fn read(file: &File<'_>) -> Result<Vec<Model>, CatalogError> {
    let root = file.parse()?;
    let fields = Fields::new(file, &root);
    let family = family(&fields)?;
    let common = file.take_notes();
    let mut models = Vec::new();
    for table in fields.tables("quantization")? {
        let mut model = quantized(&family, &table)?;
        model.notes = common.clone();
        model.notes.append(&mut file.take_notes());
        table.finish()?;
        models.push(model);
    }
    if models.is_empty() {
        return Err(fields.missing("quantization", "at least one table"));
    }
    fields.finish()?;
    Ok(models)
}

fn family(fields: &Fields<'_, '_>) -> Result<Family, CatalogError> {
    let params = |key| fields.figure(key, Quantity::Params);
    let bytes = |key| fields.figure(key, Quantity::Bytes);
    let state_page = fields.optional_figure("state_page_bytes", Quantity::Bytes)?;
    let family = Family {
        name: fields.id("name")?,
        title: fields.text("title")?,
        aliases: fields.ids("aliases")?,
        note: fields.optional_text("note")?,
        total: params("total_params")?,
        active: params("active_params")?,
        head: params("lm_head_params")?,
        experts: experts(fields)?,
        shape: shape(&fields.table("shape")?)?,
        kv: bytes("kv_bytes_per_token")?.map(whole),
        state: bytes("state_bytes_per_sequence")?.map(whole),
        state_page: state_page.map(|known| known.map(whole)),
        max_context: fields
            .figure("max_context", Quantity::Tokens)?
            .map(|tokens| Tokens(tokens as u64)),
    };
    let used = family.head.value + family.experts.as_ref().map_or(0.0, Experts::active);
    if family.active.value < used || family.total.value < family.active.value {
        let found = format!("{} params", family.active.value);
        let expected = "between those of head and experts of one token, and all";
        return Err(fields.wrong_value("active_params", &found, expected));
    }
    Ok(family)
}

fn shape(table: &Fields<'_, '_>) -> Result<Known<Shape>, CatalogError> {
    let or_none = |key| table.optional_count(key).map(Option::unwrap_or_default);
    let shape = Shape {
        layers: table.count("layers")?,
        kv_layers: table.count("kv_layers")?,
        state_layers: or_none("state_layers")?,
        window_layers: or_none("window_layers")?,
        window: or_none("window")?,
        hidden: table.count("hidden")?,
        heads: table.count("heads")?,
        kv_heads: table.count("kv_heads")?,
        head_dim: table.count("head_dim")?,
        compressed_kv: table.flag("compressed_kv")?.unwrap_or_default(),
        vocab: table.count("vocab")?,
        mtp_layers: or_none("mtp_layers")?,
    };
    if shape.kv_layers + shape.state_layers + shape.window_layers != shape.layers {
        let expected = "kv_layers + state_layers + window_layers";
        return Err(table.wrong_value("layers", &shape.layers.to_string(), expected));
    }
    table.known(shape)
}

fn experts(fields: &Fields<'_, '_>) -> Result<Option<Experts>, CatalogError> {
    let Some(table) = fields.optional_table("moe")? else {
        return Ok(None);
    };
    let experts = Experts {
        count: table.count("experts")?,
        per_token: table.count("per_token")?,
        shared: table.count("shared")?,
        params: table.figure("expert_params", Quantity::Params)?,
    };
    table.finish()?;
    Ok(Some(experts))
}

impl Experts {
    fn all(&self) -> f64 {
        f64::from(self.count) * self.params.value
    }

    fn active(&self) -> f64 {
        f64::from(self.per_token) * self.params.value
    }
}

fn quantized(family: &Family, table: &Fields<'_, '_>) -> Result<Model, CatalogError> {
    let name = table.id("name")?;
    let bits = bits(table)?;
    let moe = family.experts.as_ref().map(|experts| Moe {
        experts: experts.count,
        per_token: experts.per_token,
        shared: experts.shared,
        expert_params: experts.params.clone(),
        expert_bytes: computed(
            in_bytes(experts.params.value, &bits.experts),
            "parameters of an expert x bits",
            &[experts.params.trust, bits.experts.trust],
        ),
    });
    let file_size = table.optional_figure("weights", Quantity::Bytes)?;
    let weights_from = match file_size {
        Some(_) => WeightsFrom::File,
        None => WeightsFrom::Computed,
    };
    let model_note = table.optional_text("note")?;
    let alias = |family: &String| format!("{family}-{name}");
    let mut aliases: Vec<String> = family.aliases.iter().map(alias).collect();
    aliases.extend(table.ids("aliases")?);
    Ok(Model {
        name: alias(&family.name),
        family: family.name.clone(),
        title: family.title.clone(),
        aliases,
        quantization: table.text("title")?,
        weights: file_size.map_or_else(|| weights(family, &bits), |known| known.map(whole)),
        weights_from,
        total_params: family.total.clone(),
        active_params: family.active.clone(),
        lm_head_params: family.head.clone(),
        read_per_token: read_bytes(family, &bits, Experts::active, "active"),
        read_all: read_bytes(family, &bits, Experts::all, "all"),
        shape: family.shape.clone(),
        kv_bytes_per_token: family.kv.clone(),
        state_bytes_per_sequence: family.state.clone(),
        state_page_bytes: family.state_page.clone(),
        moe,
        max_context: family.max_context.clone(),
        weight_bits: bits.matrices,
        compute: table.choice("compute", &Precision::ALL, Precision::word)?,
        note: model_note.or_else(|| family.note.clone()),
        notes: std::collections::BTreeMap::new(),
    })
}

/// Reads the bits per weight; parts that are not named have those of the matrices.
fn bits(table: &Fields<'_, '_>) -> Result<Bits, CatalogError> {
    let matrices = table.figure("bits", Quantity::Bits)?;
    let part = |key| -> Result<Known<f64>, CatalogError> {
        let figure = table.optional_figure(key, Quantity::Bits)?;
        Ok(figure.unwrap_or_else(|| matrices.clone()))
    };
    Ok(Bits {
        experts: part("expert_bits")?,
        head: part("head_bits")?,
        embedding: part("embedding_bits")?,
        matrices,
    })
}

/// Returns the parameters outside embedding, head and routed experts.
fn dense_params(family: &Family) -> f64 {
    let routed = family.experts.as_ref().map_or(0.0, Experts::active);
    family.active.value - family.head.value - routed
}

fn weights(family: &Family, bits: &Bits) -> Known<Bytes> {
    let routed = family.experts.as_ref().map_or(0.0, Experts::all);
    let matrices = dense_params(family) + routed;
    let embedding = (family.total.value - matrices - family.head.value).max(0.0);
    let bytes = in_bytes(dense_params(family), &bits.matrices)
        + in_bytes(routed, &bits.experts)
        + in_bytes(family.head.value, &bits.head)
        + in_bytes(embedding, &bits.embedding);
    let trusts = [family.total.trust, bits.trust(), Trust::Estimate];
    computed(bytes, "all parameters x bits per weight", &trusts)
}

fn read_bytes(
    family: &Family,
    bits: &Bits,
    routed: fn(&Experts) -> f64,
    which: &str,
) -> Known<Bytes> {
    let routed = family.experts.as_ref().map_or(0.0, routed);
    let bytes = in_bytes(dense_params(family), &bits.matrices)
        + in_bytes(routed, &bits.experts)
        + in_bytes(family.head.value, &bits.head);
    let what = match family.experts {
        Some(_) => format!("dense parameters and {which} experts x bits per weight"),
        None => "matrix parameters x bits per weight".to_string(),
    };
    computed(bytes, &what, &[family.active.trust, bits.trust()])
}

impl Bits {
    fn trust(&self) -> Trust {
        let parts = [&self.matrices, &self.experts, &self.head, &self.embedding];
        parts
            .map(|part| part.trust)
            .into_iter()
            .max()
            .expect("four parts")
    }
}

fn in_bytes(params: f64, bits: &Known<f64>) -> f64 {
    params * bits.value / 8.0
}

/// Returns a figure that follows from others and is known no better than the worst of them.
fn computed(bytes: f64, how: &str, trusts: &[Trust]) -> Known<Bytes> {
    Known {
        value: whole(bytes),
        source: format!("computed: {how}"),
        trust: trusts.iter().copied().max().unwrap_or(Trust::Estimate),
    }
}

fn whole(bytes: f64) -> Bytes {
    Bytes(bytes.round() as u64)
}
