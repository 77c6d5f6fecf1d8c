//! Grids: a scenario whose table `[grid]` gives lists of values, each combination of which is a cell.
//!
//! Every key of a scenario may be an axis, and every setting: `grid.agents = [1, 2, 4]`, `grid.set.engine.max_num_seqs =
//! [8, 16]`. Axes stand in the order of the file, the last one changing fastest. `docs/scale/README.md` describes the format.

use super::{
    Fault, KEYS, Scenario, ScenarioError, Values, check_name, flags_of, shown, texts, values_of,
    wrong_in,
};
use std::fs;
use std::path::Path;
use toml::de::{DeArray, DeTable, DeValue};

/// One respect in which cells differ.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Axis {
    /// The scenario's key, or `set.` and a setting's.
    pub name: String,
    /// The flag it is on the command line.
    pub flag: &'static str,
    /// What it may be: each the flag's values as they would be typed.
    pub values: Vec<Vec<String>>,
}

/// A grid that was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Grid {
    /// What all cells have in common.
    pub base: Scenario,
    /// In what they differ.
    pub axes: Vec<Axis>,
    /// Figures of which one wants the best, each against the others.
    pub pareto: Vec<String>,
    /// Figures to be told beside the usual ones.
    pub figures: Vec<String>,
}

impl Grid {
    /// Reads the grid at `path`. Paths in it are taken from the folder it lies in.
    pub fn read(path: &Path) -> Result<Grid, ScenarioError> {
        let text = fs::read_to_string(path).map_err(|source| ScenarioError::Unreadable {
            path: path.to_path_buf(),
            source,
        })?;
        Grid::parse(path, &text)
    }

    /// Reads `text` as the grid at `path`.
    pub fn parse(path: &Path, text: &str) -> Result<Grid, ScenarioError> {
        let wrong = |fault: Fault| wrong_in(path, text, fault);
        let root = DeTable::parse(text).map_err(|error| {
            let what = error.message().replace('\n', ", ");
            wrong((error.span().unwrap_or(0..0), what))
        })?;
        let mut root = root.into_inner();
        let folder = path.parent().unwrap_or(Path::new(""));
        let (mut axes, mut pareto, mut figures) = (Vec::new(), Vec::new(), Vec::new());
        for (name, to) in [("pareto", &mut pareto), ("figure", &mut figures)] {
            if let Some(value) = root.remove(name) {
                let told = shown(value.get_ref());
                let fault = (
                    value.span(),
                    format!("`{name}` is {told}; expected a list of figures"),
                );
                *to = texts(&value).ok_or(fault).map_err(wrong)?;
            }
        }
        let Some(grid) = root.remove("grid") else {
            let what = "there is no table `[grid]`, so there is one cell; write [grid] and lists of values".to_string();
            return Err(wrong((0..0, what)));
        };
        let DeValue::Table(table) = grid.get_ref() else {
            let what = format!(
                "`grid` is {}; expected a table of lists",
                shown(grid.get_ref())
            );
            return Err(wrong((grid.span(), what)));
        };
        for (key, value) in table {
            check_name(key).map_err(wrong)?;
            axes_of(key.get_ref(), value, folder, &mut axes).map_err(wrong)?;
        }
        axes.sort_by_key(|(at, _): &(usize, Axis)| *at);
        Ok(Grid {
            base: flags_of(&root, folder).map_err(wrong)?,
            axes: axes.into_iter().map(|(_, axis)| axis).collect(),
            pareto,
            figures,
        })
    }

    /// Returns how many cells there are.
    pub fn cells(&self) -> usize {
        let sizes = self.axes.iter().map(|axis| axis.values.len());
        sizes.fold(1, usize::saturating_mul)
    }

    /// Returns which value of each axis a cell has.
    pub fn places(&self, mut cell: usize) -> Vec<usize> {
        let mut places = vec![0; self.axes.len()];
        for (place, axis) in places.iter_mut().zip(&self.axes).rev() {
            *place = cell % axis.values.len();
            cell /= axis.values.len();
        }
        places
    }

    /// Returns the flags of a cell with their values, in one order.
    pub fn flags(&self, cell: usize) -> Vec<(&'static str, Vec<String>)> {
        let mut flags = self.base.flags.clone();
        for (axis, place) in self.axes.iter().zip(self.places(cell)) {
            let values = axis.values[place].clone();
            if axis.flag == "set" {
                let key = |setting: &String| setting.split('=').next().map(ToString::to_string);
                let own = values.first().and_then(key);
                for (_, settings) in flags.iter_mut().filter(|(flag, _)| *flag == "set") {
                    settings.retain(|setting| key(setting) != own);
                }
                flags.push(("set", values));
                continue;
            }
            flags.retain(|(flag, _)| *flag != axis.flag);
            match (values.first().map(String::as_str), axis.flag) {
                (Some("true"), "warm-start") => flags.push((axis.flag, Vec::new())),
                (Some("false"), "warm-start") => {}
                _ => flags.push((axis.flag, values)),
            }
        }
        flags
    }
}

fn axes_of(
    key: &str,
    value: Values<'_, '_>,
    folder: &Path,
    axes: &mut Vec<(usize, Axis)>,
) -> Result<(), Fault> {
    if key == "set" {
        let DeValue::Table(table) = value.get_ref() else {
            return Err((
                value.span(),
                "`grid.set` must be a table of lists".to_string(),
            ));
        };
        return settings("", table, axes);
    }
    let Some((flag, kind)) = KEYS.iter().find(|(name, _)| *name == key) else {
        return Err((value.span(), format!("`{key}` cannot be an axis")));
    };
    let items = list(key, value)?;
    let values = items.iter().map(|item| {
        values_of(*kind, item, folder).map_err(|expected| {
            let found = shown(item.get_ref());
            (
                item.span(),
                format!("`grid.{key}` has {found}; expected {expected}"),
            )
        })
    });
    let values = values.collect::<Result<Vec<_>, Fault>>()?;
    axes.push((
        value.span().start,
        Axis {
            name: key.to_string(),
            flag,
            values,
        },
    ));
    Ok(())
}

fn settings(prefix: &str, table: &DeTable<'_>, axes: &mut Vec<(usize, Axis)>) -> Result<(), Fault> {
    for (name, value) in table {
        let key = format!("{prefix}{}", name.get_ref());
        if let DeValue::Table(inner) = value.get_ref() {
            settings(&format!("{key}."), inner, axes)?;
            continue;
        }
        let items = list(&key, value)?;
        let one = |item: Values<'_, '_>| {
            let mut told = Vec::new();
            let complete = super::gather(&format!("{key}."), item, &mut told);
            let fault = (
                item.span(),
                format!("`grid.set.{key}` has {}", shown(item.get_ref())),
            );
            (complete && told.len() == 1).then_some(told).ok_or(fault)
        };
        let values = items.iter().map(one).collect::<Result<Vec<_>, Fault>>()?;
        axes.push((
            value.span().start,
            Axis {
                name: format!("set.{key}"),
                flag: "set",
                values,
            },
        ));
    }
    Ok(())
}

fn list<'v, 't>(key: &str, value: Values<'v, 't>) -> Result<&'v DeArray<'t>, Fault> {
    match value.get_ref() {
        DeValue::Array(items) if !items.is_empty() => Ok(items),
        other => Err((
            value.span(),
            format!(
                "`grid.{key}` is {}; expected a list of values",
                shown(other)
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(text: &str) -> Result<Grid, String> {
        Grid::parse(Path::new("grids/one.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn the_last_axis_changes_fastest_and_axes_stand_as_written() {
        let grid = grid("trace = 'a'\n[grid]\nrig = ['x', 'y']\nagents = [1, 2, 4]\nset.engine.parallel = [2, 8]\n").unwrap();
        assert_eq!(grid.cells(), 12);
        let told = |cell: usize| {
            let flags = grid.flags(cell).into_iter();
            let told: Vec<String> = flags
                .map(|(flag, values)| format!("{flag} {}", values.join(" ")))
                .collect();
            told.join(", ")
        };
        assert_eq!(
            told(0),
            "trace grids/a, rig x, agents 1, set engine.parallel=2"
        );
        assert_eq!(
            told(1),
            "trace grids/a, rig x, agents 1, set engine.parallel=8"
        );
        assert_eq!(
            told(11),
            "trace grids/a, rig y, agents 4, set engine.parallel=8"
        );
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, told) in [
            ("trace = 'a'\n", "one.toml:1: there is no table `[grid]`"),
            (
                "[grid]\nagents = 3\n",
                "one.toml:2: `grid.agents` is 3; expected a list of values",
            ),
            (
                "[grid]\nagents = [0]\n",
                "one.toml:2: `grid.agents` has 0; expected a whole number",
            ),
            (
                "[grid]\nagnets = [1]\n",
                "one.toml:2: unknown key `agnets`; did you mean `agents`?",
            ),
        ] {
            let found = grid(text).unwrap_err();
            assert!(found.contains(told), "{found}");
        }
    }
}
