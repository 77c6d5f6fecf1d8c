//! The rows of a sweep for data frames: CSV, and Parquet with the same columns.

use parquet::basic::{LogicalType, Repetition, Type as Physical};
use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::{Type, TypePtr};
use std::io::{self, Write};
use std::sync::Arc;

/// What a column holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Column {
    /// A whole number in every row.
    Whole,
    /// Words, or nothing.
    Word,
    /// A number, or nothing.
    Number,
}

/// A table whose cells are as they are printed; an empty one is nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rows {
    /// The columns, by name.
    pub columns: Vec<(String, Column)>,
    /// The rows, each with a cell for every column.
    pub cells: Vec<Vec<String>>,
}

/// Writes the table as CSV.
pub fn csv(out: impl Write, rows: &Rows) -> io::Result<()> {
    let mut table = csv::Writer::from_writer(out);
    table.write_record(rows.columns.iter().map(|(name, _)| name))?;
    for row in &rows.cells {
        table.write_record(row)?;
    }
    table.flush()
}

/// Writes the table as Parquet.
pub fn parquet(out: impl Write + Send, rows: &Rows) -> io::Result<()> {
    written(out, rows).map_err(io::Error::other)
}

fn written(out: impl Write + Send, rows: &Rows) -> Result<(), ParquetError> {
    let properties = Arc::new(WriterProperties::builder().build());
    let mut file = SerializedFileWriter::new(out, schema(rows)?, properties)?;
    let mut group = file.next_row_group()?;
    for (place, (_, column)) in rows.columns.iter().enumerate() {
        let Some(mut writer) = group.next_column()? else {
            break;
        };
        let cells = || rows.cells.iter().map(|row| row[place].as_str());
        let known: Vec<i16> = cells().map(|cell| i16::from(!cell.is_empty())).collect();
        let told = cells().filter(|cell| !cell.is_empty());
        match column {
            Column::Whole => {
                let values: Vec<i64> = cells().map(|cell| cell.parse().unwrap_or(0)).collect();
                writer
                    .typed::<Int64Type>()
                    .write_batch(&values, None, None)?;
            }
            Column::Number => {
                let values: Vec<f64> = told.filter_map(|cell| cell.parse().ok()).collect();
                writer
                    .typed::<DoubleType>()
                    .write_batch(&values, Some(&known), None)?;
            }
            Column::Word => {
                let values: Vec<ByteArray> = told.map(ByteArray::from).collect();
                writer
                    .typed::<ByteArrayType>()
                    .write_batch(&values, Some(&known), None)?;
            }
        }
        writer.close()?;
    }
    group.close()?;
    file.close()?;
    Ok(())
}

fn schema(rows: &Rows) -> Result<TypePtr, ParquetError> {
    let one = |(name, column): &(String, Column)| {
        let (physical, logical, repetition) = match column {
            Column::Whole => (Physical::INT64, None, Repetition::REQUIRED),
            Column::Number => (Physical::DOUBLE, None, Repetition::OPTIONAL),
            Column::Word => (
                Physical::BYTE_ARRAY,
                Some(LogicalType::String),
                Repetition::OPTIONAL,
            ),
        };
        let field = Type::primitive_type_builder(name, physical)
            .with_logical_type(logical)
            .with_repetition(repetition);
        field.build().map(Arc::new)
    };
    let fields: Result<Vec<TypePtr>, ParquetError> = rows.columns.iter().map(one).collect();
    Ok(Arc::new(
        Type::group_type_builder("cells")
            .with_fields(fields?)
            .build()?,
    ))
}
